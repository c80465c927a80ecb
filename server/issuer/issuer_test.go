package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const audience = "caracal-control"

// A bench is an issuer on a database of its own.
type bench struct {
	*Issuer
	t     *testing.T
	db    *storetest.DB
	store *store.Store // scoped to store.System
}

func newBench(t *testing.T) bench {
	t.Helper()
	db := storetest.New(t)
	b := bench{t: t, db: db}
	b.store = b.open()
	b.Issuer = New(b.store, Config{Base: "https://api.example.com", Audience: audience})
	return b
}

func (b bench) open() *store.Store {
	b.t.Helper()
	keys, err := seal.Load(func() (string, error) { return strings.Repeat("2a", 32), nil })
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := store.Open(b.t.Context(), store.Config{
		URL: b.db.URL(), Name: b.t.Name(), PoolMax: 4, ConnectTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		StatementTimeout: 15 * time.Second, IdleInTxTimeout: 30 * time.Second, Keys: keys,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(s.Close)
	return s.For(store.System)
}

func (b bench) zone(id string) string {
	b.db.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ($1, 'Zone', $1, false)", id)
	return id
}

func (b bench) issue(zone string) (string, Claims) {
	b.t.Helper()
	token, c, err := b.Issue(b.t.Context(), "request", Request{
		Zone: zone, Application: "app-1", Scopes: []string{"control:app:read", "control:grant:write"}, Session: "session-1", Lifetime: 15 * time.Minute,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return token, c
}

// rotate rotates the signing key of a zone without the issuer's knowledge, like another
// replica.
func (b bench) rotate(zone string) {
	b.t.Helper()
	cause := store.Cause{Actor: store.System}
	sealer, err := b.store.DataKey(b.t.Context(), cause, zone)
	if err == nil {
		err = b.store.InTx(b.t.Context(), cause, func(tx *store.Tx) error {
			_, err := tx.RotateSigningKey(b.t.Context(), zone, sealer)
			return err
		})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestIssuedTokenHasTheClaims(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	zone := b.zone("z")
	before := time.Now().Truncate(time.Second)
	token, issued := b.issue(zone)
	header, payload, _ := strings.Cut(token, ".")
	payload, _, _ = strings.Cut(payload, ".")
	var got [2]map[string]any
	for i, text := range []string{header, payload} {
		text, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || json.Unmarshal(text, &got[i]) != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	kid := storetest.Value[string](b.db, "SELECT id FROM signing_keys")
	if !maps.Equal(got[0], map[string]any{"alg": "ES256", "kid": kid}) {
		t.Errorf("header %v", got[0])
	}
	iat, exp := got[1]["iat"].(float64), got[1]["exp"].(float64)
	if exp-iat != 900 || time.Unix(int64(iat), 0).Before(before) || got[1]["jti"] != issued.ID || issued.ID == "" {
		t.Errorf("iat %v, exp %v, jti %v", iat, exp, got[1]["jti"])
	}
	for _, name := range []string{"iat", "exp", "jti"} {
		delete(got[1], name)
	}
	text, err := json.Marshal(got[1])
	const want = `{"aud":["caracal-control"],"client_id":"app-1","iss":"https://api.example.com/v1/zones/z","root_sid":"session-1","scope":"control:app:read control:grant:write",` +
		`"sid":"session-1","sub":"app-1","sub_type":"application","target":["caracal-control"],"use":"resource","zone_id":"z"}`
	if err != nil || string(text) != want {
		t.Errorf("claims %s\nwant   %s", text, want)
	}
	verified, err := b.Verify(t.Context(), token)
	if err != nil || verified.ID != issued.ID || verified.Subject != "app-1" || verified.ClientID != "app-1" || verified.ZoneID != zone ||
		verified.Issuer != b.URL(zone) || !slices.Equal(verified.Scopes, issued.Scopes) || verified.ExpiresAt.Sub(verified.IssuedAt) != 15*time.Minute {
		t.Errorf("got %+v, %v, want %+v", verified, err, issued)
	}
}

// Requests that need the first key of a zone at once get tokens of one key, also from two
// replicas.
func TestConcurrentFirstTokensHaveOneKey(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	zone := b.zone("z")
	replicas := []*Issuer{b.Issuer, New(b.open(), b.config)}
	var all sync.WaitGroup
	for n := range 16 {
		all.Go(func() {
			token, _, err := replicas[n%2].Issue(t.Context(), "r", Request{Zone: zone, Application: "a", Lifetime: time.Minute})
			if err == nil {
				_, err = replicas[(n+1)%2].Verify(t.Context(), token)
			}
			// A replica that has looked for keys before there was one does not look again at once.
			if err != nil && !errors.Is(err, ErrInvalid) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := storetest.Value[int](b.db, "SELECT count(*) FROM signing_keys"); n != 1 {
		t.Errorf("%d keys, want 1", n)
	}
}

func TestIssueInZoneThatIsNotActive(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, zone := range []string{b.db.ArchivedZone(), "unknown"} {
		if _, _, err := b.Issue(t.Context(), "r", Request{Zone: zone}); !errors.Is(err, code.ZoneNotFound) {
			t.Errorf("%s: got %v", zone, err)
		}
	}
}

func TestTokensOverlapRotation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	zone := b.zone("z")
	now := time.Now()
	clock := func() time.Time { return now }
	b.now, b.verifies.now = clock, clock
	kid := func(token string) string {
		_, header, err := decode[claims](token)
		if err != nil {
			t.Fatal(err)
		}
		return header.KeyID
	}
	verifies := func(token, reason string) {
		t.Helper()
		_, err := b.Verify(t.Context(), token)
		if reason == "" && err != nil || reason != "" && (!errors.Is(err, ErrInvalid) || !strings.HasSuffix(err.Error(), reason)) {
			t.Errorf("got %v, want %q", err, reason)
		}
	}
	first, _ := b.issue(zone)
	verifies(first, "")
	b.rotate(zone)
	if again, _ := b.issue(zone); kid(again) != kid(first) {
		t.Error("a key that another replica has rotated is not used until it is read again")
	}
	b.Forget(zone)
	second, _ := b.issue(zone)
	if kid(second) == kid(first) {
		t.Error("after Forget, the previous key signs")
	}
	now = now.Add(time.Second) // the keys were just read
	verifies(first, "")
	verifies(second, "")
	b.rotate(zone)
	now = now.Add(signingKeyTTL)
	third, _ := b.issue(zone)
	if kid(third) == kid(second) {
		t.Error("a minute after a rotation in another replica, the previous key signs")
	}
	verifies(third, "")
	verifies(first, "")
	b.db.Exec("UPDATE signing_keys SET retires_at = now() WHERE id = $1", kid(first))
	now = now.Add(31 * time.Second)
	verifies(first, "unknown key")
	verifies(third, "")
	b.db.Exec("UPDATE zones SET archived_at = now()")
	now = now.Add(31 * time.Second)
	verifies(third, "unknown key")
}

// Tokens with unknown keys cause few queries.
func TestUnknownKeysAreLookedUpRarely(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	zone := b.zone("z")
	token, _ := b.issue(zone)
	now := time.Now()
	b.verifies.now = func() time.Time { return now }
	loads := 0
	load := b.verifies.load
	b.verifies.load = func(ctx context.Context, zone string) (map[string]*ecdsa.PublicKey, error) {
		loads++
		return load(ctx, zone)
	}
	forged := reheader(t, token, map[string]any{"alg": "ES256", "kid": "unknown"})
	for range 50 {
		if _, err := b.Verify(t.Context(), forged); !errors.Is(err, ErrInvalid) {
			t.Fatal(err)
		}
		if _, err := b.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	if loads != 1 {
		t.Errorf("%d lookups at one moment, want 1", loads)
	}
	for range 10 {
		now = now.Add(time.Second)
		for range 10 {
			_, _ = b.Verify(t.Context(), forged)
		}
	}
	if loads != 11 {
		t.Errorf("%d lookups within 10 seconds, want 10 more", loads-1)
	}
}

// While the keys cannot be read, tokens are not reported as invalid.
func TestVerifyWithoutDatabaseIsUnavailable(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	token, _ := b.issue(b.zone("z"))
	closed := b.open()
	closed.Close()
	other := New(closed, b.config)
	if _, err := other.Verify(t.Context(), token); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if _, err := other.Verify(t.Context(), "x"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a malformed token: got %v", err)
	}
}

func TestOneIssuerForAllZones(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	zone := b.zone("z")
	own, _ := b.issue(zone)
	b.config.URL = "https://issuer.example.com"
	if b.URL(zone) != b.config.URL {
		t.Errorf("the issuer is %s", b.URL(zone))
	}
	token, c := b.issue(zone)
	if _, err := b.Verify(t.Context(), token); err != nil || c.Issuer != b.config.URL {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := b.Verify(t.Context(), own); !errors.Is(err, ErrInvalid) || !strings.HasSuffix(err.Error(), "wrong issuer") {
		t.Errorf("a token of another issuer: got %v", err)
	}
}

// reheader returns a token with another header and the same signature.
func reheader(t *testing.T, token string, header map[string]any) string {
	t.Helper()
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(token, ".")
	return base64.RawURLEncoding.EncodeToString(text) + "." + rest
}

func TestVerifyRejectsAttacks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	zone, other := b.zone("z"), b.zone("other")
	token, _ := b.issue(zone)
	foreign, _ := b.issue(other)
	signing, err := b.signingKey(t.Context(), "r", zone)
	if err != nil {
		t.Fatal(err)
	}
	otherSigning, err := b.signingKey(t.Context(), "r", other)
	if err != nil {
		t.Fatal(err)
	}
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(signing.Private().Public())
	if err != nil {
		t.Fatal(err)
	}
	point, err := signing.Private().PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	valid := func(change map[string]any) []byte {
		all := map[string]any{
			"iss": b.URL(zone), "sub": "app-1", "client_id": "app-1", "aud": []string{audience}, "target": []string{audience}, "iat": now, "exp": now + 900, "jti": "j",
			"zone_id": zone, "scope": "control:app:read", "sid": "s", "root_sid": "s", "use": "resource", "sub_type": "application",
		}
		for name, value := range change {
			if all[name] = value; value == nil {
				delete(all, name)
			}
		}
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	signed := func(payload []byte, alg jwa.SignatureAlgorithm, key any, kid string, extra ...string) string {
		header := jws.NewHeaders()
		_ = header.Set("kid", kid)
		for i := 0; i+1 < len(extra); i += 2 {
			_ = header.Set(extra[i], extra[i+1])
		}
		token, err := jws.Sign(payload, jws.WithKey(alg, key, jws.WithProtectedHeaders(header)))
		if err != nil {
			t.Fatal(err)
		}
		return string(token)
	}
	with := func(change map[string]any) string {
		return signed(valid(change), jwa.ES256(), signing.Private(), signing.ID)
	}
	parts := strings.Split(token, ".")
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"`+signing.ID+`"}`)) + "." + parts[1] + "."
	flipped := []byte(parts[2])
	flipped[10] ^= 1
	var inJSON map[string]any
	if err := json.Unmarshal([]byte(`{"payload":"`+parts[1]+`","protected":"`+parts[0]+`","signature":"`+parts[2]+`"}`), &inJSON); err != nil {
		t.Fatal(err)
	}
	serialized, err := json.Marshal(inJSON)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ token, reason string }{
		"as issued":                              {token, ""},
		"as the tests sign":                      {with(nil), ""},
		"audience is a string":                   {with(map[string]any{"aud": audience}), ""},
		"one of several audiences":               {with(map[string]any{"aud": []string{"x", audience}}), ""},
		"expired within the leeway":              {with(map[string]any{"exp": now - 20}), ""},
		"issued in the future within the leeway": {with(map[string]any{"iat": now + 50}), ""},
		"empty":                                  {"", "malformed"},
		"no token":                               {"x", "malformed"},
		"two parts":                              {parts[0] + "." + parts[1], "malformed"},
		"four parts":                             {token + ".x", "malformed"},
		"JSON serialization":                     {string(serialized), "malformed"},
		"padded":                                 {parts[0] + "=." + parts[1] + "." + parts[2], "malformed"},
		"oversized":                              {with(map[string]any{"scope": strings.Repeat("control:app:read ", 300)}), "malformed"},
		"payload is no JSON":                     {signed([]byte("x"), jwa.ES256(), signing.Private(), signing.ID), "malformed"},
		"payload is a list":                      {signed([]byte("[]"), jwa.ES256(), signing.Private(), signing.ID), "malformed"},
		"alg none":                               {unsigned, "wrong algorithm"},
		"alg none with the signature":            {reheader(t, token, map[string]any{"alg": "none", "kid": signing.ID}), "wrong algorithm"},
		"HS256 with the public key in DER":       {signed(valid(nil), jwa.HS256(), spki, signing.ID), "wrong algorithm"},
		"HS256 with the public point":            {signed(valid(nil), jwa.HS256(), point, signing.ID), "wrong algorithm"},
		"ES256 in lower case":                    {reheader(t, token, map[string]any{"alg": "es256", "kid": signing.ID}), "wrong algorithm"},
		"no algorithm":                           {reheader(t, token, map[string]any{"kid": signing.ID}), "wrong algorithm"},
		"a critical header":                      {reheader(t, token, map[string]any{"alg": "ES256", "kid": signing.ID, "crit": []string{"b64"}, "b64": false}), "unknown critical header"},
		"no key":                                 {reheader(t, token, map[string]any{"alg": "ES256"}), "unknown key"},
		"unknown key":                            {signed(valid(nil), jwa.ES256(), attacker, "unknown"), "unknown key"},
		"key of another zone":                    {signed(valid(nil), jwa.ES256(), otherSigning.Private(), otherSigning.ID), "unknown key"},
		"key of the attacker":                    {signed(valid(nil), jwa.ES256(), attacker, signing.ID), "wrong signature"},
		"key in the header":                      {signed(valid(nil), jwa.ES256(), attacker, signing.ID, "jku", "https://attacker.example.com/jwks.json"), "wrong signature"},
		"claims of another token":                {parts[0] + "." + strings.Split(foreign, ".")[1] + "." + parts[2], "unknown key"},
		"tampered claims":                        {parts[0] + "." + base64.RawURLEncoding.EncodeToString(valid(map[string]any{"scope": "control:zone:write"})) + "." + parts[2], "wrong signature"},
		"tampered signature":                     {parts[0] + "." + parts[1] + "." + string(flipped), "wrong signature"},
		"no signature":                           {parts[0] + "." + parts[1] + ".", "wrong signature"},
		"zero signature":                         {parts[0] + "." + parts[1] + "." + strings.Repeat("A", 86), "wrong signature"},
		"no zone":                                {with(map[string]any{"zone_id": nil}), "no zone"},
		"all zones":                              {with(map[string]any{"zone_id": "*"}), "no zone"},
		"zone is no text":                        {with(map[string]any{"zone_id": 7}), "malformed"},
		"another zone with the key of this one":  {with(map[string]any{"zone_id": other, "iss": b.URL(other)}), "unknown key"},
		"issuer of another zone":                 {with(map[string]any{"iss": b.URL(other)}), "wrong issuer"},
		"no issuer":                              {with(map[string]any{"iss": nil}), "wrong issuer"},
		"wrong audience":                         {with(map[string]any{"aud": []string{"https://api.example.com"}}), "wrong audience"},
		"no audience":                            {with(map[string]any{"aud": nil}), "wrong audience"},
		"expired":                                {with(map[string]any{"iat": now - 1000, "exp": now - 70}), "expired"},
		"no expiry":                              {with(map[string]any{"exp": nil}), "missing claim"},
		"null expiry":                            {strings.Join([]string{parts[0], base64.RawURLEncoding.EncodeToString([]byte(`{"exp":null}`)), parts[2]}, "."), "no zone"},
		"expiry is a text":                       {with(map[string]any{"exp": "9999999999"}), "malformed"},
		"expiry out of range":                    {with(map[string]any{"exp": 1e300}), "malformed"},
		"negative expiry":                        {with(map[string]any{"exp": -1}), "malformed"},
		"no time of issue":                       {with(map[string]any{"iat": nil}), "missing claim"},
		"not yet valid":                          {with(map[string]any{"nbf": now + 600}), "not yet valid"},
		"issued in the future":                   {with(map[string]any{"iat": now + 600}), "not yet valid"},
		"no ID":                                  {with(map[string]any{"jti": nil}), "missing claim"},
		"empty ID":                               {with(map[string]any{"jti": ""}), "missing claim"},
		"no subject":                             {with(map[string]any{"sub": nil}), "missing claim"},
		"session token":                          {with(map[string]any{"use": "session"}), "wrong kind of token"},
		"no use":                                 {with(map[string]any{"use": nil}), "wrong kind of token"},
		"token of a user":                        {with(map[string]any{"sub_type": "user"}), "wrong kind of token"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := b.Verify(t.Context(), tt.token)
			if tt.reason == "" {
				if err != nil || c.ZoneID != zone || c.Subject != "app-1" {
					t.Errorf("got %+v, %v", c, err)
				}
				return
			}
			if !errors.Is(err, ErrInvalid) || err.Error() != "the token is invalid: "+tt.reason || c.ZoneID != "" || c.Scopes != nil {
				t.Errorf("got %+v, %v, want %s", c, err, tt.reason)
			}
		})
	}
}
