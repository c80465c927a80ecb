package client_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"caracal.run/management/gen/client"
)

// answering is a service that answers the n-th request with the n-th status.
func answering(t *testing.T, statuses ...int) (*client.ClientWithResponses, *atomic.Int64) {
	t.Helper()
	asked := &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := min(int(asked.Add(1)), len(statuses))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(statuses[n-1])
		_, _ = w.Write([]byte(`{}`))
	}))
	t.Cleanup(s.Close)
	c, err := client.New(s.URL, "x")
	if err != nil {
		t.Fatal(err)
	}
	return c, asked
}

func TestReadsAreSentAgainAndWritesAreNot(t *testing.T) {
	t.Parallel()
	c, asked := answering(t, 503, 502, 200)
	if _, err := client.OK(c.GetZoneWithResponse(t.Context(), "x")); err != nil || asked.Load() != 3 {
		t.Errorf("%d requests: %v", asked.Load(), err)
	}
	c, asked = answering(t, 503)
	_, err := client.Created(c.CreateZoneWithResponse(t.Context(), client.NewZone{Name: "x"}))
	var refusal *client.Error
	if !errors.As(err, &refusal) || refusal.Status != 503 || client.Code(err) != "Service Unavailable" || asked.Load() != 1 {
		t.Errorf("%d requests: %v", asked.Load(), err)
	}
	c, asked = answering(t, 404)
	if _, err := client.OK(c.GetZoneWithResponse(t.Context(), "x")); err == nil || asked.Load() != 1 {
		t.Errorf("%d requests: %v", asked.Load(), err)
	}
	c, asked = answering(t, 504)
	if _, err := client.OK(c.GetZoneWithResponse(t.Context(), "x")); err == nil || asked.Load() != 4 {
		t.Errorf("%d requests: %v", asked.Load(), err)
	}
}

func TestWhatTheServiceDoesNotPromiseIsAnError(t *testing.T) {
	t.Parallel()
	c, _ := answering(t, 299)
	if _, err := client.OK(c.GetZoneWithResponse(t.Context(), "x")); err == nil {
		t.Error("a 299 passed for a zone")
	}
	down, err := client.New("http://127.0.0.1:1", "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Created(down.CreateZoneWithResponse(t.Context(), client.NewZone{})); err == nil || client.Code(err) != "" {
		t.Errorf("nobody there: %v", err)
	}
}

func TestARefusalEndsAnIterator(t *testing.T) {
	t.Parallel()
	c, err := client.New(address, "wrong")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range c.AllZones(t.Context(), nil) {
		n++
		if client.Code(err) != "invalid_admin_token" {
			t.Errorf("got %v", err)
		}
	}
	if n != 1 {
		t.Errorf("it yielded %d times", n)
	}
}
