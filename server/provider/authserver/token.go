package authserver

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Tokens are the tokens that a valid request gets.
type Tokens struct {
	Access, Refresh, Scope string
	form                   url.Values // of the request
}

// A Respond function writes the response to a valid token request.
type Respond func(w http.ResponseWriter, r *http.Request, t Tokens)

// token serves the token endpoint (RFC 6749, section 3.2). A request must be valid
// whatever the response is, so that a test of a response also tests the request.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	respond, ok := s.options.Responses[r.PathValue("response")]
	if !ok && r.PathValue("response") != "" {
		http.NotFound(w, r)
		return
	}
	t, err := s.exchange(r)
	switch {
	case err != nil && err.code == "invalid_client":
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": err.code, "error_description": err.description})
	case err != nil:
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": err.code, "error_description": err.description})
	case ok:
		respond(w, r, t)
	case !strings.Contains(r.Header.Get("Accept"), "application/json"): // as some services do
		w.Header().Set("Content-Type", "application/x-www-form-urlencoded")
		_, _ = io.WriteString(w, url.Values{"access_token": {t.Access}, "token_type": {"bearer"}}.Encode())
	default:
		writeJSON(w, http.StatusOK, map[string]any{
			"access_token": t.Access, "token_type": "Bearer", "expires_in": 3600, "refresh_token": t.Refresh, "scope": t.Scope,
		})
	}
}

// exchange validates a token request and issues tokens.
func (s *Server) exchange(r *http.Request) (Tokens, *requestError) {
	invalid := func(code, description string) (Tokens, *requestError) {
		return Tokens{}, &requestError{code, description}
	}
	params, format, ok := parameters(r)
	if !ok {
		return invalid("invalid_request", "the request must be a POST of parameters, each sent once")
	}
	client, ok := s.authenticate(r, params)
	if !ok || format != cmp.Or(client.Format, "form") {
		return invalid("invalid_client", "client authentication failed")
	}
	for name, value := range client.Headers {
		if r.Header.Get(name) != value {
			return invalid("invalid_request", "a header is missing")
		}
	}
	get := func(name string) string { return params.Get(cmp.Or(client.TokenNames[name], name)) }
	if get("grant_type") != cmp.Or(client.GrantType, "authorization_code") {
		return invalid("unsupported_grant_type", "grant_type must be authorization_code")
	}
	g, ok := s.redeem(get("code"))
	switch {
	case !ok || g.client.ID != client.ID:
		return invalid("invalid_grant", "the code is unknown, used or expired")
	case get("redirect_uri") != g.redirectURI:
		return invalid("invalid_grant", "redirect_uri differs from the one of the authorization request")
	case !verifies(params.Get("code_verifier"), g.challenge):
		return invalid("invalid_grant", "code_verifier does not match the challenge")
	case params.Get("resource") != g.resource:
		return invalid("invalid_target", "the code is for another resource")
	}
	return Tokens{Access: "access-" + rand.Text(), Refresh: "refresh-" + rand.Text(), Scope: g.scope, form: params}, nil
}

// parameters returns the parameters of a token request and how they were sent.
func parameters(r *http.Request) (params url.Values, format string, ok bool) {
	const maxBody = 64 << 10
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil || r.Method != http.MethodPost {
		return nil, "", false
	}
	switch contentType := r.Header.Get("Content-Type"); {
	case contentType == "application/x-www-form-urlencoded":
		format = "form"
		params, err = url.ParseQuery(string(body))
	case contentType == "application/json":
		format = "json"
		var fields map[string]string
		err = json.Unmarshal(body, &fields)
		params = url.Values{}
		for name, value := range fields {
			params.Set(name, value)
		}
	case contentType == "" && len(body) == 0:
		format = "query"
		params, err = url.ParseQuery(r.URL.RawQuery)
	default:
		return nil, "", false
	}
	for _, values := range params {
		if len(values) > 1 {
			return nil, "", false
		}
	}
	return params, format, err == nil
}

// authenticate returns the client of a token request if it authenticates with its own
// method and with no other (RFC 6749, section 2.3).
func (s *Server) authenticate(r *http.Request, params url.Values) (Client, bool) {
	get := func(c Client, name string) string { return params.Get(cmp.Or(c.TokenNames[name], name)) }
	basicID, basicSecret, basic := basicCredentials(r)
	client, ok := s.client(func(c Client) string {
		if basic {
			return basicID
		}
		return get(c, "client_id")
	})
	secret, assertion := get(client, "client_secret"), params.Get("client_assertion")
	if !ok || basic && (get(client, "client_id") != "" || secret != "") {
		return client, false
	}
	switch client.AuthMethod {
	case "client_secret_basic":
		return client, basic && assertion == "" && equal(basicSecret, client.Secret)
	case "client_secret_post":
		return client, !basic && assertion == "" && equal(secret, client.Secret)
	case "private_key_jwt":
		return client, !basic && secret == "" && params.Get("client_assertion_type") == assertionType && s.asserts(client, assertion, r.URL.Path)
	case "none":
		return client, !basic && secret == "" && assertion == ""
	}
	return client, false
}

// basicCredentials returns the credentials of the Authorization header, which are
// form-encoded (RFC 6749, section 2.3.1).
func basicCredentials(r *http.Request) (id, secret string, ok bool) {
	id, secret, ok = r.BasicAuth()
	id, err := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	return id, secret, ok && err == nil && err2 == nil
}

// verifies reports whether a challenge is that of a code verifier (RFC 7636).
func verifies(verifier, challenge string) bool {
	hash := sha256.Sum256([]byte(verifier))
	return len(verifier) >= 43 && len(verifier) <= 128 && equal(base64.RawURLEncoding.EncodeToString(hash[:]), challenge)
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func writeJSON(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
