package server_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// An unreliable proxy interrupts each response after some bytes, and answers each third request
// itself.
func unreliableProxy(t *testing.T, a *servertest.API, bytes int64) string {
	t.Helper()
	target, err := url.Parse(a.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	proxy.ModifyResponse = func(resp *http.Response) error {
		if resp.StatusCode == http.StatusOK {
			resp.Body = interruptedBody{io.LimitReader(resp.Body, bytes), resp.Body}
		}
		return nil
	}
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1)%3 == 0 {
			http.Error(w, "Bad Gateway", http.StatusBadGateway)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return server.URL
}

type interruptedBody struct {
	io.Reader
	io.Closer
}

// Read returns the error of a lost connection instead of the end.
func (c interruptedBody) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// A client that follows a zone receives each event once, although its connection is lost
// in the middle of events.
func TestClientFollowZoneEventsResumes(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	token := a.Token(zone, "read")
	createApplications(t, a, zone, 8)
	const size = 1100 // some two events
	c, err := client.New(unreliableProxy(t, a, size), token.Token)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []client.ZoneEvent
	for event, err := range c.FollowZoneEvents(ctx, zone, "") {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, event); len(got) == 6 {
			createApplications(t, a, zone, 4) // while the client is following
		}
		if len(got) == 2+8+4 {
			break
		}
	}
	if want := zoneEvents(t, a, zone, rawclient.ListZoneEventsParams{}); !slices.EqualFunc(got, want, func(a, b client.ZoneEvent) bool { return a.ID == b.ID && a.Type == b.Type }) {
		t.Errorf("received %+v, want %+v", got, want)
	}
	servertest.Expect(t, deleteToken(t, a.Admin, token.ID), http.StatusNoContent, "")
	for event, err := range c.FollowZoneEvents(ctx, zone, "now") {
		if client.Code(err) != client.CodeInvalidAdminToken {
			t.Errorf("with a revoked token, got %+v, %v", event, err)
		}
	}
}

func TestClientFollowZoneEventsEnds(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	waitUntilSealed(t, a)
	c, err := client.New(a.URL, servertest.Bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range c.FollowZoneEvents(t.Context(), zone, "99") {
		if client.Code(err) != client.CodeEventPositionGone {
			t.Errorf("got %v", err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	count := 0
	for event, err := range c.FollowZoneEvents(ctx, zone, "") {
		switch count++; count {
		case 1:
			if err != nil || event.Type != "zones.created" {
				t.Errorf("got %+v, %v", event, err)
			}
			cancel(errors.New("enough"))
		case 2:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %+v, %v", event, err)
			}
		}
	}
	if count != 2 {
		t.Errorf("%d iterations", count)
	}
}
