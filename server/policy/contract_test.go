package policy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/tester"
)

// TestContractRules runs contract/*_test.rego and requires that they evaluate every
// line of the decision contract.
func TestContractRules(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("contract/*.rego")
	if err != nil {
		t.Fatal(err)
	}
	modules := map[string]*ast.Module{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		modules[file], err = ast.ParseModule(file, string(content))
		if err != nil {
			t.Fatal(err)
		}
	}
	coverage := cover.New()
	results, err := tester.NewRunner().SetCoverageQueryTracer(coverage).SetModules(modules).RunTests(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	passed := 0
	for r := range results {
		if r.Pass() {
			passed++
		} else {
			t.Errorf("%s: failed %v, skipped %v, error %v", r.Name, r.Fail, r.Skip, r.Error)
		}
	}
	if passed == 0 {
		t.Error("no test passed")
	}
	report := coverage.Report(modules)
	for _, file := range []string{"contract/contract.rego", "contract/result.rego"} {
		if f := report.Files[file]; f == nil || len(f.NotCovered) > 0 || len(f.Covered) == 0 {
			t.Errorf("%s is not covered: %+v", file, f)
		}
	}
}

// TestProgramContainsNoTestRunner requires that only tests depend on OPA's test
// runner and coverage.
func TestProgramContainsNoTestRunner(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "../cmd/caracald").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 10 {
		t.Fatalf("go list returned only %v", packages)
	}
	for _, name := range packages {
		if strings.HasSuffix(name, "/opa/v1/tester") || strings.HasSuffix(name, "/opa/v1/cover") {
			t.Errorf("the program depends on %s", name)
		}
	}
}
