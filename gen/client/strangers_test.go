package client_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
)

// A stranger answers every request like a server that is not the API.
func stranger(t *testing.T, h http.HandlerFunc, opts ...client.Option) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := client.New(s.URL, token, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// responds returns a handler that sends a response. Headers are pairs of name and
// value.
func responds(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// failure fails the test unless err is an *Error of a response with this status.
func failure(t *testing.T, err error, status int) *client.Error {
	t.Helper()
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Status != status {
		t.Fatalf("got %v, want an error with the status %d", err, status)
	}
	return e
}

// calls has one call of each form of result: an object, a list, an iterator, text
// and nothing. Each fails the test if it returns an error together with a value.
var calls = map[string]func(*testing.T, *client.Client) error{
	"get": func(t *testing.T, c *client.Client) error {
		zone, err := c.GetZone(t.Context(), "z1")
		if err != nil && zone != (client.Zone{}) {
			t.Errorf("returned %+v", zone)
		}
		return err
	},
	"create": func(t *testing.T, c *client.Client) error {
		zone, err := c.CreateZone(t.Context(), client.NewZone{Name: "Production"})
		if err != nil && zone != (client.Zone{}) {
			t.Errorf("returned %+v", zone)
		}
		return err
	},
	"update": func(t *testing.T, c *client.Client) error {
		zone, err := c.UpdateZone(t.Context(), "z1", client.ZonePatch{Name: new("Production")})
		if err != nil && zone != (client.Zone{}) {
			t.Errorf("returned %+v", zone)
		}
		return err
	},
	"delete": func(t *testing.T, c *client.Client) error { return c.DeleteZone(t.Context(), "z1") },
	"list": func(t *testing.T, c *client.Client) error {
		page, err := c.ListZones(t.Context())
		if err != nil && (len(page.Items) > 0 || page.Next != "") {
			t.Errorf("returned %+v", page)
		}
		return err
	},
	"iterator": func(t *testing.T, c *client.Client) error {
		for zone, err := range c.Zones(t.Context()) {
			if err != nil {
				return err
			}
			t.Errorf("yielded %+v", zone)
		}
		return nil
	},
	"text": func(t *testing.T, c *client.Client) error {
		text, err := c.GetMetrics(t.Context())
		if err != nil && text != "" {
			t.Errorf("returned %q", text)
		}
		return err
	},
}

func TestOnlyTheDeclaredResponseIsASuccess(t *testing.T) {
	t.Parallel()
	const page = "<!DOCTYPE html>\n<html><title>Log in</title>\x1b[31m\x00</html>\n"
	for name, h := range map[string]http.HandlerFunc{
		"login page":          responds(200, page, "Content-Type", "text/html; charset=utf-8"),
		"login page, created": responds(201, page, "Content-Type", "text/html"),
		"accepted":            responds(202, zoneJSON, "Content-Type", "application/json"),
		"partial content":     responds(206, zoneJSON, "Content-Type", "application/json"),
		"not modified":        responds(304, "", "Content-Type", "application/json"),
		"transformed":         responds(203, zoneJSON, "Content-Type", "application/json"),
		"error page":          responds(404, page, "Content-Type", "text/html"),
		"gateway":             responds(403, `{"message":"Forbidden"}`, "Content-Type", "application/json"),
		"nested error":        responds(401, `{"error":{"code":401,"message":"log in"}}`, "Content-Type", "application/json"),
		"error in words":      responds(404, `{"status":404,"error":"Not Found"}`, "Content-Type", "application/json"),
		"list of errors":      responds(401, `[{"error":"denied"}]`, "Content-Type", "application/json"),
		"text in JSON":        responds(401, `denied`, "Content-Type", "application/json"),
		"nothing":             responds(401, ``, "Content-Type", "application/json"),
	} {
		for call, do := range calls {
			t.Run(name+"/"+call, func(t *testing.T) {
				t.Parallel()
				c := stranger(t, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Request-Id", "r1")
					h(w, r)
				})
				e, ok := errors.AsType[*client.Error](do(t, c))
				if !ok || e.Code != "" || e.RequestID != "r1" || e.Status < 200 {
					t.Fatalf("got %+v", e)
				}
				if text := e.Error(); !strings.Contains(text, fmt.Sprint(e.Status)) || !strings.Contains(text, e.Operation) {
					t.Errorf("%s does not contain the operation and the status", text)
				}
			})
		}
	}
}

func TestErrorContainsThePrintableBeginningOfAForeignResponse(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ contentType, body, want string }{
		"page":       {"text/html", "<!DOCTYPE html>\r\n\t<title>Log in</title>\n", "<!DOCTYPE html> <title>Log in</title>"},
		"JSON":       {"application/json", `{"message": "No API key found"}`, `{"message": "No API key found"}`},
		"nested":     {"application/json", `{"error":{"code":401}}`, `{"error":{"code":401}}`},
		"broken":     {"application/json", `{"error":`, `{"error":`},
		"terminal":   {"text/plain", "a\x1b]0;title\x07b\x00\u202ec\u200bd", "a ]0;title b c d"},
		"not UTF-8":  {"text/plain", "caf\xe9\xff!", "caf !"},
		"other text": {"text/plain", "überfüllt 満員", "überfüllt 満員"},
		"empty":      {"text/plain", "", ""},
		"long":       {"text/plain", strings.Repeat("é", 5_000), strings.Repeat("é", 256) + "…"},
	} {
		for _, status := range []int{200, 401, 503} {
			t.Run(fmt.Sprint(name, status), func(t *testing.T) {
				t.Parallel()
				c := stranger(t, responds(status, tt.body, "Content-Type", tt.contentType), client.WithoutRetry())
				err := c.DeleteZone(t.Context(), "z1")
				if e := failure(t, err, status); status != 200 && e.Body != tt.want || !strings.HasPrefix(e.Error(), "deleteZone: ") || !strings.Contains(e.Error(), e.Body) {
					t.Errorf("got %q, want %q, in %s", e.Body, tt.want, e)
				}
			})
		}
	}
}

func TestErrorOfTheAPIHasNoBody(t *testing.T) {
	t.Parallel()
	_, _, err := get(t, reply{status: 404, body: `{"error":"zone_not_found","error_description":"Zone not found."}`})
	if e := failure(t, err, 404); e.Body != "" || e.Code != client.CodeZoneNotFound {
		t.Errorf("got %+v", e)
	}
}

func TestErrorOfTheAPIIsReadAlthoughAFieldIsUnexpected(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"description": `{"error":"zone_not_found","error_description":["Zone not found."]}`,
		"request ID":  `{"error":"zone_not_found","requestId":17}`,
		"details":     `{"error":"zone_not_found","details":"none"}`,
		"issues":      `{"error":"zone_not_found","details":{"issues":{"name":"short"}}}`,
		"path":        `{"error":"zone_not_found","details":{"issues":[{"path":"name","message":1},{"path":["a",0,{}],"message":"m"},7]}}`,
	} {
		_, _, err := get(t, reply{status: 404, header: map[string]string{"X-Request-Id": "r1"}, body: body})
		if e := failure(t, err, 404); e.Code != client.CodeZoneNotFound || e.RequestID != "r1" {
			t.Errorf("%s: got %+v", name, e)
		}
	}
	_, _, err := get(t, reply{status: 400, body: `{"error":"invalid_zone","details":{"issues":[{"path":["a",0],"message":"m"}]}}`})
	if e := failure(t, err, 400); len(e.Fields) != 1 || e.Fields[0] != (client.FieldError{Path: "a.0", Message: "m"}) {
		t.Errorf("got %+v", e)
	}
}

func TestInvalidBodyOfASuccessKeepsTheStatusAndTheRequest(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"empty": "", "blank": " \n", "truncated": `{"id":"z1","name":`, "null": "null", "page": "<html>", "foreign": `{"status":"ok"}`,
		"byte order mark": "\ufeff" + zoneJSON, "two values": zoneJSON + zoneJSON, "type": `{"id":1}`,
	} {
		c := stranger(t, responds(200, body, "Content-Type", "application/json", "X-Request-Id", "r1"))
		_, err := c.GetZone(t.Context(), "z1")
		if e := failure(t, err, 200); e.RequestID != "r1" || e.Operation != "getZone" || !strings.Contains(e.Body, strings.TrimSpace(strings.Trim(body, "\ufeff"))[:min(6, len(strings.TrimSpace(body)))]) {
			t.Errorf("%s: got %+v", name, e)
		}
	}
	for name, body := range map[string]string{"no field": `[{}]`, "null": `[{"id":"z1"},null]`, "foreign": `[{"name_of_user":"x"}]`} {
		c := stranger(t, responds(200, body, "Content-Type", "application/json", "X-Request-Id", "r1"))
		page, err := c.ListZones(t.Context())
		if e := failure(t, err, 200); e.RequestID != "r1" || len(page.Items) > 0 {
			t.Errorf("%s: got %+v, %+v", name, page, e)
		}
	}
	c := stranger(t, responds(200, "[]", "Content-Type", "application/json", "X-Request-Id", "r1", "Link", `</v1/zones>; rel="next"`))
	if _, err := c.ListZones(t.Context()); failure(t, err, 200).RequestID != "r1" {
		t.Errorf("got %v", err)
	}
	c = stranger(t, responds(200, "", "Content-Type", "text/plain"))
	if _, err := c.GetMetrics(t.Context()); failure(t, err, 200).Operation != "getMetrics" {
		t.Errorf("got %v", err)
	}
}

func TestInterruptedResponseOfAWriteKeepsTheStatusAndTheCause(t *testing.T) {
	t.Parallel()
	requests := 0
	c := stranger(t, func(w http.ResponseWriter, r *http.Request) {
		requests++
		responds(201, zoneJSON, "Content-Type", "application/json", "Content-Length", "100000", "X-Request-Id", "r1")(w, r)
	})
	_, err := c.CreateZone(t.Context(), client.NewZone{Name: "Production"})
	if e := failure(t, err, 201); !errors.Is(err, io.ErrUnexpectedEOF) || e.RequestID != "r1" || requests != 4 {
		t.Errorf("%v, %d requests", err, requests)
	}
}

func TestNoErrorContainsASecret(t *testing.T) {
	t.Parallel()
	// A server that prints the request, and a response with a new secret that ends early.
	echo := func(contentType string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			responds(404, fmt.Sprintf(`{"message":"nothing here","headers":{"Authorization":[%q]}}`, r.Header.Get("Authorization")), "Content-Type", contentType)(w, r)
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"text":      echo("text/plain"),
		"JSON":      echo("application/json"),
		"truncated": responds(201, `{"id":"a1","client_secret":"`+token, "Content-Type", "application/json"),
		"type":      responds(201, `{"id":1,"client_secret":"`+token+`"}`, "Content-Type", "application/json; charset=utf-8"),
		"status":    responds(200, `{"id":"a1","client_secret":"`+token+`"}`, "Content-Type", "application/json"),
	} {
		const other = "cat_another-token"
		s := httptest.NewServer(h)
		defer s.Close()
		c, err := client.New(s.URL, other)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.CreateApplication(t.Context(), "z1", client.NewApplication{Name: "Billing"})
		if text := fmt.Sprintf("%v %+v", err, err); err == nil || strings.Contains(text, token) || strings.Contains(text, other) {
			t.Errorf("%s: %s", name, text)
		}
		if e, _ := errors.AsType[*client.Error](err); e == nil || strings.Contains(fmt.Sprintf("%+v", *e), token) || strings.Contains(fmt.Sprintf("%+v", *e), other) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestCompressedResponses(t *testing.T) {
	t.Parallel()
	compress := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, text)
		_ = w.Close()
		return b.String()
	}
	bomb := strings.Repeat(compress(strings.Repeat(" ", 1<<20)), 64) + compress(zoneJSON)
	plain := &http.Transport{DisableCompression: true} // does not decode by itself
	for name, transport := range map[string]*http.Transport{"decoding transport": {}, "plain transport": plain} {
		get := func(h http.HandlerFunc) (client.Zone, error) {
			return stranger(t, h, client.WithTransport(transport)).GetZone(t.Context(), "z1")
		}
		for _, encoding := range []string{"gzip", "GZIP", "x-gzip"} {
			if encoding == "x-gzip" && transport != plain {
				continue // of net/http
			}
			zone, err := get(responds(200, compress(zoneJSON), "Content-Type", "application/json", "Content-Encoding", encoding))
			if err != nil || zone.ID != "z1" {
				t.Errorf("%s: %s: %+v, %v", name, encoding, zone, err)
			}
		}
		_, err := get(responds(404, compress(`{"error":"zone_not_found"}`), "Content-Type", "application/json", "Content-Encoding", "gzip"))
		if client.Code(err) != client.CodeZoneNotFound {
			t.Errorf("%s: error: %v", name, err)
		}
		requests := 0
		_, err = get(func(w http.ResponseWriter, r *http.Request) {
			requests++
			responds(200, zoneJSON, "Content-Type", "application/json", "Content-Encoding", "gzip")(w, r)
		})
		if failure(t, err, 200); requests != 1 {
			t.Errorf("%s: not compressed: %v, %d requests", name, err, requests)
		}
		_, err = get(responds(200, "\x0b\x02", "Content-Type", "application/json", "Content-Encoding", "br"))
		if e := failure(t, err, 200); !strings.Contains(e.Error(), `content encoding "br"`) {
			t.Errorf("%s: %v", name, err)
		}
		_, err = get(responds(200, bomb, "Content-Type", "application/json", "Content-Encoding", "gzip"))
		if e := failure(t, err, 200); !strings.Contains(e.Error(), "64 MiB") {
			t.Errorf("%s: decompression bomb: %v", name, err)
		}
	}
}

func TestHugeForeignResponseIsReadOnlyPartly(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"text/html", "application/json"} {
		written := make(chan int, 1)
		c := stranger(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(http.StatusForbidden)
			total := 0
			for n, err := 0, error(nil); err == nil && total < 1<<30; total += n {
				n, err = w.Write(bytes.Repeat([]byte(`{"error":"`), 10_000))
			}
			written <- total
		})
		_, err := c.GetZone(t.Context(), "z1")
		if e := failure(t, err, 403); len(e.Body) > 1000 || len(e.Error()) > 2000 {
			t.Errorf("the error has %d bytes", len(e.Error()))
		}
		if total := <-written; total > 64<<20 {
			t.Errorf("%s: read %d MiB", contentType, total>>20)
		}
	}
}

func TestTextOfAnErrorIsOneBoundedLine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(`many\n\u001b[31m words `, 10_000)
	issue := `{"path":["` + long + `"],"message":"` + long + `"}`
	for name, body := range map[string]string{
		"description": `{"error":"zone_not_found","error_description":"` + long + `"}`,
		"fields":      `{"error":"invalid_zone","details":{"issues":[` + strings.TrimSuffix(strings.Repeat(issue+",", 2), ",") + `]}}`,
		"extra":       `{"error":"invalid_zone","more":"` + long + `"}`,
		"code":        `{"error":"` + strings.Repeat("a", 1000) + `"}`,
	} {
		c := stranger(t, responds(400, body, "Content-Type", "application/json", "X-Request-Id", "r1"))
		_, err := c.GetZone(t.Context(), "z1")
		text := failure(t, err, 400).Error()
		if len(text) > 8_000 || strings.ContainsAny(text, "\n\x1b") || !strings.HasSuffix(text, "(request r1)") {
			t.Errorf("%s: %d bytes: %.200q", name, len(text), text)
		}
	}
}

func TestSwitchingProtocolsIsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	c := stranger(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(io.Discard, rw) // until the client closes the connection
	})
	start := time.Now()
	_, err := c.GetZone(t.Context(), "z1")
	if failure(t, err, 101); time.Since(start) > 10*time.Second {
		t.Errorf("after %v", time.Since(start))
	}
}
