package jsonresponse_test

import (
	"encoding/json"
	"strings"
	"testing"

	"caracal.run/management/server/jsonresponse"
)

func TestValidEqualsEncodingJSON(t *testing.T) {
	t.Parallel()
	texts := []string{
		"", " ", "null", "nul", "nulll", " true ", "false", "tru", "0", "-0", "-", "00", "01", "1.", "1.5", ".5", "1e5", "1E+5", "1e-", "1e", "-1.25e+10x", "+1",
		`""`, `"`, `"\"`, `"\n\u00e9\/"`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\`, "\"\n\"", "\"\x7f\xff\"", "{}", "{ }", "{", "}", `{"a":1}`, `{"a" : [1, {"b":null}] , "c":""}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{a:1}`, `{"a":1 "b":2}`,
		"[]", "[ ]", "[", "]", "[1,2]", "[1,]", "[,1]", "[1 2]", "[1", "{} {}", "\ufeff{}", `{"a":1]`, `[1}`,
	}
	for _, depth := range []int{9_999, 10_000, 10_001} {
		texts = append(texts, strings.Repeat("[", depth)+strings.Repeat("]", depth), strings.Repeat(`{"a":`, depth)+"1"+strings.Repeat("}", depth))
	}
	for _, text := range texts {
		if got, want := jsonresponse.Valid(text), json.Valid([]byte(text)); got != want {
			t.Errorf("%.60q: %t, want %t", text, got, want)
		}
	}
}

func FuzzValid(f *testing.F) {
	f.Add([]byte(`{"a\"<": [1, -2.5e+7, "\u2028"], "b": null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, want := jsonresponse.Valid(string(text)), json.Valid(text); got != want {
			t.Errorf("%q: %t, want %t", text, got, want)
		}
	})
}
