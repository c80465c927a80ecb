package middleware

import (
	"regexp"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// A spec that leaves open who may call an operation is an error at startup.
func TestSpecWithoutAccessRuleIsRejected(t *testing.T) {
	t.Parallel()
	const spec = `{"openapi": "3.0.3", "info": {"title": "x", "version": "1"}, "paths": {"PATH": {"post": {
		"operationId": "test", "x-access": ACCESS, "x-problems": [PROBLEM],
		"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
		"responses": {"200": {"description": "x"}}}}}}`
	for _, tt := range []struct{ name, path, access, problem, want string }{
		{"valid", "/v1/zones/{zoneId}/x", `["write"]`, `"invalid_zone"`, ""},
		{"approval", "/v1/zones/{zoneId}/x", `["approve"]`, `"invalid_zone"`, ""},
		{"no rule", "/v1/x", `null`, `"invalid_zone"`, "none of public, read, write and approve"},
		{"empty rule", "/v1/x", `[]`, `"invalid_zone"`, "none of public, read, write and approve"},
		{"scope without capability", "/v1/x", `["global"]`, `"invalid_zone"`, "none of public, read, write and approve"},
		{"zone parameter with another name", "/v1/zones/{id}/x", `["write"]`, `"invalid_zone"`, "must be named zoneId"},
		{"no code for an invalid body", "/v1/x", `["write"]`, `"no_fields"`, "no code for an invalid one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := strings.NewReplacer("PATH", tt.path, "ACCESS", tt.access, "PROBLEM", tt.problem).Replace(spec)
			doc, err := openapi3.NewLoader().LoadFromData([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			_, err = NewOperations(doc)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// IsID matches exactly what the pattern of the spec matches.
func TestIsIDMatchesThePattern(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile(idPattern)
	texts := []string{"", strings.Repeat("x", 128), strings.Repeat("x", 129), "0198c0de-0000-7000-8000-00000000000a", "a_b.c:d-e", "é", "a\n", "a b"}
	for c := range 256 {
		texts = append(texts, "a"+string([]byte{byte(c)})+"b", string(rune(c)))
	}
	for _, text := range texts {
		if IsID(text) != pattern.MatchString(text) {
			t.Errorf("IsID(%q) = %t, the pattern differs", text, IsID(text))
		}
	}
}
