package server_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
)

func TestDocsContentSecurityPolicy(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	for path, kind := range map[string]string{
		"/docs":                      "text/html; charset=utf-8",
		"/docs/":                     "text/html; charset=utf-8",
		"/docs/init.js":              "text/javascript; charset=utf-8",
		"/docs/samples.js":           "text/javascript; charset=utf-8",
		"/docs/schema.js":            "text/javascript; charset=utf-8",
		"/docs/search.js":            "text/javascript; charset=utf-8",
		"/docs/theme.js":             "text/javascript; charset=utf-8",
		"/docs/guides/tour":          "text/html; charset=utf-8",
		"/docs/style.css":            "text/css; charset=utf-8",
		"/docs/icon.svg":             "image/svg+xml",
		"/docs/errors.json":          "application/json; charset=utf-8",
		"/docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
		"/docs/swagger-ui.css":       "text/css; charset=utf-8",
	} {
		t.Run(path, func(t *testing.T) {
			plain, compressed := fetch(t, a, "GET", path), fetch(t, a, "GET", path, "Accept-Encoding", "br, gzip;q=0.5")
			for name, want := range map[string]string{
				"Content-Type": kind, "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff",
				"Referrer-Policy": "no-referrer", "Cache-Control": "no-cache", "Vary": "Accept-Encoding",
			} {
				if got := compressed.Header.Get(name); got != want || plain.Header.Get(name) != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			reader, err := gzip.NewReader(bytes.NewReader(compressed.Body))
			if err != nil {
				t.Fatal(err)
			}
			decompressed, err := io.ReadAll(reader)
			if err != nil || compressed.Header.Get("Content-Encoding") != "gzip" || plain.Header.Get("Content-Encoding") != "" || !bytes.Equal(decompressed, plain.Body) || len(decompressed) == 0 {
				t.Errorf("compressed it has %d bytes, decompressed %d, want %d (%v)", len(compressed.Body), len(decompressed), len(plain.Body), err)
			}
			if head := fetch(t, a, "HEAD", path, "Accept-Encoding", "gzip"); head.StatusCode() != http.StatusOK || len(head.Body) > 0 || head.Header.Get("Content-Length") != compressed.Header.Get("Content-Length") {
				t.Errorf("HEAD got %d %v", head.StatusCode(), head.Header)
			}
			if again := fetch(t, a, "GET", path, "If-None-Match", compressed.Header.Get("ETag")); again.StatusCode() != http.StatusNotModified || len(again.Body) > 0 {
				t.Errorf("If-None-Match got %d", again.StatusCode())
			}
			servertest.Expect(t, a.Do("POST", path, ""), 0, code.MethodNotAllowed)
		})
	}
	for _, path := range []string{"/docs/nothing", "/docs/docs.go", "/docs/page.html", "/docs/guides", "/docs/guides/nothing", "/docs/guides/tour.md", "/docs/swagger-ui.js", "/docs/%2e%2e/config.go", "/docsx"} {
		servertest.Expect(t, a.Do("GET", path, ""), 0, code.NotFound)
	}
}

func TestDocsHaveNoInlineScriptOrStyle(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	page := string(fetch(t, a, "GET", "/docs").Body)
	for _, inline := range []string{"<script>", "<style", " style=", " onclick=", " onload=", "javascript:", "http://", "https://"} {
		if strings.Contains(page, inline) {
			t.Errorf("the page contains %q", inline)
		}
	}
}

func TestDocsEnabledByModeAndSetting(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		settings []string
		want     code.Code
	}{
		{"dev", nil, ""},
		{"dev, API_DOCS=false", []string{"API_DOCS=false"}, code.NotFound},
		{"stable", []string{"CARACAL_MODE=stable", "HOST=127.0.0.1"}, code.NotFound},
		{"rc", []string{"CARACAL_MODE=rc", "HOST=127.0.0.1"}, code.NotFound},
		{"stable, API_DOCS=true", []string{"CARACAL_MODE=stable", "HOST=127.0.0.1", "API_DOCS=true"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := servertest.New(t, tt.settings...)
			for _, path := range []string{"/docs", "/docs/init.js"} {
				if tt.want == "" {
					servertest.Expect(t, fetch(t, a, "GET", path), http.StatusOK, "")
				} else {
					servertest.Expect(t, a.Do("GET", path, ""), 0, tt.want)
				}
			}
		})
	}
}

// fetch requests a path and returns the body as it was sent, without decompressing it.
func fetch(t *testing.T, a *servertest.API, method, path string, headers ...string) servertest.RawResponse {
	t.Helper()
	return sendRaw(t, a, method, path, "", headers...)
}

// sendRaw sends a request and returns the body as it was sent, without decompressing
// it. It does not validate the response.
func sendRaw(t *testing.T, a *servertest.API, method, path, body string, headers ...string) servertest.RawResponse {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, a.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	received, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return servertest.RawResponse{Response: resp, Body: received}
}
