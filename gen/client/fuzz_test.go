package client_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"caracal.run/management/gen/client"
)

// FuzzResponse checks that no response makes a call panic or succeed wrongly, and
// that every error of it keeps the status and is a bounded printable line without the
// token.
func FuzzResponse(f *testing.F) {
	for _, body := range []string{
		"", zoneJSON, "[" + zoneJSON + "]", "{}", "null", "[null]", `"x"`, "<html>Log in</html>", "\x1f\x8b\x08", "Bearer " + token,
		`{"error":"invalid_zone","error_description":"The zone is invalid.","requestId":"r1","details":{"issues":[{"path":["a",0],"message":"m"}]}}`,
		`{"error":"invalid_rego","issues":[{"row":1,"column":2,"message":"m"}],"detail":{"a":[1,2]}}`,
		`{"error":{"code":401}}`, `{"error":"Not Found","path":"/v1"}`, `{"error":"a","details":{"issues":[1,{"path":"a"},{"path":[{}],"message":2}]}}`,
	} {
		for _, status := range []int{200, 201, 204, 302, 400, 429, 503} {
			f.Add(status, "application/json", "", "5", `</v1/zones?cursor=x>; rel="next"`, "r1", body)
		}
		f.Add(200, "text/html; charset=utf-8", "gzip", "Sat, 01 Jan 2000 01:00:00 GMT", "", "", body)
		f.Add(404, "application/problem+json", "br", "99999999999999999999", "<", "\x1b", body)
		f.Add(200, "application/json", "", "", "</v1/"+token+`>; rel="next"`, token, "["+body+"]")
		f.Add(302, "text/"+token, "", "", "https://"+token+".example.com", "", body)
	}
	f.Fuzz(func(t *testing.T, status int, contentType, encoding, retryAfter, link, requestID, body string) {
		if status < 100 || status > 999 {
			return // net/http returns no such status
		}
		header := map[string]string{"Content-Type": contentType, "Content-Encoding": encoding, "Retry-After": retryAfter, "Link": link, "X-Request-Id": requestID, "Location": link}
		// "text" is of a public operation, which sends no token.
		declared := map[string]int{"get": 200, "create": 201, "update": 200, "delete": 204, "list": 200, "text": 200}
		for name, success := range declared {
			c, err := client.New("https://caracal.example.com", token, client.WithoutRetry(),
				client.WithTransport(&fake{replies: []reply{{status: status, header: header, body: body}}}))
			if err != nil {
				t.Fatal(err)
			}
			if err = calls[name](t, c); err == nil {
				if status != success || name != "delete" && strings.TrimSpace(body) == "" {
					t.Errorf("%s: %d with the body %q is a success", name, status, body)
				}
				continue
			}
			e, ok := errors.AsType[*client.Error](err)
			if !ok || e.Status != status || e.RetryAfter < 0 || e.RetryAfter > 1<<30*time.Second || !utf8.ValidString(e.Body) {
				t.Fatalf("%s: got %+v", name, err)
			}
			text := err.Error()
			if len(text) > 6_000 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%s: %d bytes: %q", name, len(text), text)
			}
			if name != "text" && strings.Contains(fmt.Sprintf("%s %+v", text, *e), token) {
				t.Errorf("%s: the token is in %+v", name, e)
			}
		}
	})
}
