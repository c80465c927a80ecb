package policy

import "github.com/open-policy-agent/opa/v1/ast"

// Value returns the input as the rules of policies read it.
func (i Input) Value() ast.Value { return i.term.Value }

// CompileWithOPA returns the errors that OPA itself finds in a policy.
func CompileWithOPA(content, schemaVersion string) error {
	version := ast.RegoV1
	if schemaVersion == legacySchemaVersion {
		version = ast.RegoV0
	}
	parsed, err := ast.ParseModuleWithOpts("a", content, ast.ParserOptions{RegoVersion: version})
	if err != nil {
		return err
	}
	compiler := ast.NewCompiler()
	if compiler.Compile(map[string]*ast.Module{"a": parsed}); compiler.Failed() {
		return compiler.Errors
	}
	return nil
}
