package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"caracal.run/management/server/policy"
)

// grantsOf returns a document with grants for n resources, of 50 bytes and more each.
func grantsOf(n int) string {
	var b strings.Builder
	b.WriteString("grants := {\n")
	for i := range n {
		fmt.Fprintf(&b, "\t\"resource://bank-%d\": {\"application\": \"payments\", \"roles\": {\"payer\": [\"bank:read\", \"bank:write\"]}},\n", i)
	}
	b.WriteString("\t\"resource://bank\": {\"application\": \"payments\", \"roles\": {\"payer\": [\"bank:read\", \"bank:write\"], \"auditor\": [\"bank:read\"]}},\n}")
	return b.String()
}

func BenchmarkDecide(b *testing.B) {
	bundle := compile(b, ids, grantsOf(199), confinement, risk)
	for _, bb := range []struct {
		name  string
		input object
	}{
		{"mint", mintInput(object{"principal.labels": []string{"payer", "customer:1"}})},
		{"use", useInput(nil)},
		{"bootstrap", bootstrapInput(object{"resource.identifier": "resource://bank"})},
		{"deny", mintInput(object{"principal.labels": []string{"viewer"}})},
	} {
		b.Run(bb.name, func(b *testing.B) {
			input := parseInput(b, bb.input)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bundle.Decide(b.Context(), input); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCheck validates a document of 10 KB.
func BenchmarkCheck(b *testing.B) {
	content := document(grantsOf(94))
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		if issues := issuesOf(b.Context(), b, content, policy.InputSchemaVersion); len(issues) > 0 {
			b.Fatal(issues)
		}
	}
}

// BenchmarkCompile compiles a set of 50 policies.
func BenchmarkCompile(b *testing.B) {
	set := modules(ids, confinement, risk)
	for i := range 47 {
		set = append(set, policy.Module{
			ID: fmt.Sprint(i), SchemaVersion: policy.InputSchemaVersion,
			Content: document(fmt.Sprintf(`grants["resource://bank-%d"] := {"application": "payments", "roles": {"payer": ["bank:read"]}}`, i)),
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.Compile(b.Context(), set); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheckSmall validates a document with one rule.
func BenchmarkCheckSmall(b *testing.B) {
	content := document(ids)
	b.ReportAllocs()
	for b.Loop() {
		if issues := issuesOf(b.Context(), b, content, policy.InputSchemaVersion); len(issues) > 0 {
			b.Fatal(issues)
		}
	}
}
