package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
)

// loggedLevel returns the level at which the request with an id was logged, once it was.
func loggedLevel(t *testing.T, a *servertest.API, requestID string) (level string) {
	t.Helper()
	eventually(t, "the request is logged", func() bool {
		for line := range strings.Lines(a.Log.String()) {
			var entry struct {
				Level, Msg string
				RequestID  string `json:"request_id"`
			}
			if err := json.Unmarshal([]byte(line), &entry); err == nil && entry.Msg == "request" && entry.RequestID == requestID {
				level = entry.Level
			}
		}
		return level != ""
	})
	return level
}

// A probe of /ready that gets 503 is how an orchestrator works, and no reason to
// alert anyone. A request that fails because of the database is one.
func TestReadinessFailureIsLoggedBelowError(t *testing.T) {
	t.Parallel()
	t.Run("postgres unreachable", func(t *testing.T) {
		a := servertest.New(t)
		a.DB.Disable()
		defer a.DB.Enable()
		probe := a.Do("GET", "/ready", "")
		if probe.StatusCode() != http.StatusServiceUnavailable {
			t.Fatalf("/ready returned %d: %s", probe.StatusCode(), probe.Body)
		}
		if level := loggedLevel(t, a, probe.Header.Get("X-Request-Id")); level != "WARN" {
			t.Errorf("/ready is logged at %s, want WARN", level)
		}
		failed := a.Do("GET", "/v1/zones", "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, failed, 0, code.ServiceUnavailable)
		if level := loggedLevel(t, a, failed.Header.Get("X-Request-Id")); level != "ERROR" {
			t.Errorf("a failed operation is logged at %s, want ERROR", level)
		}
	})
	t.Run("draining", func(t *testing.T) {
		a := servertest.New(t, "DRAIN_DELAY_MS=1000")
		stopped := make(chan error, 1)
		go func() { stopped <- a.Service.Stop() }()
		var probe servertest.RawResponse
		eventually(t, "/ready returns 503", func() bool {
			probe = a.Do("GET", "/ready", "")
			return probe.StatusCode() == http.StatusServiceUnavailable
		})
		if err := <-stopped; err != nil {
			t.Fatal(err)
		}
		if level := loggedLevel(t, a, probe.Header.Get("X-Request-Id")); level != "WARN" {
			t.Errorf("/ready is logged at %s, want WARN", level)
		}
	})
}
