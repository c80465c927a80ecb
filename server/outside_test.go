package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestUnroutedRequests(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		method, path, token string
		want                code.Code
		allow               string
	}{
		{"GET", "/", "", code.NotFound, ""},
		{"GET", "/nothing", "", code.NotFound, ""},
		{"GET", "/v1", "", code.InvalidAdminToken, ""},
		{"GET", "/v1/nothing", "", code.InvalidAdminToken, ""},
		{"GET", "/v1/nothing", servertest.Bootstrap, code.NotFound, ""},
		{"GET", "/v1/zones/", servertest.Bootstrap, code.NotFound, ""},
		{"GET", "/v1/zones/x/nothing", "", code.InvalidAdminToken, ""},
		{"GET", "/v1/zones/x/nothing", servertest.Bootstrap, code.NotFound, ""},
		{"OPTIONS", "/v1/zones", "", code.InvalidAdminToken, ""},
		{"OPTIONS", "/v1/nothing", servertest.Bootstrap, code.NotFound, ""},
		{"GET", "/V1/zones", servertest.Bootstrap, code.NotFound, ""},
		{"GET", "/v1//zones", servertest.Bootstrap, code.NotFound, ""},
		{"PUT", "/v1/zones", "", code.InvalidAdminToken, ""},
		{"PUT", "/v1/zones", servertest.Bootstrap, code.MethodNotAllowed, "GET, HEAD, POST"},
		{"OPTIONS", "/v1/zones", servertest.Bootstrap, code.MethodNotAllowed, "GET, HEAD, POST"},
		{"TRACE", "/health", "", code.MethodNotAllowed, "GET, HEAD"},
		{"WHATEVER", "/health", "", code.MethodNotAllowed, "GET, HEAD"},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			var headers []string
			if tt.token != "" {
				headers = bearer(tt.token)
			}
			raw := a.Do(tt.method, tt.path, "", headers...)
			servertest.Expect(t, raw, 0, tt.want)
			for method := range strings.SplitSeq(tt.allow, ", ") {
				if !strings.Contains(raw.Header.Get("Allow"), method) {
					t.Errorf("Allow is %q, want %q", raw.Header.Get("Allow"), tt.allow)
				}
			}
		})
	}
}

// The response to a request that net/http rejects has the same body as other errors.
func TestMalformedHTTPGetsUniformErrors(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		name, request string
		want          code.Code
	}{
		{"invalid percent-encoding", "GET /v1/zones/%zz HTTP/1.1\r\nHost: x\r\n\r\n", code.InvalidRequest},
		{"truncated percent-encoding", "GET /v1/zones/a% HTTP/1.1\r\nHost: x\r\n\r\n", code.InvalidRequest},
		{"no host", "GET /health HTTP/1.1\r\n\r\n", code.InvalidRequest},
		{"two hosts", "GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", code.InvalidRequest},
		{"a header with a NUL", "GET /health HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", code.InvalidRequest},
		{"huge headers", "GET /health HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", code.HeaderTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(a.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go func() { _, _ = io.WriteString(conn, tt.request) }() // the server may close before it has read all
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var problem rawclient.Problem
			if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil {
				t.Fatal(err)
			}
			if problem.Error != string(tt.want) || resp.StatusCode != code.Table[tt.want].Status || problem.RequestID != resp.Header.Get("X-Request-Id") {
				t.Errorf("got %d %+v", resp.StatusCode, problem)
			}
		})
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		sent     []string
		accepted bool
	}{
		{[]string{"abc.DEF:1-2_3"}, true},
		{[]string{strings.Repeat("x", 128)}, true},
		{[]string{strings.Repeat("x", 129)}, false},
		{[]string{"a b"}, false},
		{[]string{""}, false},
		{[]string{"a", "b"}, false},
	} {
		t.Run(fmt.Sprint(tt.sent), func(t *testing.T) {
			var headers []string
			for _, id := range tt.sent {
				headers = append(headers, "X-Request-Id", id)
			}
			raw := a.Do("GET", "/v1/zones", "", headers...)
			got := raw.Header.Get("X-Request-Id")
			if (got == tt.sent[0]) != tt.accepted || got == "" {
				t.Errorf("sent %q, got %q", tt.sent, got)
			}
			if problem := decode[rawclient.Problem](t, raw); problem.RequestID != got {
				t.Errorf("the request ID is %q in the body, %q in the header", problem.RequestID, got)
			}
		})
	}
}

func TestProblemJSON(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	raw := a.Do("POST", "/v1/zones", `{"name":"","dcr_enabled":1}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType, "Accept", "application/json;q=0.5, application/problem+json")...)
	servertest.Expect(t, raw, 0, code.InvalidZone)
	if kind := raw.Header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("the content type is %q", kind)
	}
	problem := decode[struct {
		Type, Title string
		Status      int
	}](t, raw)
	if problem.Type != "urn:caracal:problem:invalid_zone" || problem.Status != 400 || problem.Title == "" {
		t.Errorf("got %s", raw.Body)
	}
}

// In JSON Schema, 60.0 and 6e1 are integers too.
func TestCreateAdminTokenIntegerNotations(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	with := append(bearer(servertest.Bootstrap), "Content-Type", jsonType)
	for number, want := range map[string]code.Code{
		"60": "", "60.0": "", "6e1": "", "0.6e2": "", "60.5": code.InvalidAdminTokenRequest, "1e400": code.InvalidAdminTokenRequest, "1e30": code.InvalidAdminTokenRequest,
	} {
		raw := a.Do("POST", "/v1/admin-tokens", `{"name":"x","scope":"global","expires_in":`+number+`}`, with...)
		if got := decode[rawclient.Problem](t, raw).Error; got != string(want) || raw.StatusCode() >= 500 {
			t.Errorf("%s: got %d %s", number, raw.StatusCode(), raw.Body)
		}
	}
}

func TestUpdateZoneIfMatchInSeveralHeaders(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone()
	with := append(bearer(servertest.Bootstrap), "Content-Type", jsonType)
	raw := a.Do("PATCH", "/v1/zones/"+zone.ID, `{"name":"x"}`, append(with, "If-Match", `"7"`, "If-Match", `"1"`)...)
	servertest.Expect(t, raw, http.StatusOK, "")
	raw = a.Do("PATCH", "/v1/zones/"+zone.ID, `{"name":"x"}`, append(with, "If-Match", `"7"`, "If-Match", `"1"`)...)
	servertest.Expect(t, raw, 0, code.VersionConflict)
}

// Behind a proxy, rate limits count the address that the proxy saw, not one that the
// client sent.
func TestForwardedForUsesTheLastHop(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "TRUST_PROXY=true", "ADMIN_AUTH_FAIL_LIMIT_PER_MIN=3")
	n := 0
	until(t, 20, code.RateLimited, func() servertest.RawResponse {
		n++
		return a.Do("GET", "/v1/zones", "", "X-Forwarded-For", fmt.Sprintf("10.9.9.%d, 10.0.0.5", n))
	})
	servertest.Expect(t, a.Do("GET", "/v1/zones", "", "X-Forwarded-For", "10.0.0.5, 10.0.0.6"), 0, code.InvalidAdminToken)
	// IPv6 addresses are counted by network, because a client has many of them.
	until(t, 20, code.RateLimited, func() servertest.RawResponse {
		n++
		return a.Do("GET", "/v1/zones", "", "X-Forwarded-For", fmt.Sprintf("2001:db8::%x", n))
	})
}

func TestValidationErrorsNameTheField(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	raw := a.Do("POST", "/v1/zones", `{"name":"","slug":"Not A Slug","dcr_enabled":"yes","color":"red"}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
	servertest.Expect(t, raw, 0, code.InvalidZone)
	problem := decode[rawclient.Problem](t, raw)
	got := map[string]string{}
	for _, issue := range problem.Details.Issues {
		got[strings.Join(issue.Path, ".")] = issue.Message
	}
	for _, field := range []string{"name", "slug", "dcr_enabled", "color"} {
		if got[field] == "" {
			t.Errorf("%q is not reported in %s", field, raw.Body)
		}
		if strings.Contains(got[field], "Not A Slug") || strings.Contains(got[field], "red") {
			t.Errorf("the error of %q repeats the sent value: %s", field, got[field])
		}
	}
}
