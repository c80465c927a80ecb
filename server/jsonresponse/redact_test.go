package jsonresponse_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/jsonresponse"
)

func TestAppendRedacted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"", `null`},
		{`null`, `null`},
		{`{}`, `{}`},
		{`[1.50, -0e+2, "token", true]`, `[1.50,-0e+2,"token",true]`},
		{`{"b": 1.0, "a": "x", "b2": {"Token": {"c": [1]}, "tokens": 1}}`, `{"b":1.0,"a":"x","b2":{"Token":"[redacted]","tokens":1}}`},
		{`{"token": null}`, `{"token":"[redacted]"}`},
		{`[{"PassWD":[{"a":"]}\""}], "a": 1}]`, `[{"PassWD":"[redacted]","a":1}]`},
		{`{"to\u006ben" :"x","K":1}`, `{"to\u006ben":"[redacted]","K":1}`},
		{"{\"to\u212aen\":true}", "{\"to\u212aen\":\"[redacted]\"}"}, // the Kelvin sign is a K
		{`{"session":"x","session_id":"s-1","agent_session_id":"g-1"}`, `{"session":"[redacted]","session_id":"s-1","agent_session_id":"g-1"}`},
		{`{"api_key":12e3,"a":{"cookie":false }}`, `{"api_key":"[redacted]","a":{"cookie":"[redacted]"}}`},
		{`{"a":"token","b":["secret","password"]}`, `{"a":"token","b":["secret","password"]}`},
		{`{"a":"</script>&\u2028"}`, `{"a":"</script>&\u2028"}`},
	} {
		if got := jsonresponse.AppendRedacted([]byte("before "), tt.text); string(got) != "before "+tt.want {
			t.Errorf("%s is encoded as\n%s, want\n%s", tt.text, got, tt.want)
		}
	}
}

var secretNames = []string{
	"password", "passwd", "secret", "token", "access_token", "refresh_token", "id_token", "api_key", "apikey", "authorization", "cookie", "set_cookie", "client_secret",
	"private_key", "session", "assertion",
}

// redact is a simple reference: it decodes and encodes the text.
func redact(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name := range maps.Keys(value) {
			if slices.Contains(secretNames, strings.ToLower(name)) {
				value[name] = "[redacted]"
			} else {
				value[name] = redact(value[name])
			}
		}
	case []any:
		for i := range value {
			value[i] = redact(value[i])
		}
	}
	return value
}

func decoded(t *testing.T, text []byte) (value any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	return value
}

// checkRedacted compares the redaction of a text with the reference.
func checkRedacted(t *testing.T, text string) {
	t.Helper()
	got := jsonresponse.AppendRedacted(nil, text)
	if want := redact(decoded(t, []byte(text))); !reflect.DeepEqual(decoded(t, got), want) {
		t.Errorf("%s is encoded as\n%s, want %v", text, got, want)
	}
	if again := jsonresponse.AppendRedacted(nil, string(got)); !bytes.Equal(again, got) {
		t.Errorf("%s is encoded as\n%s, and that as\n%s", text, got, again)
	}
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &object) == nil && object != nil {
		found := map[string]json.RawMessage{}
		jsonresponse.EachField(text, func(name, value string) { found[name] = json.RawMessage(value) })
		if !reflect.DeepEqual(found, object) {
			t.Errorf("%s has the fields %q, want %q", text, found, object)
		}
	}
	var array []json.RawMessage
	if json.Unmarshal([]byte(text), &array) == nil && len(array) > 0 {
		var elements []json.RawMessage
		jsonresponse.EachElement(text, func(value string) { elements = append(elements, json.RawMessage(value)) })
		if !reflect.DeepEqual(elements, array) {
			t.Errorf("%s has the elements %q, want %q", text, elements, array)
		}
	}
}

// randomJSON returns a JSON text with names of secrets, white space and escapes.
func randomJSON(r *rand.Rand, depth int) string {
	space := func() string { return []string{"", "", " ", "\n\t"}[r.IntN(4)] }
	text := func() string {
		return []string{`""`, `"token"`, `"a \"secret\": 1,"`, `"\\"`, `"}]{[,:"`, `"<\u2028日本\ud83d\ude00>"`}[r.IntN(6)]
	}
	if depth == 0 || r.IntN(4) == 0 {
		return []string{"null", "true", "0", "-12.340e+5", text(), text()}[r.IntN(6)]
	}
	var parts []string
	isObject := r.IntN(2) == 0
	for i := range r.IntN(5) {
		part := space() + randomJSON(r, depth-1) + space()
		if isObject {
			name := []string{fmt.Sprintf(`"field %d"`, i), fmt.Sprintf(`"%d\"\\"`, i), `"` + secretNames[r.IntN(len(secretNames))] + `"`, `"session_id"`}[r.IntN(4)]
			switch r.IntN(4) {
			case 0:
				name = strings.ToUpper(name)
			case 1:
				name = strings.Replace(name, "e", `\u0065`, 1)
			}
			part = space() + name + space() + ":" + part
		}
		parts = append(parts, part)
	}
	if isObject {
		return "{" + strings.Join(parts, ",") + space() + "}"
	}
	return "[" + strings.Join(parts, ",") + space() + "]"
}

func TestAppendRedactedLikeTheReference(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20_000) {
		checkRedacted(t, randomJSON(rand.New(rand.NewPCG(seed, 0)), 4))
	}
}

// Any text ends, and valid JSON is redacted like the reference does.
func FuzzAppendRedacted(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(randomJSON(rand.New(rand.NewPCG(seed, 1)), 3))
	}
	for _, broken := range []string{`{`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"token":`, `{"token":"`, `[`, `[,`, `"\`, `{"a":}`, `{"token":}`, `]`, `{"a":1,}`} {
		f.Add(broken)
	}
	f.Fuzz(func(t *testing.T, text string) {
		jsonresponse.AppendRedacted(nil, text)
		jsonresponse.EachField(text, func(string, string) {})
		jsonresponse.EachElement(text, func(string) {})
		if json.Valid([]byte(text)) && text != "" {
			checkRedacted(t, text)
		}
	})
}

func BenchmarkAppendRedacted(b *testing.B) {
	const text = `{"method": "POST", "resource": "resource://bank", "latency_ms": 12, "agent_labels": ["payer", "region:eu"], "application_id": "0198c0de-0000-7000-8000-00000000000b",` +
		` "session_id": "0198c0de-0000-7000-8000-000000000050", "agent_session_id": "0198c0de-0000-7000-8000-000000000060", "requested_scopes": ["bank:read"], "application_name": "Payments"}`
	buffer := make([]byte, 0, 1<<10)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		buffer = jsonresponse.AppendRedacted(buffer[:0], text)
	}
}
