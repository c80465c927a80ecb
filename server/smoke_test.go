package server_test

import (
	"testing"

	"caracal.run/management/server/servertest"
)

func TestSmoke(t *testing.T) {
	t.Parallel()
	servertest.Smoke(t, servertest.New(t).URL, servertest.Bootstrap)
}
