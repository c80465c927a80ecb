package server_test

import (
	"net/http"
	"regexp"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
)

// newClient returns the client that programs use, with the bootstrap token.
func newClient(t *testing.T, a *servertest.API, transport http.RoundTripper) *client.Client {
	t.Helper()
	c, err := client.New(a.URL, servertest.Bootstrap, client.WithTransport(transport))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// operationRecorder is a transport that records which operations are called.
type operationRecorder struct {
	next  http.RoundTripper
	mu    sync.Mutex
	calls map[string]int
}

var pathParameter = regexp.MustCompile(`\\\{[^/]+\\\}`)

func (r *operationRecorder) RoundTrip(req *http.Request) (*http.Response, error) {
	for _, op := range servertest.Operations() { // paths without parameters first
		pattern := "^" + pathParameter.ReplaceAllString(regexp.QuoteMeta(op.Path), "[^/]+") + "$"
		if op.Method == req.Method && regexp.MustCompile(pattern).MatchString(req.URL.EscapedPath()) {
			r.mu.Lock()
			r.calls[op.OperationID]++
			r.mu.Unlock()
			break
		}
	}
	return r.next.RoundTrip(req)
}

// result returns a value, and fails the test if there is an error instead:
// result(c.GetZone(ctx, id))(t).
func result[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expectCode(t *testing.T, err error, want string) {
	t.Helper()
	if got := client.Code(err); got != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// callClientRegistration calls the operations of client registration.
func callClientRegistration(t *testing.T, c *client.Client, zone string) {
	ctx := t.Context()
	token := result(c.CreateRegistrationToken(ctx, zone, client.NewRegistrationToken{Name: "Clients"}))(t)
	if page := result(c.ListRegistrationTokens(ctx, zone))(t); len(page.Items) != 1 {
		t.Errorf("got %+v", page)
	}
	as := func(token string) client.CallOption { return client.Header("Authorization", "Bearer "+token) }
	registered := result(c.RegisterClient(ctx, zone, client.ClientMetadata{GrantTypes: []client.GrantType{client.GrantTypeClientCredentials}}, as(token.Token)))(t)
	id, own := registered.ClientID, as(registered.RegistrationAccessToken)
	result(c.UpdateRegisteredClient(ctx, zone, id, client.ClientUpdate{ClientID: id, ClientName: new("Job"), GrantTypes: registered.GrantTypes}, own))(t)
	if got := result(c.GetRegisteredClient(ctx, zone, id, own))(t); got.ClientName != "Job" {
		t.Errorf("got %+v", got)
	}
	noError(t, c.DeleteRegisteredClient(ctx, zone, id, own))
	noError(t, c.DeleteRegistrationToken(ctx, zone, token.ID))
}
