package client_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
)

func TestNewRejectsInvalidArguments(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		url, token string
		opt        client.Option
		want       string
	}{
		"empty":                 {url: "", want: "base URL is empty"},
		"no scheme":             {url: "caracal.example.com", want: "must begin with http:// or https://"},
		"host and port":         {url: "localhost:3000", want: "must begin with http:// or https://"},
		"address and port":      {url: "127.0.0.1:3000", want: "must begin with http:// or https://"},
		"no slashes":            {url: "https:caracal.example.com", want: "must begin with http:// or https://"},
		"another scheme":        {url: "ftp://caracal.example.com", want: "must begin with http:// or https://"},
		"no host":               {url: "https://", want: "contain a host"},
		"port only":             {url: "https://:3000", want: "contain a host"},
		"port too large":        {url: "https://caracal.example.com:65536", want: "invalid port"},
		"port 0":                {url: "https://caracal.example.com:0", want: "invalid port"},
		"port in words":         {url: "https://caracal.example.com:http", want: "valid"},
		"malformed":             {url: "https://%zz", want: "valid"},
		"space in the host":     {url: "https://caracal example.com", want: "valid"},
		"space after":           {url: "https://caracal.example.com ", want: "valid"},
		"space before":          {url: " https://caracal.example.com", want: "must begin"},
		"line after":            {url: "https://caracal.example.com\n", want: `com\n" must be valid`},
		"user information":      {url: "https://user:hunter2@caracal.example.com", want: "user information"},
		"token as user":         {url: "https://hunter2@caracal.example.com", want: "user information"},
		"malformed with user":   {url: "https://user:hunter2@%zz", want: "user information"},
		"query":                 {url: "https://caracal.example.com?token=hunter2", want: "query"},
		"empty query":           {url: "https://caracal.example.com?", want: "query"},
		"fragment":              {url: "https://caracal.example.com#hunter2", want: "fragment"},
		"token with a line":     {url: "https://caracal.example.com", token: "hunter2\n", want: "at byte 8 of 8"},
		"token with CR":         {url: "https://caracal.example.com", token: "hunter2\r", want: "token"},
		"token with a header":   {url: "https://caracal.example.com", token: "hunter2\r\nX-Admin: 1", want: "token"},
		"token with a space":    {url: "https://caracal.example.com", token: "hunter2 ", want: "token"},
		"token after a tab":     {url: "https://caracal.example.com", token: "\thunter2", want: "at byte 1 of 8"},
		"token with NUL":        {url: "https://caracal.example.com", token: "hunter2\x00", want: "token"},
		"token with DEL":        {url: "https://caracal.example.com", token: "hunter2\x7f", want: "token"},
		"token with zero width": {url: "https://caracal.example.com", token: "hunter2\u200b", want: "token"},
		"token not UTF-8":       {url: "https://caracal.example.com", token: "hunter2\xff", want: "token"},
		"token of a header":     {url: "https://caracal.example.com", token: "Bearer hunter2", want: `must not begin with "Bearer "`},
		"nil option":            {url: "https://caracal.example.com", want: "option 0 is nil"},
		"user agent":            {url: "https://caracal.example.com", opt: client.WithUserAgent("a\r\nb"), want: "WithUserAgent"},
		"nil HTTP client":       {url: "https://caracal.example.com", opt: client.WithHTTPClient(nil), want: "WithHTTPClient"},
		"nil transport":         {url: "https://caracal.example.com", opt: client.WithTransport(nil), want: "WithTransport"},
		"negative timeout":      {url: "https://caracal.example.com", opt: client.WithTimeout(-1), want: "WithTimeout"},
		"negative retries":      {url: "https://caracal.example.com", opt: client.WithRetry(-1, 0), want: "WithRetry"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var opts []client.Option
			switch {
			case name == "nil option":
				opts = []client.Option{nil}
			case tt.opt != nil:
				opts = []client.Option{tt.opt}
			}
			_, err := client.New(tt.url, tt.token, opts...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error about %s", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error contains the secret: %v", err)
			}
		})
	}
}

func TestRequestHasTokenBodyAndDefaultHeaders(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{{status: 201, body: zoneJSON}}}
	zone, err := newClient(t, f).CreateZone(t.Context(), client.NewZone{Name: "Production"})
	if err != nil || zone.ID != "z1" || zone.CreatedAt.Year() != 2026 {
		t.Fatalf("got %+v, %v", zone, err)
	}
	r := f.last()
	if r.Method != http.MethodPost || r.URL.String() != "https://caracal.example.com/v1/zones" || f.bodies[0] != `{"name":"Production"}` {
		t.Errorf("sent %s %s %s", r.Method, r.URL, f.bodies[0])
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer " + token, "Content-Type": "application/json", "Accept": "application/json", "User-Agent": "caracal-go/devel",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestPublicOperationSendsNoToken(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{{status: 200, body: `{"ok":true}`}}}
	if health, err := newClient(t, f).GetHealth(t.Context()); err != nil || !health.OK || f.last().Header.Get("Authorization") != "" {
		t.Errorf("%+v, %v, sent %q", health, err, f.last().Header)
	}
	f = &fake{replies: []reply{{status: 200, header: map[string]string{"Content-Type": "text/plain; version=0.0.4"}, body: "up 1\n"}}}
	text, err := newClient(t, f).GetMetrics(t.Context(), client.Header("Authorization", "Bearer metrics"))
	if err != nil || text != "up 1\n" || f.last().Header.Get("Authorization") != "Bearer metrics" {
		t.Errorf("%q, %v, sent %q", text, err, f.last().Header)
	}
}

func TestBaseURLCanHaveAPath(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{
		"https://example.com":                 "https://example.com/v1/zones/z1",
		"https://example.com/":                "https://example.com/v1/zones/z1",
		"HTTPS://example.com:8443":            "https://example.com:8443/v1/zones/z1",
		"http://[::1]:3000":                   "http://[::1]:3000/v1/zones/z1",
		"https://example.com/caracal":         "https://example.com/caracal/v1/zones/z1",
		"https://example.com/caracal///":      "https://example.com/caracal/v1/zones/z1",
		"https://example.com/a%2Fb/c%20d/%C3": "https://example.com/a%2Fb/c%20d/%C3/v1/zones/z1",
	} {
		f := &fake{replies: []reply{{status: 200, body: zoneJSON}, page(`</caracal/v1/zones?cursor=p2>; rel="next"`, "a"), page("", "b")}}
		c, err := client.New(base, token, client.WithTransport(f))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.GetZone(t.Context(), "z1"); err != nil || f.last().URL.String() != want {
			t.Errorf("%v, sent %s", err, f.last().URL)
		}
		for _, err := range c.Zones(t.Context()) {
			if err != nil {
				t.Error(err)
			}
		}
		if got := f.last().URL.String(); got != strings.TrimSuffix(want, "/z1")+"?cursor=p2" {
			t.Errorf("the second page is %s", got)
		}
	}
}

func TestPathParametersCannotAddressAnotherPath(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{{status: 204}}}
	c := newClient(t, f)
	if err := c.DeleteApplication(t.Context(), "a/../b?c#d%", "x{id}"); err != nil {
		t.Fatal(err)
	}
	if got, want := f.last().URL.EscapedPath(), "/v1/zones/a%2F..%2Fb%3Fc%23d%25/applications/x%7Bid%7D"; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	for _, invalid := range []string{"", ".", ".."} {
		err := c.DeleteZone(t.Context(), invalid)
		if err == nil || !strings.Contains(err.Error(), "deleteZone: zoneId: must not be") {
			t.Errorf("%q: %v", invalid, err)
		}
	}
	if len(f.requests) != 1 {
		t.Errorf("sent %d requests, want 1", len(f.requests))
	}
}

func TestCallOptions(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{{status: 200, header: map[string]string{"ETag": `"3"`}, body: zoneJSON}}}
	c := newClient(t, f, client.WithUserAgent("example/1.0"))
	etag := "old"
	if _, err := c.GetZone(t.Context(), "z1", client.ReadETag(&etag)); err != nil || etag != `"3"` {
		t.Fatalf("%v, ETag %q", err, etag)
	}
	if _, err := c.UpdateZone(t.Context(), "z1", client.ZonePatch{}, client.IfMatch(etag), client.RequestID("r1"), client.Header("Accept", "application/problem+json")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"If-Match": `"3"`, "X-Request-Id": "r1", "Accept": "application/problem+json", "User-Agent": "example/1.0"} {
		if got := f.last().Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	f.replies = []reply{{status: 412, header: map[string]string{"ETag": `"9"`}, body: `{"error":"version_conflict"}`}}
	_, err := c.UpdateZone(t.Context(), "z1", client.ZonePatch{}, client.IfMatch(etag), client.ReadETag(&etag))
	if client.Code(err) != client.CodeVersionConflict || etag != "" {
		t.Errorf("%v, ETag %q", err, etag)
	}
	sent := len(f.requests)
	if err := c.DeleteZone(t.Context(), "z1", client.IfMatch("")); err == nil || len(f.requests) != sent {
		t.Errorf("a write with an empty ETag: %v, %d requests", err, len(f.requests)-sent)
	}
}

func TestTokenIsNotPrinted(t *testing.T) {
	t.Parallel()
	network := errors.New("network down")
	f := &fake{replies: []reply{{err: network}}}
	c := newClient(t, f, client.WithoutRetry())
	_, err := c.GetZone(t.Context(), "z1")
	if !errors.Is(err, network) {
		t.Fatalf("got %v", err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("client", "client", c, "value", *c, "error", err)
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("client", "client", c, "value", *c, "error", err)
	texts := []string{logged.String()}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
		texts = append(texts, fmt.Sprintf(format, c), fmt.Sprintf(format, *c), fmt.Sprintf(format, err))
	}
	for _, text := range texts {
		if strings.Contains(text, token) {
			t.Errorf("the token is in %s", text)
		}
	}
	if !strings.Contains(fmt.Sprint(c), "https://caracal.example.com") {
		t.Errorf("printed as %v", c)
	}
}

func TestOptionsDoNotChangeTheGivenHTTPClient(t *testing.T) {
	t.Parallel()
	hc := &http.Client{Timeout: time.Second}
	f := &fake{replies: []reply{{status: 200, body: zoneJSON}}}
	withClient, withTransport := client.WithHTTPClient(hc), client.WithTransport(f)
	for _, opts := range [][]client.Option{{withClient, withTransport}, {withTransport, withClient}} {
		c, err := client.New("https://caracal.example.com", token, opts...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.GetZone(t.Context(), "z1"); err != nil {
			t.Fatal(err)
		}
	}
	if hc.Transport != nil || hc.CheckRedirect != nil || len(f.requests) != 2 {
		t.Errorf("the HTTP client is now %+v, after %d requests", hc, len(f.requests))
	}
}

func TestNullableFieldIsOmittedNullOrSet(t *testing.T) {
	t.Parallel()
	for want, patch := range map[string]client.ResourcePatch{
		`{}`:                                {},
		`{"upstream_url":null}`:             {UpstreamURL: client.Null[string]()},
		`{"upstream_url":"https://a.test"}`: {UpstreamURL: client.Set("https://a.test")},
		`{"credential_provider_id":"","name":"x"}`: {CredentialProviderID: client.Set(""), Name: new("x")},
	} {
		got, err := json.Marshal(patch)
		if err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
		var back client.ResourcePatch
		if err := json.Unmarshal(got, &back); err != nil || back.UpstreamURL != patch.UpstreamURL || back.CredentialProviderID != patch.CredentialProviderID {
			t.Errorf("%s becomes %+v, %v", got, back, err)
		}
	}
	if v, ok := client.Set("x").Get(); !ok || v != "x" {
		t.Errorf("Get: %q, %t", v, ok)
	}
	if _, ok := client.Null[string]().Get(); ok || !client.Null[string]().IsNull() {
		t.Error("null has a value")
	}
}

func TestUnionFieldAcceptsEachType(t *testing.T) {
	t.Parallel()
	for want, config := range map[string]client.ProviderConfigInput{
		`{"kind":"none"}`:                                       nil,
		`{"config_json":{},"kind":"none"}`:                      client.NoProviderConfig{},
		`{"config_json":{"header_name":"X-Key"},"kind":"none"}`: client.APIKeyProviderConfig{HeaderName: new("X-Key")},
		`{"config_json":{"bearer_token":"x"},"kind":"none"}`:    &client.BearerTokenProviderConfig{BearerToken: new("x")},
		`{"config_json":{"anything":["at all"]},"kind":"none"}`: client.RawJSON(`{"anything": ["at all"]}`),
	} {
		got, err := json.Marshal(client.NewProvider{Kind: client.ProviderKindNone, ConfigJSON: config})
		if err != nil || string(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
	if _, err := json.Marshal(client.NewProvider{ConfigJSON: client.RawJSON(`{`)}); err == nil {
		t.Error("invalid JSON is accepted")
	}
}

func TestTextThatIsNotUTF8IsNotSent(t *testing.T) {
	t.Parallel()
	const invalid = "hunter2\xff"
	f := &fake{replies: []reply{{status: 200, body: zoneJSON}}}
	c := newClient(t, f)
	for want, call := range map[string]func() error{
		"name": func() error {
			_, err := c.CreateZone(t.Context(), client.NewZone{Name: invalid})
			return err
		},
		"client_secret": func() error {
			_, err := c.UpdateApplication(t.Context(), "z1", "a1", client.ApplicationPatch{ClientSecret: new(invalid)})
			return err
		},
		"operations.1.path": func() error {
			_, err := c.CreateResource(t.Context(), "z1", client.NewResource{Operations: []client.NewResourceOperation{{}, {Path: invalid}}})
			return err
		},
		"upstream_url": func() error {
			_, err := c.UpdateResource(t.Context(), "z1", "r1", client.ResourcePatch{UpstreamURL: client.Set(invalid)})
			return err
		},
		"config_json.api_key": func() error {
			_, err := c.CreateProvider(t.Context(), "z1", client.NewProvider{ConfigJSON: client.APIKeyProviderConfig{APIKey: new(invalid)}})
			return err
		},
		"config_json": func() error {
			_, err := c.CreateProvider(t.Context(), "z1", client.NewProvider{ConfigJSON: client.RawJSON(`{"api_key":"` + invalid + `"}`)})
			return err
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), ": "+want+": is not valid UTF-8") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", want, err)
		}
	}
	if len(f.requests) > 0 {
		t.Errorf("sent %q", f.bodies)
	}
	if _, err := c.UpdateZone(t.Context(), "z1", client.ZonePatch{Name: new("Prod\ufffd 満員 \x00")}); err != nil || f.bodies[0] != "{\"name\":\"Prod\ufffd 満員 \\u0000\"}" {
		t.Errorf("%v, sent %q", err, f.bodies)
	}
}
