package server_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"caracal.run/management/server/servertest"
)

func decode[T any](t *testing.T, raw servertest.RawResponse) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(raw.Body, &v); err != nil {
		t.Fatalf("%v: %s", err, raw.Body)
	}
	return v
}

// eventually waits for something that happens beside the requests.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !happened() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
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
