package server_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// holdLock takes the advisory lock of a text, as the service does, and returns a function
// that releases it.
func holdLock(t *testing.T, db *storetest.DB, text string) (release func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.URL())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT pg_advisory_lock(hashtextextended($1, 0))", text); err != nil {
		t.Fatal(err)
	}
	release = func() { _ = conn.Close(context.WithoutCancel(t.Context())) }
	t.Cleanup(release)
	return release
}

// A repeater is a transport that repeats each request that takes an Idempotency-Key and
// succeeded. It adds the key. The test that uses it shows that the repeated requests change
// nothing.
type repeater struct {
	t   *testing.T
	api *servertest.API
}

func (r repeater) RoundTrip(req *http.Request) (*http.Response, error) {
	if !slices.ContainsFunc(servertest.Operations(), func(op servertest.Operation) bool { return op.Matches(req) && has(op, "header", "Idempotency-Key") }) {
		return r.api.Transport().RoundTrip(req)
	}
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	key := uuid.NewString()
	send := func(query string) servertest.RawResponse {
		again := req.Clone(req.Context())
		if body != nil {
			again.Body = io.NopCloser(bytes.NewReader(body))
		}
		again.URL.RawQuery = query
		again.Header.Set("Idempotency-Key", key)
		resp, err := r.api.Transport().RoundTrip(again)
		if err != nil {
			r.t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			r.t.Fatal(err)
		}
		resp.Body = io.NopCloser(bytes.NewReader(text))
		return servertest.RawResponse{Response: resp, Body: text}
	}
	first := send("")
	if first.StatusCode() >= 300 || strings.HasSuffix(req.URL.Path, "/control/invoke") { // its token is for one invocation
		return first.Response, nil
	}
	if again := send(""); !isReplay(first, again) {
		r.t.Errorf("%s %s: got %d %v\n%s\nwant %d %v\n%s", req.Method, req.URL.Path, again.StatusCode(), again.Header, again.Body, first.StatusCode(), first.Header, first.Body)
	}
	servertest.Expect(r.t, send("other=1"), 0, code.IdempotencyKeyReused)
	row := storetest.Value[string](r.api.DB, "SELECT zone_id || ':' || id FROM idempotency_keys ORDER BY created_at DESC LIMIT 1")
	r.api.DB.Exec("DELETE FROM idempotency_keys")
	defer holdLock(r.t, r.api.DB, "idempotency key:"+row)()
	servertest.Expect(r.t, send(""), 0, code.IdempotencyKeyInUse)
	return first.Response, nil
}

// withoutIdempotencyKey are the POST and PATCH operations that take no Idempotency-Key.
var withoutIdempotencyKey = []string{
	"validatePolicy", "simulatePolicySet", "simulatePolicySetBatch", "comparePolicySetVersions", "discoverProvider", "planState", // change nothing
	"testProvider", "authorizeProviderGrant", // record what they do, and can be repeated
	"registerClient", "issueToken", // of OAuth, whose clients send no key
}

func TestEveryPostAndPatchTakesIdempotencyKey(t *testing.T) {
	t.Parallel()
	eachOperation(t, func(servertest.Operation) bool { return true }, func(t *testing.T, op servertest.Operation) {
		want := (op.Method == http.MethodPost || op.Method == http.MethodPatch) && !slices.Contains(withoutIdempotencyKey, op.OperationID)
		if has(op, "header", "Idempotency-Key") != want {
			t.Errorf("takes Idempotency-Key: %t, want %t", !want, want)
		}
	})
}

func TestEveryOperationRejectsMalformedIdempotencyKey(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	b := controlBenchOf(t, w.API, w.zone.ID)
	eachOperation(t, func(op servertest.Operation) bool { return has(op, "header", "Idempotency-Key") }, func(t *testing.T, op servertest.Operation) {
		token := servertest.Bootstrap
		if op.OperationID == "invokeControl" {
			token = b.token()
		}
		with := append(bearer(token), "Content-Type", jsonType)
		for _, malformed := range [][]string{
			{"Idempotency-Key", ""}, {"Idempotency-Key", strings.Repeat("x", 256)}, {"Idempotency-Key", "a b"}, {"Idempotency-Key", "é"},
			{"Idempotency-Key", "a", "Idempotency-Key", "a"},
		} {
			raw := w.Do(op.Method, w.path(op, "x"), body(t, op), append(slices.Clone(with), malformed...)...)
			servertest.Expect(t, raw, 0, code.InvalidIdempotencyKey)
		}
	})
}
