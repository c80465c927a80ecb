package authserver

import (
	"cmp"
	_ "embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

//go:embed consent.html
var consentText string

var consent = template.Must(template.New("consent").Parse(consentText))

// challenge matches base64url(SHA-256(…)) (RFC 7636, section 4.2).
var challenge = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// An authorization is a valid authorization request (RFC 6749, section 4.1.1).
type authorization struct {
	grant
	state string
}

// errUntrusted reports a request that must not be answered by a redirect: the redirect
// URI could be an attacker's (RFC 6749, section 4.1.2.1).
var errUntrusted = errors.New("unknown client, or a redirect URI that is not registered")

// A requestError is an error that is sent to the client's redirect URI.
type requestError struct{ code, description string }

func (e *requestError) Error() string { return e.code + ": " + e.description }

// parseAuthorization validates the query of an authorization request. The result is
// complete enough for an error response unless the error is errUntrusted.
func (s *Server) parseAuthorization(rawQuery string) (authorization, error) {
	query, err := url.ParseQuery(rawQuery)
	get := func(c Client, name string) string { return query.Get(cmp.Or(c.AuthorizationNames[name], name)) }
	client, known := s.client(func(c Client) string { return get(c, "client_id") })
	if err != nil || !known || get(client, "redirect_uri") != client.RedirectURI {
		return authorization{}, errUntrusted
	}
	a := authorization{
		grant: grant{
			client: client, redirectURI: get(client, "redirect_uri"), challenge: query.Get("code_challenge"),
			scope: get(client, "scope"), resource: query.Get("resource"),
		},
		state: query.Get("state"),
	}
	for name, values := range query {
		if len(values) > 1 {
			return a, &requestError{"invalid_request", name + " is repeated"}
		}
	}
	switch {
	case get(client, "response_type") != "code":
		return a, &requestError{"unsupported_response_type", "response_type must be code"}
	case a.state == "":
		return a, &requestError{"invalid_request", "state is required"}
	case query.Get("code_challenge_method") != "S256" || !challenge.MatchString(a.challenge):
		return a, &requestError{"invalid_request", "PKCE with S256 is required"}
	case a.resource != client.Resource:
		return a, &requestError{"invalid_target", "unknown resource"}
	}
	return a, nil
}

// redirect returns the URI of the authorization response.
func (s *Server) redirect(a authorization, response map[string]string) string {
	u, err := url.Parse(a.redirectURI)
	if err != nil {
		panic(err) // a registered URI that is not one
	}
	query := u.Query()
	for name, value := range response {
		query.Set(name, value)
	}
	if a.state != "" {
		query.Set("state", a.state)
	}
	if a.client.SendIssuer {
		query.Set("iss", s.URL)
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// decide returns the redirect after a user's decision, or the error of the request.
func (s *Server) decide(rawQuery string, allowed bool) (string, error) {
	a, err := s.parseAuthorization(rawQuery)
	var invalid *requestError
	switch {
	case errors.As(err, &invalid):
		return s.redirect(a, map[string]string{"error": invalid.code, "error_description": invalid.description}), nil
	case err != nil:
		return "", err
	case !allowed:
		return s.redirect(a, map[string]string{"error": "access_denied", "error_description": "The user denied access."}), nil
	}
	return s.redirect(a, map[string]string{"code": s.issue(a.grant)}), nil
}

// Allow does what a user does who opens an authorization URL and allows access. It
// returns the URL that the browser is redirected to.
func (s *Server) Allow(authorizationURL string) (string, error) {
	return s.visit(authorizationURL, true)
}

// Deny is like [Server.Allow] for a user who denies access.
func (s *Server) Deny(authorizationURL string) (string, error) {
	return s.visit(authorizationURL, false)
}

func (s *Server) visit(authorizationURL string, allowed bool) (string, error) {
	endpoint, query, _ := strings.Cut(authorizationURL, "?")
	if endpoint != s.AuthorizationEndpoint() {
		return "", errors.New("not the authorization endpoint: " + endpoint)
	}
	return s.decide(query, allowed)
}

func (s *Server) showConsent(w http.ResponseWriter, r *http.Request) {
	a, err := s.parseAuthorization(r.URL.RawQuery)
	var invalid *requestError
	switch {
	case errors.As(err, &invalid):
		s.receiveConsent(w, r) // redirects with the error
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	_ = consent.Execute(w, map[string]any{"Client": a.client.ID, "Scopes": strings.Fields(a.scope), "Redirect": a.redirectURI})
}

func (s *Server) receiveConsent(w http.ResponseWriter, r *http.Request) {
	to, err := s.decide(r.URL.RawQuery, r.PostFormValue("decision") == "allow")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}
