package client_test

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"caracal.run/management/gen/client"
)

const exported = "id,status\r\ns-2,active\r\ns-1,\"a\r\nb\"\r\n"

// exportServer serves an export with a trailer.
func exportServer(t *testing.T, handle http.HandlerFunc, opts ...client.Option) *client.Client {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	c, err := client.New(server.URL, token, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func writeExport(w http.ResponseWriter, body, trailer string) {
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Trailer", "X-Export-Rows, X-Export-SHA256")
	_, _ = io.WriteString(w, body)
	if trailer != "" {
		w.Header().Set("X-Export-Rows", "2")
		w.Header().Set("X-Export-SHA256", trailer)
	}
}

func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestExport(t *testing.T) {
	t.Parallel()
	var query atomic.Value
	c := exportServer(t, func(w http.ResponseWriter, r *http.Request) {
		query.Store(r.URL.RawQuery + " " + r.Header.Get("Accept"))
		writeExport(w, exported, sumOf(exported))
	})
	export, err := c.ExportSessions(t.Context(), "z1", client.ListFormatCSV, client.ListSessionsParams{Status: client.SessionStatusActive})
	if err != nil {
		t.Fatal(err)
	}
	if export.Rows() != 0 {
		t.Errorf("before the end it has %d rows", export.Rows())
	}
	text, err := io.ReadAll(export)
	if err != nil || string(text) != exported || export.Rows() != 2 {
		t.Errorf("got %q, %d rows, %v", text, export.Rows(), err)
	}
	if got := query.Load(); got != "format=csv&status=active text/csv" {
		t.Errorf("the request was %q", got)
	}
	if n, err := export.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
	if err := export.Close(); err != nil {
		t.Error(err)
	}
}

// An export that is not complete and unchanged ends with an error other than io.EOF.
func TestExportProvesThatItIsComplete(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		handle http.HandlerFunc
		want   error // nil: any
	}{
		"another body": {func(w http.ResponseWriter, _ *http.Request) { writeExport(w, exported, sumOf("another")) }, nil},
		"no trailer":   {func(w http.ResponseWriter, _ *http.Request) { writeExport(w, exported, "") }, client.ErrNoTrailer},
		"interrupted": {func(w http.ResponseWriter, _ *http.Request) {
			writeExport(w, strings.Repeat(exported, 1000), "")
			panic(http.ErrAbortHandler)
		}, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			export, err := exportServer(t, tt.handle).ExportSessions(t.Context(), "z1", client.ListFormatCSV)
			if err != nil {
				t.Fatal(err)
			}
			defer export.Close()
			_, err = io.Copy(io.Discard, export)
			var e *client.Error
			if !errors.As(err, &e) || e.Operation != "listSessions" || tt.want != nil && !errors.Is(err, tt.want) || export.Rows() != 0 {
				t.Errorf("got %v and %d rows", err, export.Rows())
			}
		})
	}
}

// A transport that does not decompress is no different.
func TestExportIsDecompressed(t *testing.T) {
	t.Parallel()
	for _, transport := range []*http.Transport{{}, {DisableCompression: true}} {
		defer transport.CloseIdleConnections()
		c := exportServer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			var b strings.Builder
			z := gzip.NewWriter(&b)
			_, _ = io.WriteString(z, exported)
			_ = z.Close()
			writeExport(w, b.String(), sumOf(exported))
		}, client.WithTransport(transport))
		export, err := c.ExportSessions(t.Context(), "z1", client.ListFormatCSV)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(export); err != nil || string(text) != exported || export.Rows() != 2 {
			t.Errorf("got %q, %d rows, %v", text, export.Rows(), err)
		}
		_ = export.Close()
	}
}

func TestExportErrors(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	c := exportServer(t, func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) == 1 {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = fmt.Fprint(w, `{"error":"too_many_exports","error_description":"x","requestId":"r"}`)
			return
		}
		writeExport(w, exported, sumOf(exported))
	})
	export, err := c.ExportSessions(t.Context(), "z1", client.ListFormatCSV) // retried
	if err != nil || requests.Load() != 2 {
		t.Fatalf("after %d requests: %v", requests.Load(), err)
	}
	_ = export.Close()
	if _, err := export.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("after Close: %v", err)
	}
	requests.Store(0)
	c = exportServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprint(w, `{"error":"not_found","error_description":"x","requestId":"r"}`)
	})
	if _, err := c.ExportAgentSessions(t.Context(), "z1", client.ListFormatNDJSON); client.Code(err) != client.CodeNotFound {
		t.Errorf("got %v", err)
	}
	c = exportServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	if _, err := c.ExportSessions(t.Context(), "z1", client.ListFormatCSV); err == nil || !strings.Contains(err.Error(), "instead of text/csv") {
		t.Errorf("got %v", err)
	}
	if _, err := c.ExportSessions(t.Context(), "z1", client.ListFormatJSON); err == nil || !strings.Contains(err.Error(), "csv or ndjson") {
		t.Errorf("got %v", err)
	}
	if _, err := c.ExportSessions(t.Context(), "z1", client.ListFormatCSV, client.ListAgentSessionsParams{Label: "x"}); err == nil {
		t.Error("it took the filters of another list")
	}
}

// A slowBody waits an hour before each part.
type slowBody struct {
	ctx  context.Context
	body io.Reader
}

func (b slowBody) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Hour):
		return b.body.Read(p)
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}

func (slowBody) Close() error { return nil }

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The client's timeout limits the time until an export begins; the context, all of it.
func TestExportTimeout(t *testing.T) {
	t.Parallel()
	open := func(ctx context.Context, f transport) (*client.Export, error) {
		c, err := client.New("https://caracal.example.com", token, client.WithTransport(f))
		if err != nil {
			t.Fatal(err)
		}
		return c.ExportSessions(ctx, "z1", client.ListFormatCSV)
	}
	slow := func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: 200, Request: r, Header: http.Header{"Content-Type": {"text/csv"}}, Body: slowBody{r.Context(), strings.NewReader(exported)},
			Trailer: http.Header{"X-Export-Rows": {"2"}, "X-Export-Sha256": {sumOf(exported)}},
		}, nil
	}
	synctest.Test(t, func(t *testing.T) {
		_, err := open(t.Context(), func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an export that does not begin: %v", err)
		}
		for _, tt := range []struct {
			limit time.Duration // of the context
			want  error
		}{{3 * time.Hour, nil}, {90 * time.Minute, context.DeadlineExceeded}} {
			ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
			defer cancel()
			export, err := open(ctx, slow)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, export); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			_ = export.Close()
		}
	})
}
