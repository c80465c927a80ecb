package server

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/server/coding"
)

// A client that does not read its events is disconnected, and they are not kept in memory.
func TestEventWriterDisconnectsSlowReader(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 1)
	server := httptest.NewServer(coding.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out := eventWriter{ResponseWriter: w, control: http.NewResponseController(w), writeTimeout: 100 * time.Millisecond}
		out.begin()
		for {
			out.event(api.ZoneEvent{ID: "1", Type: "zones.created", EntityID: strings.Repeat("x", 1<<20)})
			if err := out.send(); err != nil {
				failed <- err
				return
			}
		}
	})))
	defer server.Close()
	client := http.Client{Transport: &http.Transport{DisableCompression: true}}
	resp, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
