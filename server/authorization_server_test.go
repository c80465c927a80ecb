package server_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server"
	"caracal.run/management/server/servertest"
)

const metadataPath = "/.well-known/oauth-authorization-server/v1/zones/"

func TestGetAuthorizationServer(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "PUBLIC_URL=https://api.example.com")
	zone := a.Zone().ID
	raw := a.Do("GET", metadataPath+zone, "")
	servertest.Expect(t, raw, http.StatusOK, "")
	const want = `{"issuer":"https://api.example.com/v1/zones/ZONE","token_endpoint":"https://api.example.com/oauth/2/token","jwks_uri":"https://api.example.com/.well-known/jwks.json?zone_id=ZONE",` +
		`"response_types_supported":[],"grant_types_supported":["client_credentials"],"token_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","private_key_jwt"],` +
		`"token_endpoint_auth_signing_alg_values_supported":["ES256","RS256","PS256","EdDSA"],"scopes_supported":["control:agent:delete",`
	if got := strings.ReplaceAll(string(raw.Body), zone, "ZONE"); !strings.HasPrefix(got, want) || strings.Count(got, `"control:`) != 26 {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := raw.Header.Get("Cache-Control"); got != "public, max-age=300, must-revalidate" {
		t.Errorf("Cache-Control is %q", got)
	}
	if got := decode[client.AuthorizationServer](t, a.Do("GET", metadataPath+openZone(a), "")); got.RegistrationEndpoint == nil || *got.RegistrationEndpoint != got.Issuer+"/register" {
		t.Errorf("of a zone with dynamic client registration, got %+v", got)
	}
	// The metadata is true: the token endpoint issues tokens of this issuer, and the keys verify them.
	metadata := decode[client.AuthorizationServer](t, raw)
	key := newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	token := a.Do("POST", strings.TrimPrefix(metadata.TokenEndpoint, "https://api.example.com"), tokenForm(key).Encode(), "Content-Type", formType)
	expectToken(t, token, "", http.StatusOK)
	if claims := tokenClaims(t, a, zone, decode[client.IssuedToken](t, token).AccessToken); claims["iss"] != metadata.Issuer {
		t.Errorf("the issuer of tokens is %v", claims["iss"])
	}
	for id, want := range map[string]code.Code{"unknown": code.ZoneNotFound, a.DB.ArchivedZone(): code.ZoneNotFound, "a%20b": code.InvalidParams, strings.Repeat("x", 129): code.InvalidParams, "*": code.InvalidParams} {
		servertest.Expect(t, a.Do("GET", metadataPath+id, ""), 0, want)
	}
}

// STS_ISSUER_URL alone is the issuer of all zones; this service issues their tokens.
func TestOneIssuerOfAllZones(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "STS_ISSUER_URL=https://sts.example.com")
	zone := a.Zone().ID
	key := newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	raw := requestToken(a, tokenForm(key))
	expectToken(t, raw, "", http.StatusOK)
	if claims := tokenClaims(t, a, zone, decode[client.IssuedToken](t, raw).AccessToken); claims["iss"] != "https://sts.example.com" {
		t.Errorf("claims %v", claims)
	}
	servertest.Expect(t, a.Do("GET", metadataPath+zone, ""), 0, code.NotFound) // its URL would not be that of the issuer
}

// With STS_JWKS_URL, another service issues the tokens, and this one none.
func TestTokensOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	sts := servertest.New(t, "STS_ISSUER_URL=https://sts.example.com") // plays the other service
	zone := sts.Zone().ID
	key := newControlKey(t, sts, zone, client.ControlScopeControlAppRead)
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw := sts.Do("GET", "/.well-known/jwks.json?"+r.URL.RawQuery, "")
		w.WriteHeader(raw.StatusCode())
		_, _ = w.Write(raw.Body)
	}))
	defer keys.Close()
	gate := t.TempDir()
	settings := []string{"STS_ISSUER_URL=https://sts.example.com", "CARACAL_CONTROL_ENABLED=true", "CONTROL_GATE_FILE=" + gate}
	a := servertest.NewReplica(t, sts.DB, sts.Config.RedisURL.Reveal(), append(settings, "STS_JWKS_URL="+keys.URL)...)
	describe := func(a *servertest.API) servertest.RawResponse {
		raw := requestToken(sts, tokenForm(key))
		expectToken(t, raw, "", http.StatusOK)
		return a.Do("POST", "/v1/control/invoke", `{"command":"catalog","subcommand":"describe"}`, append(bearer(decode[client.IssuedToken](t, raw).AccessToken), "Content-Type", jsonType)...)
	}
	servertest.Expect(t, describe(a), http.StatusOK, "")
	expectToken(t, requestToken(a, tokenForm(key)), code.NotFound, http.StatusNotFound)
	servertest.Expect(t, a.Do("GET", metadataPath+zone, ""), 0, code.NotFound)

	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); _, _ = io.WriteString(w, "down") }))
	defer down.Close()
	without := servertest.NewReplica(t, sts.DB, sts.Config.RedisURL.Reveal(), append(settings, "STS_JWKS_URL="+down.URL)...)
	servertest.Expect(t, describe(without), 0, code.ServiceUnavailable)
}

func TestIssuerSettings(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"STS_JWKS_URL=https://sts.example.com/jwks": "STS_JWKS_URL: requires STS_ISSUER_URL",
		"STS_JWKS_URL=sts.example.com":              "STS_JWKS_URL: must be an http or https URL",
		"STS_ISSUER_URL=urn:sts":                    "STS_ISSUER_URL: must be an http or https URL",
		"STS_ISSUER_URL=https://sts.example.com":    "",
	} {
		_, err := server.LoadConfig([]string{"CARACAL_MODE=dev", "DATABASE_URL=postgres://x/y", "REDIS_URL=redis://x", "ZONE_KEK=" + servertest.KEK, setting})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", setting, err, want)
		}
	}
}
