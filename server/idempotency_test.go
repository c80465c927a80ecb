package server_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// keyed returns the headers of a request with a token and an Idempotency-Key.
func keyed(token, key string, more ...string) []string {
	return append(append(bearer(token), "Content-Type", jsonType, "Idempotency-Key", key), more...)
}

// isReplay reports whether a response is the stored one of another request, byte for byte.
func isReplay(first, second servertest.RawResponse) bool {
	for _, name := range []string{"Content-Type", "Etag", "Location", "Link", "Content-Length"} {
		if !slices.Equal(first.Header.Values(name), second.Header.Values(name)) {
			return false
		}
	}
	return second.Header.Get("Idempotency-Replayed") == "true" && first.StatusCode() == second.StatusCode() && bytes.Equal(first.Body, second.Body)
}

const managed = `{"name":"Billing","registration_method":"managed"}`

func TestRepeatedRequestReturnsStoredResponse(t *testing.T) {
	t.Parallel()
	db, redisURL := storetest.New(t), storetest.RedisURL(t)
	a, b := servertest.NewReplica(t, db, redisURL), servertest.NewReplica(t, db, redisURL)
	zone, key := a.Zone().ID, uuid.NewString()
	path := "/v1/zones/" + zone + "/applications"
	first := a.Do("POST", path, managed, keyed(servertest.Bootstrap, key)...)
	servertest.Expect(t, first, http.StatusCreated, "")
	if first.Header.Get("Idempotency-Replayed") != "" {
		t.Error("the first response is marked as replayed")
	}
	for _, replica := range []*servertest.API{a, b, a} {
		id := uuid.NewString()
		again := replica.Do("POST", path, managed, keyed(servertest.Bootstrap, key, "X-Request-Id", id)...)
		if !isReplay(first, again) || again.Header.Get("X-Request-Id") != id {
			t.Errorf("got %d %v\n%s\nwant %d %v\n%s", again.StatusCode(), again.Header, again.Body, first.StatusCode(), first.Header, first.Body)
		}
	}
	if n := storetest.Value[int](db, "SELECT count(*) FROM applications"); n != 1 {
		t.Errorf("there are %d applications", n)
	}
	if n := storetest.Value[int](db, "SELECT count(*) FROM audit_entries WHERE operation = 'createApplication'"); n != 1 {
		t.Errorf("there are %d audit entries", n)
	}
	secret := decode[client.RegisteredApplication](t, first).ClientSecret
	if stored := storetest.Value[string](db, "SELECT to_jsonb(k)::text || encode(response, 'escape') FROM idempotency_keys AS k"); strings.Contains(stored, secret) || strings.Contains(stored, key) {
		t.Errorf("stored %s", stored)
	}
}

// A key of another token, path or operation is another key.
func TestIdempotencyKeysHaveScopes(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	token := a.Token(zone, "write").Token
	ids := map[string]bool{}
	for _, tt := range []struct{ name, path, body, token string }{
		{"first", "/v1/zones/" + zone + "/applications", managed, servertest.Bootstrap},
		{"another zone", "/v1/zones/" + other + "/applications", managed, servertest.Bootstrap},
		{"another token", "/v1/zones/" + zone + "/applications", managed, token},
		{"another operation", "/v1/zones", `{"name":"Billing"}`, servertest.Bootstrap},
	} {
		raw := a.Do("POST", tt.path, tt.body, keyed(tt.token, "key")...)
		servertest.Expect(t, raw, http.StatusCreated, "")
		id := decode[struct{ ID string }](t, raw).ID
		if raw.Header.Get("Idempotency-Replayed") != "" || ids[id] {
			t.Errorf("%s: got %s", tt.name, raw.Body)
		}
		ids[id] = true
	}
}

func TestIdempotencyKeyOfOtherRequestIsRejected(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	path := "/v1/zones/" + a.Zone().ID
	raw := a.Do("GET", path, "", bearer(servertest.Bootstrap)...)
	tag := raw.Header.Get("Etag")
	key := func(more ...string) []string { return keyed(servertest.Bootstrap, `"quoted"`, more...) }
	first := a.Do("PATCH", path, `{"name":"one"}`, key("If-Match", tag)...)
	servertest.Expect(t, first, http.StatusOK, "")
	if again := a.Do("PATCH", path, `{"name":"one"}`, key("If-Match", tag)...); !isReplay(first, again) {
		t.Errorf("got %d %s", again.StatusCode(), again.Body)
	}
	for name, raw := range map[string]servertest.RawResponse{
		"body":     a.Do("PATCH", path, `{"name":"two"}`, key("If-Match", tag)...),
		"query":    a.Do("PATCH", path+"?x=1", `{"name":"one"}`, key("If-Match", tag)...),
		"If-Match": a.Do("PATCH", path, `{"name":"one"}`, key()...),
	} {
		if servertest.Expect(t, raw, 0, code.IdempotencyKeyReused); t.Failed() {
			t.Fatal(name)
		}
	}
	if got := decode[client.Zone](t, a.Do("GET", path, "", bearer(servertest.Bootstrap)...)); got.Name != "one" {
		t.Errorf("got %+v", got)
	}
}

// A request that failed has changed nothing, and is processed again.
func TestFailedRequestIsProcessedAgain(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone()
	create := func() servertest.RawResponse {
		return a.Do("POST", "/v1/zones", `{"name":"Production","slug":"`+zone.Slug+`"}`, keyed(servertest.Bootstrap, "key")...)
	}
	servertest.Expect(t, create(), 0, code.ZoneSlugConflict)
	servertest.Expect(t, create(), 0, code.ZoneSlugConflict)
	servertest.Expect(t, a.Do("PATCH", "/v1/zones/"+zone.ID, `{"slug":"other"}`, keyed(servertest.Bootstrap, "key")...), http.StatusOK, "")
	first := create()
	servertest.Expect(t, first, http.StatusCreated, "")
	if again := create(); !isReplay(first, again) {
		t.Errorf("got %d %s", again.StatusCode(), again.Body)
	}
}

// The stored response is sent only to a caller who may send the request now.
func TestStoredResponseRequiresAuthorization(t *testing.T) {
	t.Parallel()
	db, redisURL := storetest.New(t), storetest.RedisURL(t)
	a := servertest.NewReplica(t, db, redisURL)
	zone := a.Zone().ID
	token := a.Token(zone, "write")
	path := "/v1/zones/" + zone + "/applications"
	servertest.Expect(t, a.Do("POST", path, managed, keyed(token.Token, "key")...), http.StatusCreated, "")
	servertest.Expect(t, a.Do("DELETE", "/v1/admin-tokens/"+token.ID, "", bearer(servertest.Bootstrap)...), http.StatusNoContent, "")
	servertest.Expect(t, a.Do("POST", path, managed, keyed(token.Token, "key")...), 0, code.InvalidAdminToken)
}

// While a request is being processed, others with its key fail at once, at any replica.
func TestIdempotencyKeyInUse(t *testing.T) {
	t.Parallel()
	db, redisURL := storetest.New(t), storetest.RedisURL(t)
	a, b := servertest.NewReplica(t, db, redisURL), servertest.NewReplica(t, db, redisURL)
	zone := a.Zone().ID
	path := "/v1/zones/" + zone + "/applications"
	release := holdLock(t, db, "zone:"+zone) // the transaction of the request waits for it
	first := make(chan servertest.RawResponse, 1)
	go func() { first <- a.Do("POST", path, managed, keyed(servertest.Bootstrap, "key")...) }()
	eventually(t, "the request waits", func() bool {
		return storetest.Value[int](db, "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()") > 0
	})
	for _, replica := range []*servertest.API{a, b} {
		raw := replica.Do("POST", path, managed, keyed(servertest.Bootstrap, "key")...)
		servertest.Expect(t, raw, 0, code.IdempotencyKeyInUse)
		if raw.Header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After: %q", raw.Header.Get("Retry-After"))
		}
	}
	release()
	created := <-first
	servertest.Expect(t, created, http.StatusCreated, "")
	if again := b.Do("POST", path, managed, keyed(servertest.Bootstrap, "key")...); !isReplay(created, again) {
		t.Errorf("got %d %s", again.StatusCode(), again.Body)
	}
}

func TestConcurrentRequestsWithOneKeyHaveOneEffect(t *testing.T) {
	t.Parallel()
	db, redisURL := storetest.New(t), storetest.RedisURL(t)
	replicas := []*servertest.API{servertest.NewReplica(t, db, redisURL), servertest.NewReplica(t, db, redisURL)}
	path := "/v1/zones/" + replicas[0].Zone().ID + "/applications"
	const rounds, senders = 10, 6
	for range rounds {
		key := uuid.NewString()
		responses := make([]servertest.RawResponse, senders)
		var sent sync.WaitGroup
		for n := range senders {
			sent.Go(func() { responses[n] = replicas[n%2].Do("POST", path, managed, keyed(servertest.Bootstrap, key)...) })
		}
		sent.Wait()
		bodies := map[string]bool{}
		for _, raw := range responses {
			if raw.StatusCode() == http.StatusCreated {
				bodies[string(raw.Body)] = true
			} else {
				servertest.Expect(t, raw, 0, code.IdempotencyKeyInUse)
			}
		}
		if len(bodies) != 1 {
			t.Errorf("got %d different responses", len(bodies))
		}
	}
	if n := storetest.Value[int](db, "SELECT count(*) FROM applications"); n != rounds {
		t.Errorf("there are %d applications, want %d", n, rounds)
	}
}

// A path that is written in another way is the same path.
func TestIdempotencyKeyHasDecodedPathAsScope(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	create := func(zone string) servertest.RawResponse {
		return a.Do("POST", "/v1/zones/"+zone+"/applications", managed, keyed(servertest.Bootstrap, "key")...)
	}
	first := create(zone)
	servertest.Expect(t, first, http.StatusCreated, "")
	if again := create(fmt.Sprintf("%%%02X", zone[0]) + zone[1:]); !isReplay(first, again) {
		t.Errorf("got %d %s", again.StatusCode(), again.Body)
	}
}

// The response to a caller with approval permission can be another one.
func TestIdempotencyKeyDependsOnApprovalPermission(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	token := a.Token("", "write")
	create := func() servertest.RawResponse {
		return a.Do("POST", "/v1/zones", `{"name":"Production"}`, keyed(token.Token, "key")...)
	}
	servertest.Expect(t, create(), http.StatusCreated, "")
	servertest.Expect(t, a.Do("PATCH", "/v1/admin-tokens/"+token.ID, `{"can_approve":true}`, keyed(servertest.Bootstrap, "approve")...), http.StatusOK, "")
	servertest.Expect(t, create(), 0, code.IdempotencyKeyReused)
}
