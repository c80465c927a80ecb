package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestClientAuthenticatesWithBasic(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	key := newControlKey(t, a, a.Zone().ID, client.ControlScopeControlAppRead)
	other := newControlKey(t, a, a.Zone().ID, client.ControlScopeControlAppRead)
	encode := func(text string) []string {
		return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(text))}
	}
	without := []string{"application_id", "", "client_secret", ""}
	for _, tt := range []struct {
		name    string
		headers []string
		changes []string
		want    code.Code
		status  int
	}{
		{"ID and secret", basicAuth(key.ID, key.ClientSecret), without, "", 200},
		{"scheme in lower case", []string{"Authorization", "basic " + basicAuth(key.ID, key.ClientSecret)[1][len("Basic "):]}, without, "", 200},
		{"and the ID in the form", basicAuth(key.ID, key.ClientSecret), []string{"client_secret", ""}, "", 200},
		{"each character encoded", encode(percent(key.ID) + ":" + percent(key.ClientSecret)), without, "", 200},
		{"another ID in the form", basicAuth(other.ID, other.ClientSecret), []string{"client_secret", ""}, code.InvalidRequest, 400},
		{"and the secret in the form", basicAuth(key.ID, key.ClientSecret), nil, code.InvalidRequest, 400},
		{"two headers", append(basicAuth(key.ID, key.ClientSecret), basicAuth(key.ID, key.ClientSecret)...), without, code.AccessDenied, 401},
		{"wrong secret", basicAuth(key.ID, other.ClientSecret), without, code.AccessDenied, 401},
		{"no secret", encode(key.ID + ":"), without, code.AccessDenied, 401},
		{"no ID", encode(":" + key.ClientSecret), without, code.AccessDenied, 401},
		{"no colon", encode(key.ID), without, code.AccessDenied, 401},
		{"not in base64", []string{"Authorization", "Basic ***"}, without, code.AccessDenied, 401},
		{"malformed encoding", encode(key.ID + ":%zz"), without, code.AccessDenied, 401},
		{"NUL", encode(key.ID + "\x00:x"), without, code.AccessDenied, 401},
		{"an admin token", bearer(servertest.Bootstrap), without, code.AccessDenied, 401},
		{"an empty header", []string{"Authorization", ""}, without, code.AccessDenied, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := requestToken(a, tokenForm(key, tt.changes...), tt.headers...)
			expectToken(t, raw, tt.want, tt.status)
			if tt.status == 401 && raw.Header.Get("WWW-Authenticate") != `Basic realm="caracal", charset="UTF-8"` {
				t.Errorf("WWW-Authenticate is %q", raw.Header.Values("WWW-Authenticate"))
			}
		})
	}
}

// percent encodes each byte of a text.
func percent(text string) (encoded string) {
	for _, b := range []byte(text) {
		encoded += fmt.Sprintf("%%%02X", b)
	}
	return encoded
}

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// A signingClient is a Control key that authenticates with assertions.
type signingClient struct {
	client.CreatedControlKey
	t       *testing.T
	private *ecdsa.PrivateKey
}

// newSigningClient creates a Control key with a public key.
func newSigningClient(t *testing.T, a *servertest.API) signingClient {
	t.Helper()
	c := signingClient{t: t}
	var err error
	if c.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	key, err := jwk.Import(c.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"keys": []jwk.Key{key}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := a.Admin.CreateControlKeyWithResponse(t.Context(), a.Zone().ID, client.NewControlKey{
		Name: "key", AllowedScopes: []client.ControlScope{client.ControlScopeControlAppRead}, Jwks: text,
	})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusCreated, "")
	c.CreatedControlKey = *resp.JSON201
	return c
}

// assertion returns a signed assertion with changed claims.
func (c signingClient) assertion(changes map[string]any) string {
	c.t.Helper()
	claims := map[string]any{
		"iss": c.ID, "sub": c.ID, "aud": "https://api.example.com/oauth/2/token", "exp": time.Now().Add(time.Minute).Unix(), "jti": rand.Text(),
	}
	maps.Copy(claims, changes)
	text, err := json.Marshal(claims)
	if err != nil {
		c.t.Fatal(err)
	}
	token, err := jws.Sign(text, jws.WithKey(jwa.ES256(), c.private))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(token)
}

func TestClientAuthenticatesWithAssertion(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "PUBLIC_URL=https://api.example.com")
	c, other := newSigningClient(t, a), newSigningClient(t, a)
	withoutKeys := newControlKey(t, a, a.Zone().ID, client.ControlScopeControlAppRead)
	without := func(changes ...string) []string {
		return append([]string{"client_secret", "", "client_assertion_type", assertionType}, changes...)
	}
	for _, tt := range []struct {
		name    string
		changes []string
		headers []string
		want    code.Code
		status  int
	}{
		{"with the ID", without("client_assertion", c.assertion(nil)), nil, "", 200},
		{"without the ID", without("client_assertion", c.assertion(nil), "application_id", ""), nil, "", 200},
		{"for the issuer", without("client_assertion", c.assertion(map[string]any{"aud": "https://api.example.com/v1/zones/" + c.ZoneID})), nil, "", 200},
		{"for the issuer of another zone", without("client_assertion", c.assertion(map[string]any{"aud": "https://api.example.com/v1/zones/" + other.ZoneID})), nil, code.AccessDenied, 401},
		{"for another service", without("client_assertion", c.assertion(map[string]any{"aud": "https://other.example.com/oauth/2/token"})), nil, code.AccessDenied, 401},
		{"expired", without("client_assertion", c.assertion(map[string]any{"exp": time.Now().Add(-2 * time.Minute).Unix()})), nil, code.AccessDenied, 401},
		{"of another application", without("client_assertion", other.assertion(nil)), nil, code.InvalidRequest, 400},
		{"signed by another application", without("client_assertion", other.assertion(map[string]any{"iss": c.ID, "sub": c.ID})), nil, code.AccessDenied, 401},
		{"of an application without keys", without("client_assertion", c.assertion(map[string]any{"iss": withoutKeys.ID, "sub": withoutKeys.ID}), "application_id", ""), nil, code.AccessDenied, 401},
		{"of an unknown application", without("client_assertion", c.assertion(map[string]any{"iss": "unknown", "sub": "unknown"}), "application_id", ""), nil, code.AccessDenied, 401},
		{"malformed", without("client_assertion", "x"), nil, code.AccessDenied, 401},
		{"malformed, without the ID", without("client_assertion", "x", "application_id", ""), nil, code.AccessDenied, 401},
		{"missing", without(), nil, code.InvalidRequest, 400},
		{"without the type", []string{"client_secret", "", "client_assertion", c.assertion(nil)}, nil, code.InvalidRequest, 400},
		{"another type", without("client_assertion", c.assertion(nil), "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"), nil, code.InvalidRequest, 400},
		{"and a secret", []string{"client_assertion_type", assertionType, "client_assertion", c.assertion(nil)}, nil, code.InvalidRequest, 400},
		{"and Basic", without("client_assertion", c.assertion(nil)), basicAuth(c.ID, c.ClientSecret), code.InvalidRequest, 400},
	} {
		t.Run(tt.name, func(t *testing.T) { // not in parallel, because the assertions expire
			expectToken(t, requestToken(a, tokenForm(c.CreatedControlKey, tt.changes...), tt.headers...), tt.want, tt.status)
		})
	}
}

// Of the requests that send an assertion, at the same time and to two replicas, one gets a
// token.
func TestClientAssertionIsUsedOnce(t *testing.T) {
	t.Parallel()
	db, redisURL := storetest.New(t), storetest.RedisURL(t)
	one, two := servertest.NewReplica(t, db, redisURL, "PUBLIC_URL=https://api.example.com"), servertest.NewReplica(t, db, redisURL, "PUBLIC_URL=https://api.example.com")
	c, other := newSigningClient(t, one), newSigningClient(t, one)
	form := tokenForm(c.CreatedControlKey, "client_secret", "", "client_assertion_type", assertionType, "client_assertion", c.assertion(map[string]any{"jti": "once"}))
	var issued, denied atomic.Int32
	var all sync.WaitGroup
	for n := range 10 {
		all.Go(func() {
			switch status := requestToken([]*servertest.API{one, two}[n%2], form).StatusCode(); status {
			case http.StatusOK:
				issued.Add(1)
			case http.StatusUnauthorized:
				denied.Add(1)
			default:
				t.Errorf("got %d", status)
			}
		})
	}
	all.Wait()
	if issued.Load() != 1 || denied.Load() != 9 {
		t.Errorf("%d got a token and %d were denied, want 1 and 9", issued.Load(), denied.Load())
	}
	form = tokenForm(other.CreatedControlKey, "client_secret", "", "client_assertion_type", assertionType, "client_assertion", other.assertion(map[string]any{"jti": "once"}))
	expectToken(t, requestToken(one, form), "", 200)
}

// If it is not known whether an assertion was used, it is not accepted.
func TestClientAssertionsNeedRedis(t *testing.T) {
	t.Parallel()
	r := storetest.StartRedis(t)
	url := setUser(t, r, "service", []string{"on", ">" + redisPassword, "~*", "&*", "+@all"})
	a := servertest.NewReplica(t, storetest.New(t), url, "PUBLIC_URL=https://api.example.com")
	c := newSigningClient(t, a)
	setUser(t, r, "service", []string{"-set"})
	form := tokenForm(c.CreatedControlKey, "client_secret", "", "client_assertion_type", assertionType, "client_assertion", c.assertion(nil))
	expectToken(t, requestToken(a, form), code.ServiceUnavailable, 503)
	expectToken(t, requestToken(a, tokenForm(c.CreatedControlKey)), "", 200)
	setUser(t, r, "service", []string{"+set"})
	expectToken(t, requestToken(a, form), "", 200)
}

// callTokenOperations calls the operations on tokens.
func callTokenOperations(t *testing.T, c *client.Client) {
	ctx := t.Context()
	zone := result(c.CreateZone(ctx, client.NewZone{Name: "Tokens"}))(t).ID
	rotated := result(c.RotateSigningKey(ctx, zone))(t)
	if keys := result(c.GetVerificationKeys(ctx, client.GetVerificationKeysParams{ZoneID: zone}))(t); len(keys.Keys) != 1 || keys.Keys[0].Kid != rotated.Kid {
		t.Errorf("got %+v, want the key %s", keys, rotated.Kid)
	}
	if metadata := result(c.GetAuthorizationServer(ctx, zone))(t); !strings.HasSuffix(metadata.Issuer, "/v1/zones/"+zone) {
		t.Errorf("got %+v", metadata)
	}
	scopes := []client.ControlScope{client.ControlScopeControlAppRead, client.ControlScopeControlAppWrite}
	key := result(c.CreateControlKey(ctx, zone, client.NewControlKey{Name: "key", AllowedScopes: scopes}))(t)
	request := client.TokenRequest{
		GrantType: "client_credentials", ClientID: &key.ID, ClientSecret: &key.ClientSecret, Resource: []string{key.Resource, key.Resource},
		Scope: "control:app:read control:app:write", TTLSeconds: new(int64(60)),
	}
	if token := result(c.IssueToken(ctx, request))(t); token.AccessToken == "" || token.ExpiresIn != 60 || token.Scope != request.Scope {
		t.Errorf("got %+v", token)
	}
	request.ClientSecret = new("wrong")
	_, err := c.IssueToken(ctx, request)
	expectCode(t, err, client.CodeAccessDenied)
	noError(t, c.DeleteZone(ctx, zone))
}
