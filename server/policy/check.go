package policy

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// documentNames are the documents that a module can define (policy-evaluation.md §4).
var documentNames = []string{"app_ids", "approval_tiers", "confinement", "grants", "restrict", "risk"}

// authzPackage is the package of every module.
var authzPackage = ast.MustParseRef("data.caracal.authz")

// A Validation describes valid content.
type Validation struct {
	Preview   Preview
	Resources []string // identifiers of the resources that grants name, sorted
	Warnings  []Issue

	compilation *compilation
}

// Validate checks the content of a policy: its syntax, the rules of a data document,
// what the compiler finds, and the shapes of the documents. If something is wrong, it
// returns a [*CompileError]. The code of its first issue is the one that the contract
// reports.
func Validate(ctx context.Context, content, schemaVersion string) (Validation, error) {
	c := newCompilation()
	if _, err := c.compile(ctx, []Module{{Content: content, SchemaVersion: schemaVersion}}); err != nil {
		return Validation{}, err
	}
	c.addWarnings()
	return Validation{Preview: preview(c.modules[""], content), Resources: c.resources(), Warnings: c.issues(), compilation: c}, nil
}

// WarnUndeclared returns a warning for each grant of a resource or a scope that does
// not exist. declared has the scopes of resources by their identifiers.
func (v Validation) WarnUndeclared(declared map[string][]string) []Issue {
	report := issues{lines: v.compilation.reports[""].lines}
	v.compilation.addUndeclaredScopes(declared, &report)
	return report.sorted()
}

// checkModule reports what a data document must not contain.
func checkModule(m *ast.Module, report *issues) {
	if !m.Package.Path.Equal(authzPackage) {
		report.add(m.Package.Location, "must_use_package_caracal_authz", "The package must be caracal.authz.")
	}
	if !hasDirective(m) {
		report.add(m.Package.Location, "must_be_data_document", "A comment before the package must start with: caracal:data-document.")
	}
	for _, imported := range m.Imports {
		if path := imported.Path.Value.String(); path != "rego.v1" && !strings.HasPrefix(path, "future.keywords") {
			report.add(imported.Location, "import_not_allowed", "Only rego.v1 can be imported.")
		}
	}
	defined := 0
	for _, rule := range m.Rules {
		if checkHead(rule, report) {
			defined++
		}
		checkTerms(rule, report)
	}
	if defined == 0 && len(report.list) == 0 {
		report.add(m.Package.Location, "data_document_must_define_data", "The policy must define one of %s.", strings.Join(documentNames, ", "))
	}
}

var directive = regexp.MustCompile(`^\s*caracal:data-document(\s|$)`)

// hasDirective reports whether a comment before the package is the directive.
func hasDirective(m *ast.Module) bool {
	return slices.ContainsFunc(m.Comments, func(c *ast.Comment) bool {
		return c.Location.Row < m.Package.Location.Row && directive.Match(c.Text)
	})
}

// checkHead reports whether the head of a rule defines a document.
func checkHead(rule *ast.Rule, report *issues) bool {
	name := documentOf(rule)
	switch {
	case name == "result":
		report.add(rule.Head.Location, "data_document_must_not_define_result", "A policy must not define result. The decision contract defines it.")
	case !slices.Contains(documentNames, name):
		report.add(rule.Head.Location, "unknown_document:"+name, "%s is not a document. Define one of %s.", name, strings.Join(documentNames, ", "))
	case len(rule.Head.Args) > 0:
		report.add(rule.Head.Location, "function_not_allowed:"+name, "%s must be a document, not a function.", name)
	default:
		return true
	}
	return false
}

// documentOf returns the name of the document that a rule defines, or a part of.
func documentOf(rule *ast.Rule) string {
	name, _ := rule.Head.Ref()[0].Value.(ast.Var)
	return string(name)
}

// isAltered reports whether a string has a replacement character that is not in its
// text: the parser replaces half of a surrogate pair by one.
func isAltered(text, value string) bool {
	const replacement, escape = "\uFFFD", `\ufffd`
	return strings.Count(value, replacement) > strings.Count(text, replacement)+strings.Count(strings.ToLower(text), escape)
}

// checkTerms reports functions and references that a rule must not contain. Only
// restrict can depend on the input.
func checkTerms(rule *ast.Rule, report *issues) {
	name := documentOf(rule)
	reference := func(ref ast.Ref, loc *ast.Location) {
		switch head, _ := ref[0].Value.(ast.Var); {
		case head == "input" && name != "restrict":
			report.add(loc, "input_not_allowed:"+name, "%s must not depend on the input. Only restrict can.", name)
		case head == "restrict" && name != "restrict", isRestrict(ref) && name != "restrict":
			report.add(loc, "input_not_allowed:"+name, "%s must not depend on restrict, which can depend on the input.", name)
		case head == "data" && !isDocument(ref):
			report.add(loc, "data_not_allowed", "A policy can read only the documents data.caracal.authz.%s.", strings.Join(documentNames, ", data.caracal.authz."))
		}
	}
	call := func(operator *ast.Term) {
		if function := operator.Value.String(); forbiddenBuiltin(function) {
			report.add(operator.Location, "forbidden_builtin:"+function, "The function %s is not allowed in a policy.", function)
		}
	}
	var visitor *ast.GenericVisitor
	visitor = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.With:
			report.add(x.Location, "with_not_allowed", "The keyword with is not allowed in a policy.")
		case *ast.Expr:
			if x.IsCall() {
				call(x.OperatorTerm())
			}
		case *ast.Term:
			switch value := x.Value.(type) {
			case ast.Call:
				call(value[0])
			case ast.Ref:
				reference(value, x.Location)
				for _, element := range value[1:] {
					visitor.Walk(element)
				}
				return true
			case ast.Var:
				reference(ast.Ref{x}, x.Location)
			case ast.String:
				if isAltered(string(x.Location.Text), string(value)) {
					report.add(x.Location, "lone_surrogate", "The string contains an escape that is half of a surrogate pair.")
				}
			case ast.Number:
				if !validNumber(string(value)) {
					report.add(x.Location, "number_out_of_range", "The number has too many digits or a too large exponent.")
				}
			}
		}
		return false
	})
	walkRule(visitor, rule)
}

// walkRule visits a rule and all of its head: the visitors of OPA leave out the
// elements of its reference but the last.
func walkRule(visitor interface{ Walk(any) }, rule *ast.Rule) {
	for _, element := range rule.Head.Ref()[1:] {
		visitor.Walk(element)
	}
	visitor.Walk(rule)
}

// isDocument reports whether a reference starts with data.caracal.authz and the
// name of a document.
func isDocument(ref ast.Ref) bool {
	if len(ref) < 4 || !ref.HasPrefix(authzPackage) {
		return false
	}
	name, _ := ref[3].Value.(ast.String)
	return slices.Contains(documentNames, string(name))
}

func isRestrict(ref ast.Ref) bool {
	return isDocument(ref) && ref[3].Value.Compare(ast.String("restrict")) == 0
}

// validNumber reports whether a number is cheap to calculate with: it has at most 40
// characters and the exponent of a float64.
func validNumber(n string) bool {
	if _, exponent, found := strings.Cut(strings.ToLower(n), "e"); found {
		if e, err := strconv.Atoi(exponent); err != nil || e < -308 || e > 308 {
			return false
		}
	}
	return len(n) <= 40
}
