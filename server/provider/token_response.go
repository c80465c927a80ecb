package provider

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"caracal.run/management/server/secret"
)

// Tokens are the tokens that an authorization server issued. They print as [set].
type Tokens struct {
	AccessToken  secret.String
	RefreshToken secret.String  // zero if there is none
	ExpiresIn    *time.Duration // lifetime of the access token; nil if it is unknown
}

// maxLifetime bounds the lifetime of an access token: 2³¹−1 seconds, about 68 years.
// A later date is beyond what many programs can represent.
const maxLifetime = math.MaxInt32 * time.Second

// parseTokens parses a successful response (RFC 6749, section 5.1). It is tolerant where
// services differ: any content type, no token_type, expires_in as a number or a string.
// It is strict where two readers could understand the response differently, such as a
// repeated field, or where a token could not be sent in a header.
func parseTokens(body []byte, sent []string) (Tokens, error) {
	invalid := func(detail string) (Tokens, error) {
		return Tokens{}, &ExchangeError{Kind: ResponseInvalid, Detail: detail}
	}
	fields, ok := jsonObject(body)
	if !ok {
		return invalid("The response of the token endpoint is not a JSON object without repeated fields.")
	}
	access, ok := jsonText(fields["access_token"])
	if !ok {
		return invalid("The response of the token endpoint contains no access token" + errorResponse(body, sent) + ".")
	}
	refresh, _ := jsonText(fields["refresh_token"])
	if !isToken(access) || !isToken(refresh) {
		return invalid("A token in the response of the token endpoint contains characters that no token may have.")
	}
	return Tokens{AccessToken: secret.New(access), RefreshToken: secret.New(refresh), ExpiresIn: lifetime(fields["expires_in"])}, nil
}

// jsonObject decodes an object of JSON in UTF-8, with names that are compared exactly.
// It returns false if it is not one, or if a name occurs twice.
func jsonObject(body []byte) (map[string]json.RawMessage, bool) {
	body = bytes.TrimPrefix(body, []byte("\uFEFF")) // which RFC 8259, section 8.1, lets a reader ignore
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if open, _ := decoder.Token(); open != json.Delim('{') {
		return nil, false
	}
	fields := map[string]json.RawMessage{}
	for decoder.More() {
		name, _ := decoder.Token() // cannot fail: body is valid JSON
		var value json.RawMessage
		_ = decoder.Decode(&value)
		if _, repeated := fields[name.(string)]; repeated {
			return nil, false
		}
		fields[name.(string)] = value
	}
	return fields, true
}

// jsonText returns a JSON string that is not empty.
func jsonText(value json.RawMessage) (string, bool) {
	var decoded any
	_ = json.Unmarshal(value, &decoded) // an absent value stays nil
	s, ok := decoded.(string)
	return s, ok && s != ""
}

// isToken reports whether a token consists of printable ASCII characters (RFC 6749,
// appendix A.12), as every token that is sent in a header must.
func isToken(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
}

// lifetime returns the value of expires_in: a number, or a string of digits, of seconds,
// rounded down and at most maxLifetime. Zero and negative numbers, with which services
// mean no expiry, and all other values are unknown.
func lifetime(value json.RawMessage) *time.Duration {
	number := string(value)
	if digits, ok := jsonText(value); ok && strings.Trim(digits, "0123456789") == "" {
		number = digits
	}
	seconds, err := strconv.ParseFloat(number, 64) // of a number that is too large, an infinity and an error
	if err != nil && !math.IsInf(seconds, 0) || !(seconds > 0) {
		return nil
	}
	d := maxLifetime
	if seconds < maxLifetime.Seconds() {
		d = time.Duration(seconds) * time.Second
	}
	return &d
}

// errorResponse describes an error response (RFC 6749, section 5.2), to follow a
// sentence. It returns "" if the body is none, or quotes a secret of the request: a
// service that echoes what it received must not make it visible.
func errorResponse(body []byte, sent []string) string {
	const maxCode, maxDescription = 64, 200 // characters
	fields, ok := jsonObject(body)
	if !ok {
		return ""
	}
	errorCode, ok := jsonText(fields["error"])
	if !ok || len(errorCode) > maxCode || !isToken(errorCode) || quotes(errorCode, sent) {
		return ""
	}
	text := " and the error " + errorCode
	description, ok := jsonText(fields["error_description"])
	description = beginning(description, maxDescription+quotedPart) // all that shows a part of a secret
	if ok && !quotes(description, sent) {
		text += ": " + strings.TrimRight(Printable(description, maxDescription), ". ")
	}
	return text
}

// Printable returns the beginning of a text of another service: at most limit characters,
// with a space for each that is not printable.
func Printable(text string, limit int) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, beginning(text, limit))
}

// beginning returns at most limit characters of a text.
func beginning(text string, limit int) string {
	runes := []rune(text)
	return string(runes[:min(len(runes), limit)])
}

// quotedPart is the length in bytes from which a part of a secret is recognized: shorter
// parts occur by chance.
const quotedPart = 12

// quotes reports whether a text contains one of the secrets, or a part of one, as it is
// or in a form in which it was sent. The text must be short: the time grows with the
// product of its length and that of the secrets.
func quotes(s string, secrets []string) bool {
	for _, text := range secrets {
		for _, form := range []string{text, url.QueryEscape(text), base64.StdEncoding.EncodeToString([]byte(text))} {
			length := min(quotedPart, len(form))
			for i := 0; length > 0 && i+length <= len(form); i++ {
				if strings.Contains(s, form[i:i+length]) {
					return true
				}
			}
		}
	}
	return false
}
