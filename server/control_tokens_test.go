package server_test

import (
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

const listApps = `{"command":"app","subcommand":"list"}`

// reasons returns the reasons of the invocations in the audit log, once there are n.
func (b controlBench) reasons(zone string, n int) []string {
	b.t.Helper()
	var all []string
	eventually(b.t, "the audit events are stored", func() bool {
		all = storetest.Column[string](b.DB, `SELECT decision || ': ' || (metadata::jsonb ->> 'reason') FROM audit_events
			WHERE zone_id = $1 AND event_type = 'control.invoke' ORDER BY occurred_at, chain_seq`, zone)
		return len(all) >= n
	})
	return all
}

// A token is for one invocation, of which a malformed or refused one is none.
func TestInvokeControlTokenIsForOneInvocation(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	token := b.token(client.ControlScopeControlAppRead)
	for _, tt := range []struct {
		body string
		want code.Code
	}{
		{`{"command":`, code.InvalidJSON},
		{`{"command":7}`, code.ControlInvalid},
		{`{"command":"app","subcommand":"get"}`, code.ControlInvalid},
		{`{"command":"app","subcommand":"create","flags":{"name":"x"}}`, code.ControlDenied},
		{listApps, ""},
		{listApps, code.ControlTokenReplayed},
		{`{"command":"app","subcommand":"get","flags":{"id":"x"}}`, code.ControlTokenReplayed},
	} {
		servertest.Expect(t, b.send(token, tt.body), http.StatusOK, tt.want)
	}
	b.refused(b.send(token, listApps), code.ControlTokenReplayed, "unauthenticated", "The Control token was already used. Request a new one.")
	if got := strings.Join(b.reasons(b.zone, 8), "\n"); got != strings.TrimSpace(`
deny: invalid_json
deny: control_invalid
deny: flag "id" is required
deny: missing scope control:app:write
allow: 
deny: replay
deny: replay
deny: replay`) {
		t.Errorf("got %s", got)
	}
	ttl, err := b.Redis.PTTL(t.Context(), b.Redis.Keys(t.Context(), "caracal:control:jti:*").Val()[0]).Result()
	if err != nil || ttl <= 0 || ttl > 2*time.Minute+time.Second {
		t.Errorf("it is remembered for %v, %v", ttl, err)
	}
}

// Of concurrent invocations with one token, by two replicas, one runs.
func TestInvokeControlTokenConcurrently(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	replica := b
	replica.API = servertest.NewReplica(t, b.DB, b.Config.RedisURL.Reveal())
	token := b.token(client.ControlScopeControlAppWrite)
	var wait sync.WaitGroup
	for i := range 10 {
		wait.Go(func() {
			on := b
			if i%2 == 0 {
				on = replica
			}
			raw := on.send(token, invocation("app", "create", `{"name":"once"}`))
			if raw.Response.StatusCode != http.StatusOK {
				servertest.Expect(t, raw, 0, code.ControlTokenReplayed)
			}
		})
	}
	wait.Wait()
	if n := storetest.Value[int](b.DB, "SELECT count(*) FROM applications WHERE name = 'once'"); n != 1 {
		t.Errorf("%d applications", n)
	}
}

func TestInvokeControlUnauthenticated(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	other := openZone(b.API)
	revoked := newControlKey(t, b.API, b.zone, client.ControlScopeControlAppRead).ID
	ofRevoked := b.tokenOf(b.zone, revoked, client.ControlScopeControlAppRead)
	resp, err := b.Admin.DeleteControlKeyWithResponse(t.Context(), b.zone, revoked, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusNoContent, "")
	expired := newControlKey(t, b.API, b.zone, client.ControlScopeControlAppRead).ID
	b.DB.Exec("UPDATE applications SET traits = array_append(traits, 'control:expires:2020-01-01T00:00:00Z') WHERE id = $1", expired)
	archived := openZone(b.API)
	ofArchived := b.tokenOf(archived, newControlKey(t, b.API, archived, client.ControlScopeControlAppRead).ID)
	servertest.Expect(t, b.Do("DELETE", "/v1/zones/"+archived, "", bearer(servertest.Bootstrap)...), http.StatusNoContent, "")
	token := b.token(client.ControlScopeControlAppRead)
	parts := strings.Split(token, ".")
	for name, text := range map[string]string{
		"none": "", "no token": "x", "admin token": servertest.Bootstrap, "revoked key": ofRevoked,
		"expired key": b.tokenOf(b.zone, expired, client.ControlScopeControlAppRead), "archived zone": ofArchived,
		"key of another zone": b.tokenOf(other, b.key.ID, client.ControlScopeControlAppRead),
		"not a key":           b.tokenOf(b.zone, newApplication(t, b.API, b.zone).ID, client.ControlScopeControlAppRead),
		"changed":             parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"zone_id":"`+other+`"}`)) + "." + parts[2],
		"without signature":   base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"too long":            strings.Repeat("x", 5000),
	} {
		raw := b.send(text, listApps)
		if servertest.Expect(t, raw, 0, code.ControlUnauthenticated); t.Failed() {
			t.Fatal(name)
		}
		if raw.Response.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: no challenge", name)
		}
	}
	servertest.Expect(t, b.send(token, listApps), http.StatusOK, "")
}

// A scope counts only while the key has it.
func TestInvokeControlScopeRemovedFromKey(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	token := b.token(client.ControlScopeControlAppRead)
	b.DB.Exec("UPDATE applications SET traits = array_remove(traits, 'control:scope:control:app:read') WHERE id = $1", b.key.ID)
	b.refused(b.send(token, listApps), code.ControlDenied, "denied", "missing scope control:app:read")
}

func TestInvokeControlGate(t *testing.T) {
	t.Parallel()
	gate := filepath.Join(t.TempDir(), "enabled")
	b := newControlBench(t, "CONTROL_GATE_FILE="+gate)
	closed := func() {
		t.Helper()
		raw := b.send(b.token(client.ControlScopeControlAppRead), listApps)
		b.refused(raw, code.ControlDisabled, "unavailable", "The Control API is closed. Its file CONTROL_GATE_FILE does not exist.")
		if raw.Response.Header.Get("Retry-After") == "" {
			t.Error("Retry-After is missing")
		}
	}
	closed()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, b.send(b.token(client.ControlScopeControlAppRead), listApps), http.StatusOK, "")
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	closed()
	if got := b.reasons("unknown", 2); got[0] != "deny: control disabled" {
		t.Errorf("got %q", got)
	}
}

func TestInvokeControlGateNotConfigured(t *testing.T) {
	t.Parallel()
	b := newControlBench(t, "CONTROL_GATE_FILE=")
	servertest.Expect(t, b.send(b.token(), listApps), 0, code.ControlDisabled)
}

func TestInvokeControlNotEnabled(t *testing.T) {
	t.Parallel()
	b := newControlBench(t, "CARACAL_CONTROL_ENABLED=false")
	servertest.Expect(t, b.send(b.token(), listApps), 0, code.NotFound)
}

func TestInvokeControlLimits(t *testing.T) {
	t.Parallel()
	b := newControlBench(t, "CONTROL_RATE_CAPACITY=2", "CONTROL_RATE_WINDOW_SEC=3600", "CONTROL_INVOKE_IP_RATE_LIMIT_PER_MIN=100000")
	other := newControlKey(t, b.API, b.zone, client.ControlScopeControlAppRead).ID
	third := b.token(client.ControlScopeControlAppRead)
	for range 2 {
		servertest.Expect(t, b.send(b.token(client.ControlScopeControlAppRead), listApps), http.StatusOK, "")
	}
	b.refused(b.send(third, listApps), code.RateLimited, "rate_limited", "Too many requests. Retry after the number of seconds in the Retry-After header.")
	servertest.Expect(t, b.send(b.tokenOf(b.zone, other, client.ControlScopeControlAppRead), listApps), http.StatusOK, "")
	if n := len(b.Redis.Keys(t.Context(), "caracal:control:jti:*").Val()); n != 3 {
		t.Errorf("%d tokens are used up", n)
	}
	limited := newControlBench(t, "CONTROL_INVOKE_IP_RATE_LIMIT_PER_MIN=1")
	var codes []int
	for range 3 { // of which the second or the third are in the same minute
		codes = append(codes, limited.send("x", listApps).Response.StatusCode)
	}
	if codes[2] != http.StatusTooManyRequests && codes[1] != http.StatusTooManyRequests {
		t.Errorf("got %v", codes)
	}
}

// Without Redis it is not known whether a token was used.
func TestInvokeControlWithoutRedis(t *testing.T) {
	t.Parallel()
	a := servertest.NewReplica(t, storetest.New(t), "redis://127.0.0.1:1")
	b := controlBenchOf(t, a, openZone(a))
	token := b.token(client.ControlScopeControlAppWrite)
	for range 2 { // it is not used up
		raw := b.send(token, invocation("app", "create", `{"name":"x"}`))
		b.refused(raw, code.ServiceUnavailable, "unavailable", "The service is temporarily unavailable. Retry shortly.")
	}
	if n := storetest.Value[int](b.DB, "SELECT count(*) FROM applications WHERE name = 'x'"); n != 0 {
		t.Errorf("%d applications", n)
	}
}

// The failure of an operation that is neither of the caller nor of the zone's state.
func TestInvokeControlUpstream(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	b.DB.Exec(`INSERT INTO applications (zone_id, id, name, registration_method, expires_at)
		SELECT $1, 'job-' || n, 'Job', 'dcr', now() + interval '1 hour' FROM generate_series(1, 1000) AS n`, b.zone)
	b.refused(b.invoke("app", "dcr", `{"name":"x"}`), code.ControlUpstream, "upstream",
		"dcr_limit_exceeded: The zone has reached its limit of 1,000 active registered applications. Retry when one of them has expired.")
}
