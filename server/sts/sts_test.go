package sts_test

import (
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"caracal.run/management/server/sts"
)

func testKey(t *testing.T) []byte {
	t.Helper()
	key, err := hex.DecodeString("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// The example of policy-evaluation.md §8.2.
func TestSignMatchesContract(t *testing.T) {
	t.Parallel()
	const want = "4d0e4beae4b35675d1cd334bf46e5fc48c55c70a66ce9a39612572d3668d8287"
	got := sts.Sign(testKey(t), "1782000000", "0198c0de-0000-7000-8000-000000000003", "POST", "/internal/policy/simulate", []byte("{}"))
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// respond returns a handler with a constant response.
func respond(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    sts.Status
		detail  string // of an error; a prefix if it ends with …
	}{
		{"loaded", respond(200, `{"zone_id":"z","loaded":true,"policy_set_version_id":"v","manifest_sha256":"m","loaded_at":"2026-07-01T12:00:00Z","age_seconds":12.9,"other":[]}`),
			sts.Status{Loaded: true, ZoneID: new("z"), PolicySetVersionID: new("v"), ManifestSHA256: new("m"), LoadedAt: new("2026-07-01T12:00:00Z"), AgeSeconds: new(int64(12))}, ""},
		{"not loaded", respond(200, `{"zone_id":"z","loaded":false}`), sts.Status{ZoneID: new("z")}, ""},
		{"other types", respond(200, `{"zone_id":7,"loaded":"true","policy_set_version_id":null,"manifest_sha256":{},"loaded_at":1,"age_seconds":"1"}`), sts.Status{}, ""},
		{"age too large", respond(200, `{"loaded":true,"age_seconds":1e300}`), sts.Status{Loaded: true}, ""},
		{"not JSON", respond(200, "<html>"), sts.Status{}, "invalid STS response: invalid character…"},
		{"not an object", respond(200, "[]"), sts.Status{}, "invalid STS response: json…"},
		{"null", respond(200, "null"), sts.Status{}, "invalid STS response: not an object"},
		{"empty", respond(204, ""), sts.Status{}, "invalid STS response: …"},
		{"too large", respond(200, `{"x":"`+strings.Repeat("x", 64<<10)+`"}`), sts.Status{}, "invalid STS response: larger than 65536 bytes"},
		{"detail", respond(500, `{"detail":"a","error_description":"b","error":"c"}`), sts.Status{}, "a"},
		{"description", respond(422, `{"detail":"","error_description":"b","error":"c"}`), sts.Status{}, "b"},
		{"error", respond(401, `{"error":"access_denied"}`), sts.Status{}, "access_denied"},
		{"status", respond(503, `{"detail":7}`), sts.Status{}, "503"},
		{"not JSON with status 502", respond(502, "Bad Gateway"), sts.Status{}, "invalid STS response: invalid character…"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(tt.handler)
			defer server.Close()
			got, err := sts.New(server.URL, testKey(t), 0).Status(t.Context(), "z")
			if tt.detail == "" {
				if err != nil || !reflect.DeepEqual(got, tt.want) {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			e, ok := errors.AsType[*sts.Error](err)
			if !ok || e.Unreachable || e.Detail != tt.detail && (!strings.HasSuffix(tt.detail, "…") || !strings.HasPrefix(e.Detail, strings.TrimSuffix(tt.detail, "…"))) {
				t.Errorf("got %+v, %v, want %s", got, err, tt.detail)
			}
		})
	}
}

func TestStatusIsSigned(t *testing.T) {
	t.Parallel()
	requests := make(chan *http.Request, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.Clone(t.Context())
		_, _ = io.WriteString(w, "{}")
	}))
	defer server.Close()
	client := sts.New(server.URL+"/base/", testKey(t), 0)
	seen := map[string]bool{}
	for range 2 {
		if _, err := client.Status(t.Context(), "z:1/%"); err != nil {
			t.Fatal(err)
		}
		r := <-requests
		const path = "/base/internal/policy/status/z:1%2F%25"
		id, timestamp := r.Header.Get("X-Caracal-Gateway-Request"), r.Header.Get("X-Caracal-Gateway-Timestamp")
		if r.Method != "GET" || r.URL.EscapedPath() != path || r.Header.Get("X-Caracal-Gateway-Signature") != sts.Sign(testKey(t), timestamp, id, "GET", path, nil) {
			t.Errorf("got %s %s with %v", r.Method, r.URL.EscapedPath(), r.Header)
		}
		if parsed, err := uuid.Parse(id); err != nil || parsed.Version() != 7 || seen[id] {
			t.Errorf("the request ID is %s", id)
		}
		seen[id] = true
	}
}

func TestStatusUnreachable(t *testing.T) {
	t.Parallel()
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer slow.Close()
	drips := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"loaded":`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer drips.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, url, detail string }{
		{"connection refused", refused, "connection refused"},
		{"slow", slow.URL, "no response within 50ms"},
		{"slow body", drips.URL, "no response within 50ms"},
		{"unknown host", "http://sts.invalid", "the host cannot be resolved"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			timeout := 50 * time.Millisecond
			if tt.name == "unknown host" {
				timeout = time.Second
			}
			start := time.Now()
			_, err := sts.New(tt.url, testKey(t), timeout).Status(t.Context(), "z")
			e, ok := errors.AsType[*sts.Error](err)
			if !ok || !e.Unreachable || e.Detail != tt.detail || e.Cause == nil || time.Since(start) > 4*time.Second {
				t.Errorf("got %v after %v, want %s", err, time.Since(start), tt.detail)
			}
		})
	}
}

func TestStatusDoesNotFollowRedirects(t *testing.T) {
	t.Parallel()
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer target.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", target.URL)
		w.WriteHeader(http.StatusTemporaryRedirect)
		_, _ = io.WriteString(w, "{}")
	}))
	defer server.Close()
	_, err := sts.New(server.URL, testKey(t), 0).Status(t.Context(), "z")
	if e, ok := errors.AsType[*sts.Error](err); !ok || e.Unreachable || e.Detail != "307" {
		t.Errorf("got %v", err)
	}
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for text, valid := range map[string]bool{
		"http://localhost:8080": true, "https://sts.example.com/base": true, "": false, "localhost:8080": false, "ftp://x": false, "http://": false,
		"http://user@x": false, "http://x?a=b": false, "http://x#a": false, "http://%zz": false,
	} {
		if err := sts.CheckURL(text); (err == nil) != valid {
			t.Errorf("%q: %v", text, err)
		}
	}
}
