package server_test

import (
	"crypto/sha256"
	"encoding/base64"
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"caracal.run/management/server/servertest"
)

func TestCallbackPage(t *testing.T) {
	t.Parallel()
	z := newOAuthZone(t)
	const attack = `<script>alert(1)</script> </style>"'&`
	for _, tt := range []struct {
		name   string
		query  func(*testing.T) string
		status int
		title  string
		text   string // in the page
	}{
		{"connected", func(t *testing.T) string { return z.allow(t) }, http.StatusCreated, "Connected", "Your account is connected."},
		{"denied", func(t *testing.T) string { return with(t, z.decide(t, z.auth.Deny), "error_description", attack) }, http.StatusBadRequest, "Access denied", attack},
		{"expired", func(t *testing.T) string { return "state=" + strings.Repeat("s", 43) + "&code=x" }, http.StatusBadRequest, "Authorization expired", "Start it again."},
		{"invalid", func(t *testing.T) string { return "state=<script>" }, http.StatusBadRequest, "Authorization failed", "The response of the provider is invalid."},
		{"failed", func(t *testing.T) string { return with(t, z.allow(t), "code", "wrong") }, http.StatusBadGateway, "Authorization failed", "The provider could not be reached"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := z.callback(tt.query(t), "Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
			if raw.StatusCode() != tt.status || raw.Header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Fatalf("got %d %s", raw.StatusCode(), raw.Header.Get("Content-Type"))
			}
			page := string(raw.Body)
			if !strings.Contains(page, "<title>"+tt.title+" – Caracal</title>") || !strings.Contains(html.UnescapeString(page), tt.text) || !strings.Contains(page, "close this tab") {
				t.Errorf("the page is\n%s", page)
			}
			if found := regexp.MustCompile(`(?i)<script|javascript:|https?:|src=|<[^>]+\son\w+=`).FindString(page); found != "" {
				t.Errorf("the page contains %q:\n%s", found, page)
			}
			style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(page)
			sum := sha256.Sum256([]byte(style[1]))
			policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
			for name, want := range map[string]string{
				"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			} {
				if got := raw.Header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

// The response is HTML only if the request accepts HTML and not JSON by name, and
// never if the path is invalid.
func TestCallbackPageByAccept(t *testing.T) {
	t.Parallel()
	z := newGrantZone(t, servertest.New(t))
	unknown := "/v1/zones/" + z.zone + "/provider-grants/oauth/callback?state=" + strings.Repeat("s", 43) + "&code=x"
	for _, tt := range []struct {
		path   string
		accept []string
		want   string
	}{
		{unknown, nil, "application/json; charset=utf-8"},
		{unknown, []string{"*/*"}, "application/json; charset=utf-8"},
		{unknown, []string{"text/html, application/json"}, "application/json; charset=utf-8"},
		{unknown, []string{"text/html", "application/json;q=0.1"}, "application/json; charset=utf-8"},
		{unknown, []string{"application/problem+json"}, "application/problem+json"},
		{unknown, []string{"text/html"}, "text/html; charset=utf-8"},
		{unknown, []string{"TEXT/HTML;q=0.5, */*"}, "text/html; charset=utf-8"},
		{strings.Replace(unknown, z.zone, "a%20b", 1), []string{"text/html"}, "application/json; charset=utf-8"},
		{"/v1/zones/" + z.zone, []string{"text/html"}, "application/json; charset=utf-8"}, // another operation
	} {
		var headers []string
		for _, accept := range tt.accept {
			headers = append(headers, "Accept", accept)
		}
		if got := z.Do("GET", tt.path, "", headers...).Header.Get("Content-Type"); got != tt.want {
			t.Errorf("Accept %q: got %s, want %s", tt.accept, got, tt.want)
		}
	}
}
