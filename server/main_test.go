package server_test

import (
	"testing"

	"caracal.run/management/server/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }
