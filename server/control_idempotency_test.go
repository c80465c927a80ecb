package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/control"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// keyed invokes a command with an Idempotency-Key.
func (b controlBench) keyed(token, key, command, subcommand, flags string) servertest.RawResponse {
	b.t.Helper()
	return b.Do("POST", "/v1/control/invoke", invocation(command, subcommand, flags), keyed(token, key)...)
}

// expectOutcome waits for the audit event of an invocation and checks its decision and its outcome.
func (b controlBench) expectOutcome(raw servertest.RawResponse, want string) {
	b.t.Helper()
	const query = "SELECT decision || ' ' || (metadata::jsonb ->> 'outcome') FROM audit_events WHERE request_id = $1"
	var got []string
	eventually(b.t, "the audit event is stored", func() bool {
		got = storetest.Column[string](b.DB, query, raw.Header.Get("X-Request-Id"))
		return len(got) > 0
	})
	if !slices.Equal(got, []string{want}) {
		b.t.Errorf("got %q, want %q", got, want)
	}
}

// Each invocation has a token of its own, so that the key belongs to the Control key. A
// repeated invocation uses its token up, and has an audit event.
func TestInvokeControlWithIdempotencyKey(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	scopes := everyControlScope()
	create := func(token, name string) servertest.RawResponse {
		return b.keyed(token, "key", "app", "create", `{"name":"`+name+`"}`)
	}
	used := b.token(scopes...)
	first := create(used, "Billing")
	servertest.Expect(t, first, http.StatusOK, "")
	b.expectOutcome(first, "allow applied")
	denied := create(used, "Billing")
	servertest.Expect(t, denied, 0, code.ControlTokenReplayed)
	b.expectOutcome(denied, "deny denied")
	reversed := slices.Clone(scopes)
	slices.Reverse(reversed)
	token := b.token(append(reversed, reversed[0])...) // the same scopes
	again := create(token, "Billing")
	if !isReplay(first, again) {
		t.Errorf("got %d %s", again.StatusCode(), again.Body)
	}
	b.expectOutcome(again, "allow replayed")
	servertest.Expect(t, create(token, "Billing"), 0, code.ControlTokenReplayed)
	servertest.Expect(t, create(b.token(scopes...), "Other"), 0, code.IdempotencyKeyReused)
	fewer := b.token(client.ControlScopeControlAppRead)
	servertest.Expect(t, create(fewer, "Billing"), 0, code.IdempotencyKeyReused) // the response is that of other scopes
	if n := storetest.Value[int](b.DB, "SELECT count(*) FROM applications WHERE name IN ('Billing', 'Other')"); n != 1 {
		t.Errorf("there are %d applications", n)
	}
	id := storetest.Value[string](b.DB, "SELECT id FROM idempotency_keys")
	b.DB.Exec("DELETE FROM idempotency_keys")
	defer holdLock(t, b.DB, "idempotency key:"+b.zone+":"+id)()
	raw := create(b.token(scopes...), "Billing")
	servertest.Expect(t, raw, 0, code.IdempotencyKeyInUse)
	if raw.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After: %q", raw.Header.Get("Retry-After"))
	}
	servertest.Expect(t, b.keyed(b.token(), "", "app", "list", "{}"), 0, code.InvalidIdempotencyKey)
}

// Every command that changes something has one transaction, and is repeated without effect.
func TestInvokeControlRepeatsEveryCommand(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	for name, make := range controlCases(t, b) {
		t.Run(name, func(t *testing.T) {
			b := b
			b.t = t
			command, subcommand, _ := strings.Cut(name, " ")
			flags, key := make().flags, uuid.NewString()
			i, err := control.ParseInvocation([]byte(invocation(command, subcommand, flags)))
			if err != nil {
				t.Fatal(err)
			}
			var scopes []string
			for _, scope := range everyControlScope() {
				scopes = append(scopes, string(scope))
			}
			call, err := i.Resolve(b.zone, scopes)
			if err != nil {
				t.Fatal(err)
			}
			first := b.keyed(b.token(everyControlScope()...), key, command, subcommand, flags)
			servertest.Expect(t, first, http.StatusOK, "")
			again := b.keyed(b.token(everyControlScope()...), key, command, subcommand, flags)
			servertest.Expect(t, again, http.StatusOK, "")
			if isReplay(first, again) != call.Changes {
				t.Errorf("%s changes something: %t, and is repeated without effect: %t", call.Operation, call.Changes, !call.Changes)
			}
		})
	}
}

// The audit event of an invocation says that it was applied only if that was committed.
func TestInvokeControlAuditEventFollowsCommit(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	b.DB.Exec("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'shutting down' USING ERRCODE = '57P01'; END $$")
	b.DB.Exec("CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON applications DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.name = 'Billing') EXECUTE FUNCTION fail()")
	raw := b.keyed(b.token(everyControlScope()...), "key", "app", "create", `{"name":"Billing"}`)
	servertest.Expect(t, raw, 0, code.ServiceUnavailable)
	b.expectOutcome(raw, "deny unknown")
}
