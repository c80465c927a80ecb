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
		"/docs/style.css":            "text/css; charset=utf-8",
		"/docs/icon.svg":             "image/svg+xml",
		"/docs/errors.json":          "application/json; charset=utf-8",
		"/docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
		"/docs/swagger-ui.css":       "text/css; charset=utf-8",
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			plain, packed := fetch(t, a, "GET", path), fetch(t, a, "GET", path, "Accept-Encoding", "br, gzip;q=0.5")
			for name, want := range map[string]string{
				"Content-Type": kind, "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff",
				"Referrer-Policy": "no-referrer", "Cache-Control": "no-cache", "Vary": "Accept-Encoding",
			} {
				if got := packed.Header.Get(name); got != want || plain.Header.Get(name) != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			unpacking, err := gzip.NewReader(bytes.NewReader(packed.Body))
			if err != nil {
				t.Fatal(err)
			}
			unpacked, err := io.ReadAll(unpacking)
			if err != nil || packed.Header.Get("Content-Encoding") != "gzip" || plain.Header.Get("Content-Encoding") != "" || !bytes.Equal(unpacked, plain.Body) || len(unpacked) == 0 {
				t.Errorf("packed it has %d bytes, which unpack to %d of %d (%v)", len(packed.Body), len(unpacked), len(plain.Body), err)
			}
			if head := fetch(t, a, "HEAD", path, "Accept-Encoding", "gzip"); head.StatusCode() != http.StatusOK || len(head.Body) > 0 || head.Header.Get("Content-Length") != packed.Header.Get("Content-Length") {
				t.Errorf("HEAD answered %d %v", head.StatusCode(), head.Header)
			}
			if again := fetch(t, a, "GET", path, "If-None-Match", packed.Header.Get("ETag")); again.StatusCode() != http.StatusNotModified || len(again.Body) > 0 {
				t.Errorf("what is known already was answered %d", again.StatusCode())
			}
			servertest.Expect(t, a.Do("POST", path, ""), 0, code.MethodNotAllowed)
		})
	}
	for _, path := range []string{"/docs/nothing", "/docs/docs.go", "/docs/page.html", "/docs/swagger-ui.js", "/docs/%2e%2e/config.go", "/docsx"} {
		servertest.Expect(t, a.Do("GET", path, ""), 0, code.NotFound)
	}
}

func TestDocsHaveNoInlineScriptOrStyle(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	page := string(fetch(t, a, "GET", "/docs").Body)
	for _, inline := range []string{"<script>", "<style", " style=", " onclick=", " onload=", "javascript:", "http://", "https://"} {
		if strings.Contains(page, inline) {
			t.Errorf("the page has %q in it", inline)
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
		{"dev, off", []string{"API_DOCS=false"}, code.NotFound},
		{"stable", []string{"CARACAL_MODE=stable", "HOST=127.0.0.1"}, code.NotFound},
		{"rc", []string{"CARACAL_MODE=rc", "HOST=127.0.0.1"}, code.NotFound},
		{"stable, on", []string{"CARACAL_MODE=stable", "HOST=127.0.0.1", "API_DOCS=true"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
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

// fetch asks for what is no part of the spec, and as it travels: nothing is
// unpacked on the way.
func fetch(t *testing.T, a *servertest.API, method, path string, headers ...string) servertest.RawResponse {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, a.URL+path, nil)
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
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return servertest.RawResponse{Response: resp, Body: body}
}
