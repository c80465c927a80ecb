package main

import (
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestDescribeAudit(t *testing.T) {
	t.Parallel()
	log := auditLog{Kinds: auditKinds{{Name: "zones"}, {Name: "sessions"}}}
	for _, tt := range []struct{ op, text, fault string }{
		{"x-access: [write]\nx-audit: [zones]", "Does something.\n\nRecords audit entries of these types: `zones`.", ""},
		{"x-access: [global, write]\nx-audit: [zones, sessions]", "Does something.\n\nRecords audit entries of these types: `zones`, `sessions`.", ""},
		{"x-access: [read]", "Does something.", ""},
		{"x-access: [write]", "", "x-audit is required, because the operation writes"},
		{"x-access: [write]\nx-audit: []", "Does something.", ""},
		{"x-access: [write]\nx-audit: [tokens]", "", "x-audit: unknown kind tokens (not in audit.yaml)"},
		{"x-access: [write]\nx-audit: [zones, zones]", "", "x-audit: duplicate kind zones"},
		{"x-access: [read]\nx-audit: [zones]", "", "x-audit must not be set, because the operation does not write"},
	} {
		op := operation(t, tt.op+"\ndescription: Does something.")
		err := describeAudit(op, log)
		switch {
		case err != nil && err.Error() != tt.fault || err == nil && tt.fault != "":
			t.Errorf("%q: error %v, want %q", tt.op, err, tt.fault)
		case err == nil && get(op, "description").Value != tt.text:
			t.Errorf("%q: description %q, want %q", tt.op, get(op, "description").Value, tt.text)
		}
	}
}

func TestAuditLogIsChecked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, fault string }{
		{"kinds: {zones: {table: zones, tracked: [name], ignored: [id]}}", ""},
		{"kinds: {zones: {tracked: [name]}}", "kind zones must have a table and a tracked column"},
		{"kinds: {zones: {table: zones, tracked: [name as title], redacted: [name]}}", "kind zones classifies column name twice"},
	} {
		var log auditLog
		if err := yaml.Unmarshal([]byte(tt.text), &log); (err == nil) != (tt.fault == "") || err != nil && err.Error() != tt.fault {
			t.Errorf("%s: error %v, want %q", tt.text, err, tt.fault)
		}
	}
}
