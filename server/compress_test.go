package server_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
)

// gunzip returns the body of a compressed response. It fails the test if the response
// is not compressed.
func gunzip(t *testing.T, raw servertest.RawResponse) string {
	t.Helper()
	if raw.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("got %d %v, want a compressed response", raw.StatusCode(), raw.Header)
	}
	r, err := gzip.NewReader(bytes.NewReader(raw.Body))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// newLargePolicy creates a policy of more than 1 KiB and returns its ID.
func newLargePolicy(t *testing.T, a *servertest.API, zone string) string {
	t.Helper()
	created := createPolicy(t, a.Admin, zone, client.NewPolicy{Name: "Large", Content: documentOf(strings.Repeat("text ", 300))})
	servertest.Expect(t, created, http.StatusCreated, "")
	return created.JSON201.ID
}

func TestLargeResponsesAreCompressed(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	ids := populate(t, a, zone, strings.Repeat("text ", 20))
	policy := newLargePolicy(t, a, zone)
	for _, tt := range []struct {
		path       string
		compressed bool
	}{
		{"/v1/zones/" + zone + "/resources", true},
		{"/v1/zones/" + zone + "/policies/" + policy, true}, // with an ETag
		{"/openapi.json", true},
		{"/openapi.yaml", true},
		{"/metrics", true},
		{"/v1/zones/" + zone, false},
		{"/v1/zones/" + zone + "/applications/" + ids["applications"], false},
		{"/health", false},
	} {
		t.Run(tt.path, func(t *testing.T) {
			with := bearer(servertest.Bootstrap)
			plain := fetch(t, a, "GET", tt.path, with...)
			got := fetch(t, a, "GET", tt.path, append(with, "Accept-Encoding", "br, gzip;q=0.9")...)
			head := fetch(t, a, "HEAD", tt.path, append(with, "Accept-Encoding", "br, gzip;q=0.9")...)
			body := string(got.Body)
			if tt.compressed {
				body = gunzip(t, got)
			} else if encoding := got.Header.Get("Content-Encoding"); encoding != "" {
				t.Errorf("the content encoding of %d bytes is %q", len(plain.Body), encoding)
			}
			if tt.path != "/metrics" && body != string(plain.Body) {
				t.Errorf("got %d bytes, want %d", len(body), len(plain.Body))
			}
			if plain.Header.Get("Content-Encoding") != "" {
				t.Error("the response to a request without Accept-Encoding is compressed")
			}
			if len(head.Body) > 0 {
				t.Errorf("the response to HEAD has %d bytes", len(head.Body))
			}
			for _, name := range []string{"Content-Type", "Etag", "Cache-Control", "Vary"} {
				if got.Header.Get(name) != plain.Header.Get(name) || head.Header.Get(name) != plain.Header.Get(name) {
					t.Errorf("%s is %q, of HEAD %q, without compression %q", name, got.Header.Get(name), head.Header.Get(name), plain.Header.Get(name))
				}
			}
			if head.Header.Get("Content-Encoding") != got.Header.Get("Content-Encoding") {
				t.Errorf("Content-Encoding of HEAD is %q", head.Header.Get("Content-Encoding"))
			}
			if vary := strings.Join(plain.Header.Values("Vary"), ", "); !strings.Contains(vary, "Accept-Encoding") || strings.HasPrefix(tt.path, "/v1/") != strings.Contains(vary, "Authorization") {
				t.Errorf("Vary is %q", vary)
			}
		})
	}
}

func TestCompressedResponseHasUsableETag(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	large := newLargePolicy(t, a, zone)
	got := fetch(t, a, "GET", "/v1/zones/"+zone+"/policies/"+large, append(bearer(servertest.Bootstrap), "Accept-Encoding", "gzip")...)
	gunzip(t, got)
	raw := a.Do("DELETE", "/v1/zones/"+zone+"/policies/"+large, "", append(bearer(servertest.Bootstrap), "If-Match", got.Header.Get("ETag"))...)
	servertest.Expect(t, raw, http.StatusNoContent, "")
}

func TestLargeErrorsAreCompressed(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	body := `{"name":"x"`
	for n := range 50 {
		body += `,"unknown_field_` + strings.Repeat("x", n) + `":1`
	}
	raw := sendRaw(t, a, "POST", "/v1/zones", body+"}", append(bearer(servertest.Bootstrap), "Content-Type", jsonType, "Accept-Encoding", "gzip")...)
	if text := gunzip(t, raw); raw.StatusCode() != http.StatusBadRequest || !strings.Contains(text, string(code.InvalidZone)) {
		t.Errorf("got %d %s", raw.StatusCode(), text)
	}
}

// The length of a compressed response says something about its content, which must
// not be possible for a secret. Responses with status 201 are never compressed (see
// package coding), so no other response may contain a generated secret. The exceptions
// return the token that the request has, and no client secret.
func TestOnlyCreatedResponsesContainGeneratedSecrets(t *testing.T) {
	t.Parallel()
	returned := 0
	for _, op := range servertest.Operations() {
		for status, response := range op.Responses.Map() {
			media := response.Value.Content.Get(jsonType)
			if media == nil || status >= "300" {
				continue
			}
			names := fieldNames(media.Schema.Value)
			if !names["token"] && !names["client_secret"] {
				continue
			}
			returned++
			if status != "201" && op.OperationID != "getRegisteredClient" && op.OperationID != "updateRegisteredClient" {
				t.Errorf("%s returns a secret with status %s", op.OperationID, status)
			}
		}
	}
	if returned < 3 {
		t.Errorf("%d operations return a secret, want at least those that create tokens and applications", returned)
	}
}

// fieldNames returns the names of the fields of an object or of the items of an array.
func fieldNames(s *openapi3.Schema) map[string]bool {
	names := map[string]bool{}
	for _, name := range slices.Collect(maps.Keys(s.Properties)) {
		names[name] = true
	}
	for _, part := range s.AllOf {
		maps.Copy(names, fieldNames(part.Value))
	}
	if s.Items != nil {
		maps.Copy(names, fieldNames(s.Items.Value))
	}
	return names
}
