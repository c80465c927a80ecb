package authserver

import (
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
	const maxBody = 64 << 10
	invalid := func(code, description string) (Tokens, *requestError) {
		return Tokens{}, &requestError{code, description}
	}
	if r.Method != http.MethodPost {
		return invalid("invalid_request", "the method must be POST")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	form, parseErr := url.ParseQuery(string(body))
	if err != nil || parseErr != nil || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return invalid("invalid_request", "the request must be a form")
	}
	for name, values := range form {
		if len(values) > 1 {
			return invalid("invalid_request", name+" is repeated")
		}
	}
	client, ok := s.authenticate(r, form)
	if !ok {
		return invalid("invalid_client", "client authentication failed")
	}
	if form.Get("grant_type") != "authorization_code" {
		return invalid("unsupported_grant_type", "grant_type must be authorization_code")
	}
	g, ok := s.redeem(form.Get("code"))
	switch {
	case !ok || g.client.ID != client.ID:
		return invalid("invalid_grant", "the code is unknown, used or expired")
	case form.Get("redirect_uri") != g.redirectURI:
		return invalid("invalid_grant", "redirect_uri differs from the one of the authorization request")
	case !verifies(form.Get("code_verifier"), g.challenge):
		return invalid("invalid_grant", "code_verifier does not match the challenge")
	}
	return Tokens{Access: "access-" + rand.Text(), Refresh: "refresh-" + rand.Text(), Scope: g.scope, form: form}, nil
}

// authenticate returns the client of a token request if it authenticates with its own
// method and with no other (RFC 6749, section 2.3).
func (s *Server) authenticate(r *http.Request, form url.Values) (Client, bool) {
	id, secret, basic := basicCredentials(r)
	if !basic {
		id, secret = form.Get("client_id"), form.Get("client_secret")
	}
	client, ok := s.client(id)
	if !ok || basic == form.Has("client_id") || basic && form.Has("client_secret") {
		return client, false
	}
	switch client.AuthMethod {
	case "client_secret_basic":
		return client, basic && equal(secret, client.Secret)
	case "client_secret_post":
		return client, !basic && equal(secret, client.Secret)
	case "none":
		return client, !basic && !form.Has("client_secret")
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
