package server_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/issuer"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store"
	"caracal.run/management/store/controlkey"
)

// A controlBench issues tokens of Control keys, and invokes commands with them.
type controlBench struct {
	*servertest.API
	t      *testing.T
	zone   string
	key    client.CreatedControlKey // with every scope
	issuer *issuer.Issuer
}

func newControlBench(t *testing.T, settings ...string) controlBench {
	t.Helper()
	a := servertest.New(t, settings...)
	return controlBenchOf(t, a, openZone(a))
}

func controlBenchOf(t *testing.T, a *servertest.API, zone string) controlBench {
	t.Helper()
	db, _, err := a.Config.OpenStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	config := issuer.Config{Base: fmt.Sprintf("http://localhost:%d", a.Config.Port), Audience: controlAudience}
	b := controlBench{API: a, t: t, zone: zone, issuer: issuer.New(db.For(store.System), config)}
	b.key = newControlKey(t, a, b.zone, everyControlScope()...)
	return b
}

// token returns a new token of the bench's key with scopes.
func (b controlBench) token(scopes ...client.ControlScope) string {
	b.t.Helper()
	return b.tokenOf(b.zone, b.key.ID, scopes...)
}

func (b controlBench) tokenOf(zone, key string, scopes ...client.ControlScope) string {
	b.t.Helper()
	r := issuer.Request{Zone: zone, Application: key, Session: "session", Lifetime: time.Minute}
	for _, scope := range scopes {
		r.Scopes = append(r.Scopes, string(scope))
	}
	token, _, err := b.issuer.Issue(b.t.Context(), "request", r)
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

// send sends a body to the Control API.
func (b controlBench) send(token, body string) servertest.RawResponse {
	b.t.Helper()
	return b.Do("POST", "/v1/control/invoke", body, "Authorization", "Bearer "+token, "Content-Type", jsonType)
}

// invoke invokes a command with a new token that has every scope.
func (b controlBench) invoke(command, subcommand, flags string) servertest.RawResponse {
	b.t.Helper()
	return b.send(b.token(everyControlScope()...), invocation(command, subcommand, flags))
}

func invocation(command, subcommand, flags string) string {
	return fmt.Sprintf(`{"command":%q,"subcommand":%q,"flags":%s}`, command, subcommand, flags)
}

// result is the result of a command that must succeed.
func (b controlBench) result(command, subcommand, flags string) map[string]any {
	b.t.Helper()
	raw := b.invoke(command, subcommand, flags)
	servertest.Expect(b.t, raw, http.StatusOK, "")
	result, _ := decode[map[string]any](b.t, raw)["result"].(map[string]any)
	return result
}

// refused checks the kind and the reason of an error.
func (b controlBench) refused(raw servertest.RawResponse, want code.Code, kind, reason string) {
	b.t.Helper()
	servertest.Expect(b.t, raw, 0, want)
	got := decode[struct {
		OK    bool
		Error struct{ Code, Reason string }
	}](b.t, raw)
	if got.OK || got.Error.Code != kind || got.Error.Reason != reason {
		b.t.Errorf("got %s, want the reason %q", raw.Body, reason)
	}
}

// everyControlScope returns the scopes that a key can have.
func everyControlScope() (all []client.ControlScope) {
	for _, scope := range controlkey.Scopes() {
		all = append(all, client.ControlScope(scope))
	}
	return all
}
