package storetest

import (
	"testing"

	"caracal.run/management/store/private"
)

func TestMain(m *testing.M) { Main(m) }

func TestRedisURLDoesNotDependOnFixtures(t *testing.T) {
	t.Parallel()
	first := RedisURL(t)
	for range private.RedisDatabases - 1 {
		id("fixture")
	}
	if RedisURL(t) == first {
		t.Error("two tests share a Redis database")
	}
}
