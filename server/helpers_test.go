package server_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"caracal.run/management/server/servertest"
)

// decode unmarshals a response body.
func decode[T any](t *testing.T, raw servertest.RawResponse) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(raw.Body, &v); err != nil {
		t.Fatalf("%v: %s", err, raw.Body)
	}
	return v
}

// eventually waits until a condition is true. It fails the test after 10 seconds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func containsLine(text, line string) bool {
	for l := range strings.Lines(text) {
		if strings.TrimSpace(l) == line {
			return true
		}
	}
	return false
}
