package authserver_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"caracal.run/management/server/provider/authserver"
)

const (
	redirectURI = "https://caracal.example.com/callback?x=1"
	verifier    = "a-code-verifier-of-more-than-43-characters-in-all"
)

// start starts a server and returns a browser that reaches it.
func start(t *testing.T) (*authserver.Server, *http.Client) {
	t.Helper()
	s, err := authserver.Start(authserver.Options{Clients: []authserver.Client{
		{ID: "demo", AuthMethod: "none", RedirectURI: redirectURI, SendIssuer: true},
		{ID: "other", AuthMethod: "none", RedirectURI: "https://other.example.com/"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	out := s.Egress()
	return s, &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				addrs, err := out.Resolver.LookupNetIP(ctx, "ip", "auth.example.com.")
				if err != nil {
					return nil, err
				}
				return out.Dial(ctx, network, net.JoinHostPort(addrs[0].String(), "443"))
			},
			TLSClientConfig: &tls.Config{RootCAs: out.RootCAs}, DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// request returns a valid authorization URL in which change replaces parameters; ""
// removes one.
func request(s *authserver.Server, change map[string]string) string {
	hash := sha256.Sum256([]byte(verifier))
	fields := map[string]string{
		"client_id": "demo", "redirect_uri": redirectURI, "response_type": "code", "state": "S", "scope": "read <all>",
		"code_challenge": base64.RawURLEncoding.EncodeToString(hash[:]), "code_challenge_method": "S256",
	}
	maps.Copy(fields, change)
	query := url.Values{}
	for name, value := range fields {
		if value != "" {
			query.Set(name, value)
		}
	}
	return s.AuthorizationEndpoint() + "?" + query.Encode()
}

// send sends a request of a browser and returns the status, body and redirect.
func send(t *testing.T, browser *http.Client, method, to, form string) (int, string, *url.URL, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, to, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	location, _ := resp.Location()
	return resp.StatusCode, string(body), location, resp.Header
}

func TestConsentInABrowser(t *testing.T) {
	t.Parallel()
	s, browser := start(t)
	status, page, _, header := send(t, browser, http.MethodGet, request(s, nil), "")
	if status != http.StatusOK || !strings.Contains(page, "demo") || !strings.Contains(page, "&lt;all&gt;") || strings.Contains(page, "<script") || !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("got %d %v\n%s", status, header, page)
	}
	for decision, want := range map[string]string{"allow": "", "deny": "access_denied", "": "access_denied"} {
		status, _, to, _ := send(t, browser, http.MethodPost, request(s, nil), "decision="+decision)
		if status != http.StatusSeeOther || !strings.HasPrefix(to.String(), "https://caracal.example.com/callback?") {
			t.Fatalf("%q: got %d to %v", decision, status, to)
		}
		q := to.Query()
		if q.Get("x") != "1" || q.Get("state") != "S" || q.Get("iss") != s.URL || q.Get("error") != want || (q.Get("code") == "") != (want != "") {
			t.Errorf("%q: redirected to %s", decision, to)
		}
	}
}

func TestInvalidAuthorizationRequests(t *testing.T) {
	t.Parallel()
	s, browser := start(t)
	for name, tt := range map[string]struct {
		change map[string]string
		want   string // "" is an error page
	}{
		"unknown client":       {map[string]string{"client_id": "nobody"}, ""},
		"no client":            {map[string]string{"client_id": ""}, ""},
		"another redirect URI": {map[string]string{"redirect_uri": "https://evil.example.com/"}, ""},
		"no redirect URI":      {map[string]string{"redirect_uri": ""}, ""},
		"implicit grant":       {map[string]string{"response_type": "token"}, "unsupported_response_type"},
		"no state":             {map[string]string{"state": ""}, "invalid_request"},
		"no challenge":         {map[string]string{"code_challenge": ""}, "invalid_request"},
		"plain challenge":      {map[string]string{"code_challenge_method": "plain"}, "invalid_request"},
		"short challenge":      {map[string]string{"code_challenge": "short"}, "invalid_request"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			status, _, to, _ := send(t, browser, method, request(s, tt.change), "decision=allow")
			switch {
			case tt.want == "":
				if status != http.StatusBadRequest || to != nil {
					t.Errorf("%s: got %d to %v", name, status, to)
				}
			case status != http.StatusSeeOther || to.Query().Get("error") != tt.want || to.Query().Get("code") != "":
				t.Errorf("%s: got %d to %v, want %s", name, status, to, tt.want)
			}
		}
	}
	status, _, to, _ := send(t, browser, http.MethodGet, request(s, nil)+"&scope=again", "")
	if status != http.StatusSeeOther || to.Query().Get("error") != "invalid_request" {
		t.Errorf("repeated parameter: got %d to %v", status, to)
	}
	if _, err := s.Allow(strings.Replace(request(s, nil), "auth.example.com", "evil.example.com", 1)); err == nil {
		t.Error("a user is at another server")
	}
}

func TestTokenRequestsAreVerified(t *testing.T) {
	t.Parallel()
	s, browser := start(t)
	valid := func(change map[string]string) string {
		to, err := s.Allow(request(s, nil))
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		form := url.Values{
			"grant_type": {"authorization_code"}, "code": {u.Query().Get("code")}, "redirect_uri": {redirectURI}, "code_verifier": {verifier}, "client_id": {"demo"},
		}
		for name, value := range change {
			form.Set(name, value)
		}
		return form.Encode()
	}
	for name, tt := range map[string]struct {
		method, form string
		want         int
	}{
		"valid":            {http.MethodPost, valid(nil), http.StatusOK},
		"another method":   {http.MethodPut, valid(nil), http.StatusBadRequest},
		"another grant":    {http.MethodPost, valid(map[string]string{"grant_type": "password"}), http.StatusBadRequest},
		"another client":   {http.MethodPost, valid(map[string]string{"client_id": "other"}), http.StatusBadRequest},
		"unknown client":   {http.MethodPost, valid(map[string]string{"client_id": "nobody"}), http.StatusUnauthorized},
		"a secret":         {http.MethodPost, valid(map[string]string{"client_secret": "x"}), http.StatusUnauthorized},
		"another verifier": {http.MethodPost, valid(map[string]string{"code_verifier": verifier + "x"}), http.StatusBadRequest},
		"short verifier":   {http.MethodPost, valid(map[string]string{"code_verifier": "x"}), http.StatusBadRequest},
		"another redirect": {http.MethodPost, valid(map[string]string{"redirect_uri": "https://caracal.example.com/"}), http.StatusBadRequest},
		"repeated field":   {http.MethodPost, valid(nil) + "&code=x", http.StatusBadRequest},
		"no form":          {http.MethodPost, "%zz", http.StatusBadRequest},
	} {
		status, body, _, header := send(t, browser, tt.method, s.TokenEndpoint(""), tt.form)
		if status != tt.want {
			t.Errorf("%s: got %d %s, want %d", name, status, body, tt.want)
		}
		if status == http.StatusOK && !strings.HasPrefix(header.Get("Content-Type"), "application/x-www-form-urlencoded") { // the request has no Accept
			t.Errorf("%s: got %v", name, header)
		}
	}
	if status, _, _, _ := send(t, browser, http.MethodPost, s.TokenEndpoint("unknown"), valid(nil)); status != http.StatusNotFound {
		t.Errorf("unknown response: got %d", status)
	}
}
