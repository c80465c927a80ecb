package coding_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"caracal.run/management/server/coding"
)

func TestAcceptsGzip(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		header []string
		want   bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{"gzip"}, true},
		{[]string{"GZIP"}, true},
		{[]string{"x-gzip"}, true},
		{[]string{"br, gzip"}, true},
		{[]string{"br", "deflate, gzip"}, true},
		{[]string{"gzip;q=0.001"}, true},
		{[]string{" gzip ; q=1.0 "}, true},
		{[]string{"gzip;Q=0.5"}, true},
		{[]string{"gzip;q=0"}, false},
		{[]string{"gzip;q=0.000"}, false},
		{[]string{"gzip; q=0, *"}, false},
		{[]string{"*"}, true},
		{[]string{"*;q=0"}, false},
		{[]string{"*;q=0, gzip"}, true},
		{[]string{"br, *;q=0.1"}, true},
		{[]string{"identity"}, false},
		{[]string{"identity, gzip;q=0.5"}, false},
		{[]string{"identity;q=0.5, gzip"}, true},
		{[]string{"identity, gzip"}, true},
		{[]string{"identity;q=0, *;q=0"}, false},
		{[]string{"gzipped"}, false},
		{[]string{"br"}, false},
		{[]string{"gzip;q=x"}, false},
		{[]string{"gzip;q="}, false},
		{[]string{"gzip;q=-1"}, false},
		{[]string{"gzip;q=2"}, false},
		{[]string{"gzip;q=NaN"}, false},
		{[]string{"gzip;level=9"}, false},
	} {
		if got := coding.AcceptsGzip(http.Header{"Accept-Encoding": tt.header}); got != tt.want {
			t.Errorf("%q: got %v", tt.header, got)
		}
	}
}

// get returns the response of a handler behind [coding.Handler], and its body
// without content coding.
func get(t *testing.T, method string, handle http.HandlerFunc) (*http.Response, string) {
	t.Helper()
	server := httptest.NewServer(coding.Handler(handle))
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "gzip") // so that the transport does not decompress the response
	transport := &http.Transport{}
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
	if resp.Header.Get("Content-Encoding") != "gzip" || len(body) == 0 {
		return resp, string(body)
	}
	decompressed, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(decompressed)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestHandler(t *testing.T) {
	t.Parallel()
	small, large := strings.Repeat("s", coding.MinSize), strings.Repeat("large", coding.MinSize)
	write := func(status int, parts ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if status != 0 {
				w.WriteHeader(status)
			}
			for _, part := range parts {
				if n, err := io.WriteString(w, part); n != len(part) || err != nil {
					t.Errorf("wrote %d of %d bytes: %v", n, len(part), err)
				}
			}
		}
	}
	flushAfter := func(first, rest string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, first)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(w, rest)
		}
	}
	for _, tt := range []struct {
		name       string
		handle     http.HandlerFunc
		status     int
		body       string
		compressed bool
	}{
		{"nothing", write(0), 200, "", false},
		{"a status only", write(404), 404, "", false},
		{"no content", write(204), 204, "", false},
		{"not modified", write(304), 304, "", false},
		{"small", write(200, "x"), 200, "x", false},
		{"of the minimum size", write(0, small), 200, small, false},
		{"one byte more", write(0, small+"x"), 200, small + "x", true},
		{"one byte more, in parts", write(0, small, "x"), 200, small + "x", true},
		{"large", write(200, large), 200, large, true},
		{"many parts", write(200, strings.Split(strings.Repeat("part.", 1000), ".")...), 200, strings.Repeat("part", 1000), true},
		{"an error", write(422, large), 422, large, true},
		{"created", write(201, large), 201, large, false},
		{"not to be transformed", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "no-store, no-transform")
			_, _ = io.WriteString(w, large)
		}, 200, large, false},
		{"flushed while small", flushAfter("x", large), 200, "x" + large, false},
		{"flushed before the body", flushAfter("", large), 200, large, false},
		{"flushed when large", flushAfter(large, "x"), 200, large + "x", true},
		{"a second status", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(404)
			w.WriteHeader(500)
			_, _ = io.WriteString(w, large)
		}, 404, large, true},
		{"after early hints", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, large)
		}, 200, large, true},
		{"with a length", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5120")
			_, _ = io.WriteString(w, large)
		}, 200, large, true},
		{"encoded already", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, large)
		}, 200, large, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, body := get(t, "GET", tt.handle)
			if compressed := resp.Header.Get("Content-Encoding") == "gzip"; resp.StatusCode != tt.status || compressed != tt.compressed || body != tt.body {
				t.Errorf("got %d, %d bytes, compressed: %v, want %d, %d, %v", resp.StatusCode, len(body), compressed, tt.status, len(tt.body), tt.compressed)
			}
			head, body := get(t, "HEAD", tt.handle)
			if body != "" || head.StatusCode != resp.StatusCode || head.Header.Get("Content-Encoding") != resp.Header.Get("Content-Encoding") {
				t.Errorf("HEAD got %d %v, GET %v", head.StatusCode, head.Header, resp.Header)
			}
			if length := head.Header.Get("Content-Length"); length != "" && length != resp.Header.Get("Content-Length") {
				t.Errorf("HEAD got length %s, GET %s", length, resp.Header.Get("Content-Length"))
			}
		})
	}
}

// A flush delivers what was written, so that a client of a stream need not wait.
func TestHandlerFlushDelivers(t *testing.T) {
	t.Parallel()
	received := make(chan bool)
	server := httptest.NewServer(coding.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("first", coding.MinSize))
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		select {
		case <-received:
		case <-r.Context().Done():
			t.Error("the client did not receive the first part")
		}
	})))
	defer server.Close()
	resp, err := server.Client().Get(server.URL) // accepts gzip, and decompresses
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 5*coding.MinSize)); err != nil {
		t.Fatal(err)
	}
	received <- true
	if n, err := io.Copy(io.Discard, resp.Body); n != 0 || err != nil {
		t.Errorf("then got %d bytes, %v", n, err)
	}
}

// A failed connection is reported, and does not affect the next response.
func TestHandlerReportsErrors(t *testing.T) {
	t.Parallel()
	handler := coding.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte("x"), 2*coding.MinSize))
		if err := http.NewResponseController(w).Flush(); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v", err)
		}
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	for range 2 {
		handler.ServeHTTP(brokenWriter{}, r)
	}
}

type brokenWriter struct{}

func (brokenWriter) Header() http.Header       { return http.Header{} }
func (brokenWriter) WriteHeader(int)           {}
func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
