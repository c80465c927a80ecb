package main

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// operation returns an operation, in YAML.
func operation(t *testing.T, text string) *yaml.Node {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatal(err)
	}
	return root.Content[0]
}

func TestAccessIsDescribed(t *testing.T) {
	for _, tt := range []struct{ path, op, want string }{
		{"/health", "x-access: [public]\nsecurity: []", "Requires no token."},
		{"/metrics", "x-access: [public]\nsecurity: [{metricsBearer: []}, {}]", ""},
		{"/v1/zones", "x-access: [global, read]", "Requires a global token with read permission."},
		{"/v1/zones", "x-access: [global, write]", "Requires a global token with write permission."},
		{"/v1/zones/{zoneId}", "x-access: [read]", "Requires a token with read permission for the zone."},
		{"/v1/zones/{zoneId}/applications/{id}", "x-access: [write]", "Requires a token with write permission for the zone."},
		{"/v1/zones/{zoneId}/step-up-challenges/{id}/satisfy", "x-access: [approve]", "Requires a token with approval permission for the zone."},
		{"/v1/zones/{zoneId}/seal", "x-access: [global, write]", "Requires a global token with write permission."},
		{"/v1/whoami", "x-access: [read]", "Requires a token with read permission."},
	} {
		op := operation(t, tt.op+"\ndescription: |\n  Does something.\n")
		if err := describeAccess(tt.path, op); err != nil {
			t.Errorf("%s %s: %v", tt.path, tt.op, err)
		}
		want := strings.TrimSuffix("Does something.\n\n"+tt.want, "\n\n")
		if got := strings.TrimSpace(get(op, "description").Value); got != want {
			t.Errorf("%s %s: description %q, want %q", tt.path, tt.op, got, want)
		}
	}
}

func TestInvalidAccessIsAnError(t *testing.T) {
	for _, tt := range []struct{ op, want string }{
		{"x-access: []", `invalid x-access []`},
		{"x-access: [global]", `invalid x-access ["global"]`},
		{"x-access: [read, write]", `invalid x-access ["read" "write"]`},
		{"x-access: [public, read]", `invalid x-access ["public" "read"]`},
		{"x-access: [write, approve]", `invalid x-access ["write" "approve"]`},
		{"x-access: [admin]", `invalid x-access ["admin"]`},
		{"x-access: [public]", `security is required, because x-access is public`},
	} {
		err := describeAccess("/v1/zones", operation(t, tt.op+"\ndescription: Does something."))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v, want %s", tt.op, err, tt.want)
		}
	}
}
