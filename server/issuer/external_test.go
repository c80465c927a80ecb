package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// An externalIssuer is another service that issues tokens.
type externalIssuer struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	respond  http.HandlerFunc
	requests []string // the zones
}

func newExternalIssuer(t *testing.T) *externalIssuer {
	t.Helper()
	e := &externalIssuer{t: t}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		e.requests = append(e.requests, r.URL.Query().Get("zone_id"))
		respond := e.respond
		e.mu.Unlock()
		respond(w, r)
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *externalIssuer) set(respond http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.respond = respond
}

func (e *externalIssuer) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.requests)
}

// publish makes the service publish keys, by ID.
func (e *externalIssuer) publish(keys map[string]*ecdsa.PrivateKey) {
	e.t.Helper()
	set := []jwk.Key{}
	for id, private := range keys {
		key, err := jwk.Import(private.Public())
		if err != nil {
			e.t.Fatal(err)
		}
		_ = key.Set("kid", id)
		set = append(set, key)
	}
	text, err := json.Marshal(map[string]any{"keys": set})
	if err != nil {
		e.t.Fatal(err)
	}
	e.set(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) })
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// An externalBench is an issuer that accepts the tokens of another service.
type externalBench struct {
	bench
	service  *externalIssuer
	now      time.Time
	key, old *ecdsa.PrivateKey
}

func newExternalBench(t *testing.T) *externalBench {
	t.Helper()
	b := &externalBench{bench: newBench(t), service: newExternalIssuer(t), now: time.Now()}
	b.Issuer = New(b.store, Config{Base: "https://api.example.com", URL: "https://sts.example.com", KeysURL: b.service.URL + "/jwks", Audience: audience})
	clock := func() time.Time { return b.now }
	b.Issuer.now, b.verifies.now = clock, clock
	for _, key := range []**ecdsa.PrivateKey{&b.key, &b.old} {
		*key = generate(t, func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })
	}
	return b
}

// token returns a token of the other service.
func (b *externalBench) token(zone, kid string, key *ecdsa.PrivateKey) string {
	b.t.Helper()
	text := fmt.Sprintf(`{"iss":"https://sts.example.com","sub":"a","client_id":"a","aud":"%s","iat":%d,"exp":%d,"jti":"j","zone_id":"%s","scope":"control:app:read","use":"resource","sub_type":"application"}`,
		audience, b.now.Unix(), b.now.Add(time.Hour).Unix(), zone)
	header := jws.NewHeaders()
	_ = header.Set("kid", kid)
	token, err := jws.Sign([]byte(text), jws.WithKey(jwa.ES256(), key, jws.WithProtectedHeaders(header)))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(token)
}

// verify fails the test unless the verification of a token has a result: nil, ErrInvalid
// or ErrUnavailable.
func (b *externalBench) verify(token string, want error) {
	b.t.Helper()
	if _, err := b.Verify(b.t.Context(), token); !errors.Is(err, want) || errors.Is(err, ErrInvalid) && errors.Is(err, ErrUnavailable) {
		b.t.Fatalf("got %v, want %v", err, want)
	}
}

func TestExternalIssuer(t *testing.T) {
	t.Parallel()
	b := newExternalBench(t)
	zone := b.zone("z:1")
	own := New(b.store, Config{Base: "https://api.example.com", URL: "https://sts.example.com", Audience: audience})
	b.service.publish(map[string]*ecdsa.PrivateKey{"k1": b.key})
	token := b.token(zone, "k1", b.key)
	for range 10 {
		b.verify(token, nil)
	}
	if got := b.service.requests; len(got) != 1 || got[0] != zone {
		t.Errorf("the keys were fetched for %q", got)
	}
	issued, _, err := own.Issue(t.Context(), "r", Request{Zone: zone, Application: "a", Lifetime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	b.verify(issued, ErrInvalid) // a token of this service
	b.verify(b.token(zone, "k1", b.old), ErrInvalid)
	b.verify(b.token("other", "k1", b.key), ErrInvalid)
	b.verify(b.token(b.db.ArchivedZone(), "k1", b.key), ErrInvalid)
	if n := b.service.count(); n != 1 {
		t.Errorf("%d requests, want none for zones that are not active, and at most one in 30 seconds for unknown keys", n)
	}
}

func TestExternalKeysRotate(t *testing.T) {
	t.Parallel()
	b := newExternalBench(t)
	zone := b.zone("z")
	b.service.publish(map[string]*ecdsa.PrivateKey{"old": b.old})
	b.verify(b.token(zone, "old", b.old), nil)
	b.service.publish(map[string]*ecdsa.PrivateKey{"old": b.old, "new": b.key})
	b.now = b.now.Add(29 * time.Second)
	b.verify(b.token(zone, "new", b.key), ErrInvalid) // too early to fetch again
	b.now = b.now.Add(2 * time.Second)
	b.verify(b.token(zone, "new", b.key), nil)
	b.verify(b.token(zone, "old", b.old), nil)
	b.service.publish(map[string]*ecdsa.PrivateKey{"new": b.key})
	b.verify(b.token(zone, "old", b.old), nil)
	b.now = b.now.Add(5 * time.Minute)
	b.verify(b.token(zone, "old", b.old), ErrInvalid)
	if n := b.service.count(); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

// While the service does not respond, known keys are used for ten minutes. After that, and
// for unknown keys, it is not known whether a token is valid.
func TestExternalIssuerOutage(t *testing.T) {
	t.Parallel()
	for name, respond := range map[string]http.HandlerFunc{
		"status 500": status(500, ""),
		"status 307": status(307, ""),
		"not JSON":   status(200, "<html>"),
		"no keys":    status(200, `{}`),
		"empty set":  status(200, `{"keys":[]}`),
		"not found":  status(404, `{"error":"not_found"}`),
		"only RSA":   status(200, `{"keys":[{"kty":"RSA","kid":"k1","n":"x","e":"AQAB"}]}`),
		"too large":  status(200, `{"keys":[`+strings.Repeat(" ", 64<<10)+`]}`),
		"interrupted": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newExternalBench(t)
			zone := b.zone("z")
			b.service.publish(map[string]*ecdsa.PrivateKey{"k1": b.key})
			b.verify(b.token(zone, "k1", b.key), nil)
			b.service.set(respond)
			b.now = b.now.Add(9 * time.Minute)
			for range 5 {
				b.verify(b.token(zone, "k1", b.key), nil)
				b.verify(b.token(zone, "k2", b.old), ErrUnavailable)
			}
			if n := b.service.count(); n != 2 {
				t.Errorf("%d requests, want 2: one for each 30 seconds", n)
			}
			b.now = b.now.Add(2 * time.Minute)
			b.verify(b.token(zone, "k1", b.key), ErrUnavailable)
			b.service.publish(map[string]*ecdsa.PrivateKey{"k1": b.key})
			b.now = b.now.Add(31 * time.Second)
			b.verify(b.token(zone, "k1", b.key), nil)
			b.db.Exec("UPDATE zones SET archived_at = now()")
			b.now = b.now.Add(6 * time.Minute)
			b.verify(b.token(zone, "k1", b.key), ErrInvalid)
		})
	}
}

func TestExternalIssuerThatNeverResponded(t *testing.T) {
	t.Parallel()
	b := newExternalBench(t)
	zone := b.zone("z")
	b.service.set(status(500, ""))
	for range 5 {
		b.verify(b.token(zone, "k1", b.key), ErrUnavailable)
	}
	if n := b.service.count(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	b.service.set(status(404, "")) // the zone has no key
	b.now = b.now.Add(31 * time.Second)
	b.verify(b.token(zone, "k1", b.key), ErrInvalid)
}

func TestKeysOfManyZonesAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	loads := 0
	c := newKeyCache(func(_ context.Context, zone string) (map[string]*ecdsa.PublicKey, error) {
		loads++
		if strings.HasPrefix(zone, "unknown") {
			return nil, nil
		}
		return map[string]*ecdsa.PublicKey{"k": {}}, nil
	}, keyTimes{fresh: time.Hour, interval: time.Hour})
	c.now = func() time.Time { return now }
	for n := range 2 * maxZones {
		now = now.Add(time.Millisecond)
		if key, err := c.key(t.Context(), fmt.Sprint("z", n), "k"); key == nil || err != nil {
			t.Fatal(err)
		}
	}
	if len(c.zones) != maxZones || loads != 2*maxZones {
		t.Errorf("%d zones after %d loads", len(c.zones), loads)
	}
	if _, found := c.get(fmt.Sprint("z", 2*maxZones-1)); !found {
		t.Error("the latest zone was dropped")
	}
	if _, found := c.get("z0"); found {
		t.Error("the oldest zone was kept")
	}
	for n := range 2 * maxZones {
		now = now.Add(time.Millisecond)
		if key, err := c.key(t.Context(), fmt.Sprint("unknown", n), "k"); key != nil || err != nil {
			t.Fatal(key, err)
		}
	}
	if _, found := c.get(fmt.Sprint("z", 2*maxZones-1)); !found || len(c.zones) != maxZones {
		t.Errorf("zones without keys displaced a zone with keys, or there are too many: %d", len(c.zones))
	}
}
