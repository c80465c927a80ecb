package server_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// gzipped returns a text compressed with gzip.
func gzipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text)) // never fails (bytes.Buffer)
	_ = w.Close()
	return b.String()
}

func TestRequestContent(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	a := servertest.New(t, "API_BODY_LIMIT_BYTES=65536")
	const zone = `{"name":"Zürich"}`
	compressed := gzipped(zone)
	padded := zone + strings.Repeat(" ", limit-len(zone))     // as large as allowed
	stored := strings.Repeat("\x00\x00\x00\xff\xff", limit/5) // empty blocks, which decompress to nothing
	for _, tt := range []struct {
		name    string
		body    string
		headers []string
		want    code.Code // "" is 201
		message string    // in details.issues
	}{
		{"UTF-8", zone, []string{"Content-Type", "application/json; charset=UTF-8"}, "", ""},
		{"UTF-8 in quotes", zone, []string{"Content-Type", `Application/JSON;charset="utf-8"`}, "", ""},
		{"UTF-8 by its alias", zone, []string{"Content-Type", "application/json;charset=utf8"}, "", ""},
		{"two content types", zone, []string{"Content-Type", jsonType, "Content-Type", "application/json;charset=iso-8859-1"}, code.UnsupportedMediaType, "Content-Type must be application/json"},
		{"another parameter", zone, []string{"Content-Type", "application/json; profile=x"}, "", ""},
		{"Latin-1", zone, []string{"Content-Type", "application/json; charset=iso-8859-1"}, code.UnsupportedMediaType, "Content-Type must have the charset utf-8, or none"},
		{"UTF-16", zone, []string{"Content-Type", "application/json;charset=utf-16le"}, code.UnsupportedMediaType, "Content-Type must have the charset utf-8, or none"},
		{"empty charset", zone, []string{"Content-Type", `application/json;charset=""`}, code.UnsupportedMediaType, "Content-Type must have the charset utf-8, or none"},
		{"a form", "name=x", []string{"Content-Type", "application/x-www-form-urlencoded"}, code.UnsupportedMediaType, "Content-Type must be application/json"},
		{"byte order mark", "\ufeff" + zone, []string{"Content-Type", jsonType}, code.InvalidJSON, "must not start with a byte order mark (U+FEFF)"},
		{"byte order mark only", "\ufeff", []string{"Content-Type", jsonType}, code.InvalidJSON, "must not start with a byte order mark (U+FEFF)"},
		{"byte order mark of UTF-16", "\xff\xfe{\x00}\x00", []string{"Content-Type", jsonType}, code.InvalidJSON, "must be UTF-8"},

		{"gzip", compressed, []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, "", ""},
		{"GZip", compressed, []string{"Content-Type", jsonType, "Content-Encoding", "GZip"}, "", ""},
		{"x-gzip", compressed, []string{"Content-Type", jsonType, "Content-Encoding", "x-gzip"}, "", ""},
		{"gzip in a list", compressed, []string{"Content-Type", jsonType, "Content-Encoding", "identity, gzip"}, "", ""},
		{"gzip in several parts", gzipped(zone[:7]) + gzipped(zone[7:]), []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, "", ""},
		{"identity", zone, []string{"Content-Type", jsonType, "Content-Encoding", "Identity"}, "", ""},
		{"gzip up to the limit", gzipped(padded), []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, "", ""},
		{"gzip above the limit", gzipped(padded + " "), []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, code.PayloadTooLarge, ""},
		{"gzip of 100 MB", gzipped(strings.Repeat(" ", 100e6)), []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, code.PayloadTooLarge, ""},
		{"gzip of nothing, above the limit", compressed[:10] + stored + stored, []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, code.PayloadTooLarge, ""},
		{"gzip of a byte order mark", gzipped("\ufeff" + zone), []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, code.InvalidJSON, "must not start with a byte order mark (U+FEFF)"},
		{"not compressed", zone, []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, code.InvalidJSON, "must be compressed with gzip, as Content-Encoding says"},
		{"empty, not compressed", "", []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, code.InvalidJSON, "must be compressed with gzip, as Content-Encoding says"},
		{"truncated gzip", compressed[:len(compressed)-1], []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, code.InvalidJSON, "must be compressed with gzip, as Content-Encoding says"},
		{"garbage after gzip", compressed + "x", []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, code.InvalidJSON, "must be compressed with gzip, as Content-Encoding says"},
		{"wrong checksum", compressed[:len(compressed)-8] + "\x00\x00\x00\x00" + compressed[len(compressed)-4:], []string{"Content-Type", jsonType, "Content-Encoding", "gzip"}, code.InvalidJSON, "must be compressed with gzip, as Content-Encoding says"},
		{"gzip twice", gzipped(compressed), []string{"Content-Type", jsonType, "Content-Encoding", "gzip, gzip"}, code.UnsupportedMediaType, "Content-Encoding must be gzip only once"},
		{"Brotli", compressed, []string{"Content-Type", jsonType, "Content-Encoding", "BR"}, code.UnsupportedMediaType, "Content-Encoding must be gzip, or absent, not br"},
		{"deflate, then gzip", compressed, []string{"Content-Type", jsonType, "Content-Encoding", "deflate", "Content-Encoding", "gzip"}, code.UnsupportedMediaType, "Content-Encoding must be gzip, or absent, not deflate"},
		{"unknown coding", compressed, []string{"Content-Type", jsonType, "Content-Encoding", "s3cret"}, code.UnsupportedMediaType, "Content-Encoding must be gzip, or absent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := a.Do("POST", "/v1/zones", tt.body, append(bearer(servertest.Bootstrap), tt.headers...)...)
			servertest.Expect(t, raw, http.StatusCreated, tt.want)
			if tt.want == "" {
				if decode[struct{ Name string }](t, raw).Name != "Zürich" {
					t.Errorf("got %s", raw.Body)
				}
				return
			}
			var message string
			if details := decode[rawclient.Problem](t, raw).Details; details != nil {
				for _, issue := range details.Issues {
					message = strings.TrimSpace(strings.Join(issue.Path, ".") + " " + issue.Message)
				}
			}
			if message != tt.message {
				t.Errorf("the issue is %q, want %q", message, tt.message)
			}
			if tt.want == code.UnsupportedMediaType && raw.Header.Get("Accept-Encoding") != "gzip" {
				t.Errorf("Accept-Encoding is %q", raw.Header.Get("Accept-Encoding"))
			}
		})
	}
}

// A number that is too large for an integer of any size is still too large.
func TestListZonesLimitOutsideTheRange(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for limit, want := range map[string]string{
		"501": "must be at most 500", "9223372036854775807": "must be at most 500", "9223372036854775808": "must be at most 500",
		"99999999999999999999999999": "must be at most 500", "0": "must be at least 1", "-9223372036854775809": "must be at least 1",
		"1.5": "must be an integer", "x": "must be an integer", "9223372036854775808x": "must be an integer",
	} {
		raw := a.Do("GET", "/v1/zones?limit="+limit, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, 0, code.InvalidQuery)
		if got := decode[rawclient.Problem](t, raw).Details.Issues[0]; got.Message != want || strings.Join(got.Path, ".") != "limit" {
			t.Errorf("limit=%s: got %v %q, want %q", limit, got.Path, got.Message, want)
		}
	}
}

// What has a meaning in HTML is returned as it is, in JSON that no browser takes for HTML.
func TestResponsesAreNotEscapedForHTML(t *testing.T) {
	t.Parallel()
	const name = `<script>alert("&")</script>`
	const encoded = `"<script>alert(\"&\")</script>"`
	a := servertest.New(t)
	created, err := a.Admin.CreateZoneWithResponse(t.Context(), client.NewZone{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	zone := created.JSON201.ID
	for path, want := range map[string]string{
		"/v1/zones/" + zone: encoded, "/v1/zones": encoded,
		"/v1/zones/" + zone + "/sessions?limit=%3Cb%3E": `"error":"invalid_query"`, "/%3Cb%3E&": `"error":"not_found"`,
	} {
		raw := a.Do("GET", path, "", append(bearer(servertest.Bootstrap), "Accept", "text/html")...)
		if raw.Header.Get("Content-Type") != "application/json; charset=utf-8" || raw.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s has the headers %v", path, raw.Header)
		}
		if body := string(raw.Body); !strings.Contains(body, want) || strings.Contains(body, `\u00`) {
			t.Errorf("%s returned %s", path, body)
		}
	}
}
