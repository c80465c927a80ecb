package authserver

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"
)

// Hostile returns responses that a client must survive, by name: for
// [Options.Responses]. Those that a client should accept are among them.
func Hostile() map[string]Respond {
	all := map[string]Respond{}
	for name, body := range bodies {
		all[name] = jsonBody(http.StatusOK, body)
	}
	for name, body := range errorBodies {
		all[name] = jsonBody(http.StatusBadRequest, body)
	}
	for _, status := range []int{201, 204, 301, 302, 307, 308, 401, 404, 429, 500, 503} {
		all[fmt.Sprintf("status %d", status)] = withStatus(status)
	}
	maps.Copy(all, transports)
	return all
}

// bodies are bodies with status 200. ACCESS and REFRESH stand for the tokens.
var bodies = map[string]string{
	"expires_in string":           `{"access_token":"ACCESS","expires_in":"3600"}`,
	"expires_in fraction":         `{"access_token":"ACCESS","expires_in":3599.9}`,
	"expires_in exponent":         `{"access_token":"ACCESS","expires_in":3.6e3}`,
	"expires_in below one":        `{"access_token":"ACCESS","expires_in":0.5}`,
	"expires_in zero":             `{"access_token":"ACCESS","expires_in":0}`,
	"expires_in negative":         `{"access_token":"ACCESS","expires_in":-1}`,
	"expires_in absurd":           `{"access_token":"ACCESS","expires_in":99999999999999999999}`,
	"expires_in infinite":         `{"access_token":"ACCESS","expires_in":1e400}`,
	"expires_in minus infinite":   `{"access_token":"ACCESS","expires_in":-1e400}`,
	"expires_in absurd string":    `{"access_token":"ACCESS","expires_in":"99999999999999999999"}`,
	"expires_in negative string":  `{"access_token":"ACCESS","expires_in":"-1"}`,
	"expires_in text":             `{"access_token":"ACCESS","expires_in":"in an hour"}`,
	"expires_in hexadecimal":      `{"access_token":"ACCESS","expires_in":"0x10"}`,
	"expires_in empty":            `{"access_token":"ACCESS","expires_in":""}`,
	"expires_in null":             `{"access_token":"ACCESS","expires_in":null}`,
	"expires_in boolean":          `{"access_token":"ACCESS","expires_in":true}`,
	"expires_in list":             `{"access_token":"ACCESS","expires_in":[3600]}`,
	"no token type":               `{"access_token":"ACCESS","refresh_token":"REFRESH","expires_in":3600}`,
	"unknown token type":          `{"access_token":"ACCESS","token_type":["mac"]}`,
	"no refresh token":            `{"access_token":"ACCESS","token_type":"Bearer"}`,
	"empty refresh token":         `{"access_token":"ACCESS","refresh_token":""}`,
	"refresh token number":        `{"access_token":"ACCESS","refresh_token":1}`,
	"refresh token with a NUL":    `{"access_token":"ACCESS","refresh_token":"a\u0000b"}`,
	"byte order mark":             "\uFEFF" + `{"access_token":"ACCESS"}`,
	"white space":                 "\r\n\t " + `{ "access_token" : "ACCESS" }` + "\n",
	"unknown fields":              `{"access_token":"ACCESS","ok":true,"user":{"access_token":"other"},"":null}`,
	"JSON null":                   `null`,
	"JSON list":                   `[{"access_token":"ACCESS"}]`,
	"JSON string":                 `"ACCESS"`,
	"JSON number":                 `1`,
	"no body":                     ``,
	"no JSON":                     `access_token=ACCESS`,
	"truncated JSON":              `{"access_token":"ACCESS"`,
	"two JSON objects":            `{"access_token":"ACCESS"}{"access_token":"other"}`,
	"JSON with a trailing comma":  `{"access_token":"ACCESS",}`,
	"deeply nested JSON":          `{"access_token":"ACCESS","x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`,
	"repeated access token":       `{"access_token":"ACCESS","access_token":"other"}`,
	"escaped repetition":          `{"access_token":"ACCESS","access\u005ftoken":"other"}`,
	"repeated expires_in":         `{"access_token":"ACCESS","expires_in":1,"expires_in":3600}`,
	"other case":                  `{"ACCESS_TOKEN":"ACCESS","Access_Token":"ACCESS"}`,
	"no access token":             `{"token_type":"Bearer","refresh_token":"REFRESH"}`,
	"empty access token":          `{"access_token":""}`,
	"access token null":           `{"access_token":null}`,
	"access token number":         `{"access_token":42}`,
	"access token object":         `{"access_token":{"value":"ACCESS"}}`,
	"access token with a newline": `{"access_token":"ACCESS\r\nX-Injected: 1"}`,
	"access token not ASCII":      `{"access_token":"ACCESSé"}`,
	"access token half a pair":    `{"access_token":"ACCESS\ud800"}`,
	"invalid UTF-8":               "{\"access_token\":\"ACCESS\xff\"}",
	"error with status 200":       `{"error":"bad_verification_code","error_description":"The code passed is incorrect or expired."}`,
	"error and access token":      `{"access_token":"ACCESS","error":"slow_down"}`,
}

// errorBodies are bodies with status 400. CODE, VERIFIER and AUTHORIZATION stand for
// what the request contained.
var errorBodies = map[string]string{
	"error invalid_request":        `{"error":"invalid_request"}`,
	"error invalid_client":         `{"error":"invalid_client","error_description":"Unknown client."}`,
	"error invalid_grant":          `{"error":"invalid_grant","error_description":"The code has expired","error_uri":"https://auth.example.com/errors"}`,
	"error unauthorized_client":    `{"error":"unauthorized_client"}`,
	"error unsupported_grant_type": `{"error":"unsupported_grant_type"}`,
	"error invalid_scope":          `{"error":"invalid_scope"}`,
	"error of another shape":       `{"error":{"code":"invalid_grant"}}`,
	"error with control bytes":     `{"error":"invalid_grant","error_description":"line\r\n\u001b[31mred\u202e"}`,
	"error with HTML":              `{"error":"invalid_grant","error_description":"<script>alert(1)</script>"}`,
	"error with a long text":       `{"error":"invalid_grant","error_description":"` + strings.Repeat("long ", 2000) + `"}`,
	"error with a long code":       `{"error":"` + strings.Repeat("e", 2000) + `"}`,
	"error that quotes the code":   `{"error":"invalid_grant","error_description":"CODE is not known"}`,
	"error with a part of it":      `{"error":"invalid_grant","error_description":"verifier PART*** is not known"}`,
	"error that ends in the code":  `{"error":"invalid_grant","error_description":"` + strings.Repeat("-", 192) + `CODE"}`,
	"error with a late code":       `{"error":"invalid_grant","error_description":"` + strings.Repeat("-", 60_000) + `CODE"}`,
	"error that is the code":       `{"error":"CODE"}`,
	"error that quotes a header":   `{"error":"invalid_client","error_description":"cannot parse AUTHORIZATION"}`,
	"error that is no JSON":        `<h1>Bad Request</h1>`,
}

// transports are responses that are wrong in another way than by their body.
var transports = map[string]Respond{
	"content type text": func(w http.ResponseWriter, r *http.Request, t Tokens) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `{"access_token":%q}`, t.Access)
	},
	"no content type": func(w http.ResponseWriter, r *http.Request, t Tokens) {
		w.Header()["Content-Type"] = nil
		_, _ = fmt.Fprintf(w, `{"access_token":%q}`, t.Access)
	},
	"HTML page": func(w http.ResponseWriter, r *http.Request, t Tokens) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>Sign in</title>")
	},
	"largest body": func(w http.ResponseWriter, r *http.Request, t Tokens) { writeSize(w, t, 64<<10) },
	"huge body":    func(w http.ResponseWriter, r *http.Request, t Tokens) { writeSize(w, t, 64<<10+1) },
	"endless body": func(w http.ResponseWriter, r *http.Request, t Tokens) {
		for {
			if _, err := io.WriteString(w, strings.Repeat(" ", 1<<10)); err != nil {
				return
			}
		}
	},
	"compressed body": func(w http.ResponseWriter, r *http.Request, t Tokens) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		var body bytes.Buffer
		z := gzip.NewWriter(&body)
		_, _ = fmt.Fprintf(z, `{"access_token":%q}`, t.Access)
		_ = z.Close()
		_, _ = w.Write(body.Bytes())
	},
	"huge header": func(w http.ResponseWriter, r *http.Request, t Tokens) {
		w.Header().Set("X-Padding", strings.Repeat("x", 32<<10))
		_, _ = fmt.Fprintf(w, `{"access_token":%q}`, t.Access)
	},
	"closed early":   raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
	"no response":    raw(""),
	"no HTTP":        raw("220 smtp.example.com ESMTP\r\n"),
	"two lengths":    raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
	"slow body":      drip("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"),
	"slow header":    drip("HTTP/1.1 200 OK\r\nX-Slow: "),
	"never responds": func(w http.ResponseWriter, r *http.Request, t Tokens) { <-r.Context().Done() },
}

// jsonBody responds with a body in which the capitalized words are replaced.
func jsonBody(status int, body string) Respond {
	return func(w http.ResponseWriter, r *http.Request, t Tokens) {
		words := strings.NewReplacer("ACCESS_TOKEN", "ACCESS_TOKEN", "ACCESS", t.Access, "REFRESH", t.Refresh,
			"CODE", t.form.Get("code"), "PART", t.form.Get("code_verifier")[:12], "AUTHORIZATION", r.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = words.WriteString(w, body)
	}
}

// withStatus responds with valid tokens and a status that no token response has, and
// with a location, which must not be followed.
func withStatus(status int) Respond {
	return func(w http.ResponseWriter, r *http.Request, t Tokens) {
		w.Header().Set("Location", "/token")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"access_token":%q}`, t.Access)
	}
}

// writeSize writes a valid response of a size.
func writeSize(w http.ResponseWriter, t Tokens, size int) {
	body := fmt.Sprintf(`{"access_token":%q}`, t.Access)
	_, _ = io.WriteString(w, body+strings.Repeat(" ", size-len(body)))
}

// raw writes a text instead of a response, and closes the connection.
func raw(text string) Respond { return hijack(text, func(io.Writer) {}) }

// drip writes the beginning of a response, then a byte from time to time until the
// client gives up.
func drip(begin string) Respond {
	return hijack(begin, func(w io.Writer) {
		for {
			if _, err := io.WriteString(w, "x"); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
}

func hijack(begin string, then func(io.Writer)) Respond {
	return func(w http.ResponseWriter, _ *http.Request, _ Tokens) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, begin)
		then(conn)
	}
}
