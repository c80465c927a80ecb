package policy

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"
)

// A Bundle is the compiled content of a policy set. It decides any number of
// requests concurrently.
type Bundle struct {
	documents ast.Object // normalized
	restrict  ast.Value  // nil: restrictRules decides

	restrictRules query // of the modules, if restrict depends on the input

	defined []string // names of the documents that the modules define
}

//go:embed contract/contract.rego contract/result.rego
var contractFiles embed.FS

// A compiledContract is the compiled decision contract.
type compiledContract struct{ result, readable query }

var contract = sync.OnceValue(func() compiledContract {
	modules := map[string]*ast.Module{}
	for _, name := range []string{"contract.rego", "result.rego"} {
		content, err := contractFiles.ReadFile("contract/" + name)
		if err != nil {
			panic(err)
		}
		parsed, err := ast.ParseModule(name, string(content))
		if err != nil {
			panic(err)
		}
		modules[name] = parsed
	}
	compiled := compileRules(modules)
	if compiled.Failed() {
		panic(compiled.Errors)
	}
	return compiledContract{result: compiled.query("authz", "result"), readable: compiled.query("contract", "readable")}
})

// Compile parses, checks and compiles modules as a whole, evaluates the documents
// that they define and checks their shapes. Nothing that OPA does not compile, and
// no document with a wrong shape, becomes a Bundle: Compile returns a
// [*CompileError].
func Compile(ctx context.Context, modules []Module) (*Bundle, error) {
	c := newCompilation()
	compiled, err := c.compile(ctx, modules)
	if err != nil {
		return nil, err
	}
	b := &Bundle{documents: normalize(c.documents), defined: sortedKeys(c.definitions)}
	if c.dependsOnInput() {
		b.restrictRules = compiled.query("authz", "restrict")
	} else {
		b.restrict = restrictions(c.documents["restrict"])
	}
	readable, err := contract().readable.value(ctx, data{documents: b.documents}, nil, nil)
	if err != nil {
		return nil, evaluationError(ctx, err)
	}
	b.documents.Insert(ast.InternedTerm("readable"), ast.InternedTerm(readable != nil))
	return b, nil
}

// A compilation is the state of Compile. Its maps have the ids of modules as keys,
// except definitions and documents, which have the names of documents: the rules
// that define one, and its value.
type compilation struct {
	modules     map[string]*ast.Module
	reports     map[string]*issues
	definitions map[string][]*ast.Rule
	documents   map[string]ast.Value
	separators  int // of all modules
}

func newCompilation() *compilation {
	return &compilation{modules: map[string]*ast.Module{}, reports: map[string]*issues{}, definitions: map[string][]*ast.Rule{}, documents: map[string]ast.Value{}}
}

// compiling has a slot for each processor: compilation takes processor time and
// memory in proportion to the content, so more at once would only take more memory.
var compiling = make(chan struct{}, runtime.GOMAXPROCS(0))

// compile sets the fields. Its error is a *CompileError, or the error of ctx.
func (c *compilation) compile(ctx context.Context, modules []Module) (compiled compiler, err error) {
	select {
	case compiling <- struct{}{}:
		defer func() { <-compiling }()
	case <-ctx.Done():
		return compiled, ctx.Err()
	}
	for _, m := range modules {
		if c.reports[m.ID] != nil {
			c.reports[m.ID].add(nil, "duplicate_module", "The policy is in the set twice.")
			return compiled, c.err()
		}
		c.reports[m.ID] = newIssues(m.Content)
		if parsed := parse(m, &c.separators, c.reports[m.ID]); parsed != nil {
			c.modules[m.ID] = parsed
			checkModule(parsed, c.reports[m.ID])
		}
	}
	if err := c.err(); err != nil {
		return compiled, err
	}
	for _, id := range sortedKeys(c.modules) {
		for _, rule := range c.modules[id].Rules {
			c.definitions[documentOf(rule)] = append(c.definitions[documentOf(rule)], rule)
		}
	}
	if c.readLiterals() {
		return compiled, c.err()
	}
	checkCompileCost(c.modules, c.reports)
	if err := c.err(); err != nil {
		return compiled, err
	}
	checkWeight(c.modules, c.reports)
	if err := c.err(); err != nil {
		return compiled, err
	}
	compiled = compileRules(c.modules)
	for _, e := range compiled.Errors {
		if e.Location != nil || len(compiled.Errors) == 1 { // not the error that there are more
			c.reportCompileError(e)
		}
	}
	if err := c.err(); err != nil {
		return compiled, err
	}
	c.evaluate(ctx, compiled)
	if c.dependsOnInput() && !isCollection(compiled.TypeEnv.GetByRef(restrictRef)) {
		loc := c.definitions["restrict"][0].Location
		c.reports[loc.File].add(loc, "invalid_document:restrict", "restrict must be a list, a set or an object for every input.")
	}
	return compiled, c.err()
}

var restrictRef = ast.MustParseRef("data.caracal.authz.restrict")

// isCollection reports whether every value of a type is a list, a set or an object.
func isCollection(t types.Type) bool {
	switch t := t.(type) {
	case *types.Array, *types.Set, *types.Object:
		return true
	case types.Any:
		return len(t) > 0 && !slices.ContainsFunc(t, func(t types.Type) bool { return !isCollection(t) })
	}
	return false
}

// err returns the issues of the first module that has some.
func (c *compilation) err() error {
	for _, id := range sortedKeys(c.reports) {
		if report := c.reports[id]; len(report.list) > 0 {
			return &CompileError{ID: id, Issues: report.sorted()}
		}
	}
	return nil
}

// compileConflict matches the errors of the compiler about two rules of which only
// one can exist, with the name of their document.
var compileConflict = regexp.MustCompile(`^(multiple default rules|conflicting rules|rule) data\.caracal\.authz\.([a-z_]+).* (found|conflicts with)\b`)

// reportCompileError adds an error of the compiler to the module that contains it,
// or to the first if it has no position.
func (c *compilation) reportCompileError(e *ast.Error) {
	message, loc := sentence(e.Message), e.Location
	if conflict := compileConflict.FindStringSubmatch(e.Message); conflict != nil {
		message = conflict[2] + " is defined both as a whole and in parts"
		if conflict[1] == "multiple default rules" {
			message = conflict[2] + " has two defaults"
			loc = c.lastDefault(conflict[2])
		}
	}
	id, code := sortedKeys(c.reports)[0], "compile_error"
	if loc != nil && c.reports[loc.File] != nil {
		id, code = loc.File, fmt.Sprintf("compile_error:%d", loc.Row)
	}
	c.reports[id].add(loc, code, "%s.", message)
}

// lastDefault returns the position of the last default of a document.
func (c *compilation) lastDefault(name string) *ast.Location {
	var loc *ast.Location
	for _, id := range sortedKeys(c.modules) {
		for _, rule := range c.modules[id].Rules {
			if rule.Default && documentOf(rule) == name {
				loc = rule.Location
			}
		}
	}
	return loc
}

// evaluate sets the documents that the modules define, without restrict if it
// depends on the input. It reports documents with two values or a wrong shape.
func (c *compilation) evaluate(ctx context.Context, compiled compiler) {
	for _, name := range documentNames {
		defined := c.definitions[name]
		if len(defined) == 0 || name == "restrict" && c.dependsOnInput() {
			continue
		}
		value, err := compiled.query("authz", name).value(ctx, nil, nil, nil)
		if err != nil {
			loc := defined[0].Location
			var e *topdown.Error
			if errors.As(err, &e) && e.Location != nil && c.reports[e.Location.File] != nil {
				loc = e.Location
			}
			c.reports[loc.File].add(loc, evaluationCode(err)+":"+name, "%s cannot be evaluated: %s.", name, evaluationMessage(err))
		} else if value == nil && name != "restrict" {
			c.reports[defined[0].Location.File].add(defined[0].Location, "undefined_document:"+name, "%s has no value, because the conditions of its rules are not met.", name)
		} else if value != nil {
			c.setDocument(name, value)
		}
	}
}

// readLiterals sets the documents if each of them is one literal value, and reports
// whether they are. There is nothing to compile or to evaluate then, which makes most
// policies several times as fast to validate.
func (c *compilation) readLiterals() bool {
	for _, m := range c.modules {
		if len(m.Imports) > 1 || len(m.Imports) == 1 && m.Imports[0].Path.Value.Compare(ast.RegoV1CompatibleRef) != 0 { // the compiler checks them
			return false
		}
	}
	for _, rules := range c.definitions {
		if len(rules) > 1 || !isLiteral(rules[0]) {
			return false
		}
	}
	for _, name := range sortedKeys(c.definitions) {
		c.setDocument(name, c.definitions[name][0].Head.Value.Value)
	}
	return true
}

// isLiteral reports whether a rule defines a document by a value without variables,
// references, calls and comprehensions.
func isLiteral(rule *ast.Rule) bool {
	head := rule.Head
	if rule.Default || rule.Else != nil || head.Key != nil || head.Value == nil || len(head.Ref()) != 1 || !rule.Body.Equal(alwaysTrue) {
		return false
	}
	literal := true
	ast.WalkTerms(head.Value, func(t *ast.Term) bool {
		switch t.Value.(type) {
		case ast.Null, ast.Boolean, ast.Number, ast.String, *ast.Array, ast.Object, ast.Set:
		default:
			literal = false
		}
		return !literal
	})
	return literal
}

var alwaysTrue = ast.NewBody(ast.NewExpr(ast.BooleanTerm(true)))

// setDocument sets the value of a document and reports what has a wrong shape.
func (c *compilation) setDocument(name string, value ast.Value) {
	defined := c.definitions[name]
	c.documents[name] = value
	if documentSize(value, maxDocumentSize) > maxDocumentSize {
		c.reports[defined[0].Location.File].add(defined[0].Location, "too_complex", "The value of %s is too large.", name)
		return
	}
	reported := 0
	shapes[name].check(value, nil, func(path []step, must string) bool {
		loc := locate(defined, path)
		c.reports[loc.File].add(loc, "invalid_document:"+name, "%s must %s.", format(name, path), must)
		reported++
		return reported < maxIssues
	})
}

// dependsOnInput reports whether restrict, the only document that can, refers to
// the input.
func (c *compilation) dependsOnInput() bool {
	found := false
	for _, rule := range c.definitions["restrict"] {
		walkRule(ast.NewGenericVisitor(func(x any) bool {
			found = found || x == ast.Var("input")
			return found
		}), rule)
	}
	return found
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
