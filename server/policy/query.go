package policy

import (
	"context"
	"errors"
	"runtime"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// A compiler has compiled modules.
type compiler struct{ *ast.Compiler }

// compileRules compiles modules with the restricted capabilities. The caller must
// check whether the compiler failed.
func compileRules(modules map[string]*ast.Module) compiler {
	c := compiler{ast.NewCompiler().WithCapabilities(capabilities).SetErrorLimit(maxIssues)}
	c.Compile(modules)
	return c
}

// A query is a reference to a document.
type query struct {
	compiler *ast.Compiler
	body     ast.Body
}

var resultVar = ast.Var("result")

// query returns a query of the document data.caracal.<pkg>.<name>. It is built
// instead of parsed and compiled, which would take longer than its evaluation.
func (c compiler) query(pkg, name string) query {
	document := ast.Ref{ast.DefaultRootDocument, ast.InternedTerm("caracal"), ast.StringTerm(pkg), ast.StringTerm(name)}
	return query{compiler: c.Compiler, body: ast.NewBody(ast.Equality.Expr(ast.NewTerm(resultVar), ast.NewTerm(document)))}
}

// value evaluates the query within [EvaluationTimeout]. It returns nil if the
// document is undefined. data is what data refers to in addition to the rules, and can be
// nil, as can input. A function that fails is an error: in OPA it is undefined by
// default, so that a restriction would be ignored if a function in it fails.
func (q query) value(ctx context.Context, data topdown.BaseCache, input *ast.Term, tracer topdown.QueryTracer) (ast.Value, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cancel := newDeadline(ctx, threadTime)
	defer cancel.stop()
	if data == nil {
		data = noData{}
	}
	evaluation := topdown.NewQuery(q.body).WithCompiler(q.compiler).WithBaseCache(data).WithStore(noStore{}).
		WithInput(input).WithCancel(cancel).WithMetrics(metrics.NoOp()).WithStrictBuiltinErrors(true)
	if tracer != nil {
		// With the index, rules that cannot match are not evaluated, nor traced.
		evaluation = evaluation.WithQueryTracer(tracer).WithIndexing(false)
	}
	var result ast.Value
	err := evaluation.Iter(ctx, func(r topdown.QueryResult) error {
		result = r[resultVar].Value
		return nil
	})
	return result, err
}

// evaluationCode returns the issue code of an error of evaluation.
func evaluationCode(err error) string {
	var e *topdown.Error
	switch {
	case topdown.IsCancel(err):
		return "evaluation_timeout"
	case errors.As(err, &e) && e.Code == topdown.ConflictErr:
		return "conflicting_document"
	}
	return "evaluation_error"
}

func evaluationMessage(err error) string {
	var e *topdown.Error
	switch {
	case topdown.IsCancel(err):
		return "the evaluation took more than " + EvaluationTimeout.String() + " of processor time, or longer than " + maxDuration.String()
	case errors.As(err, &e) && e.Code == topdown.ConflictErr:
		return "it has two different values"
	case errors.As(err, &e):
		return strings.TrimRight(e.Message, ".")
	}
	return err.Error()
}

// noData is the data of a query that has none but its rules.
type noData struct{}

func (noData) Get(ast.Ref) ast.Value  { return nil }
func (noData) Put(ast.Ref, ast.Value) {}

// noStore is an empty store: data comes from a base cache, which the evaluator asks
// first.
type noStore struct{ storage.Store }

func (noStore) Read(_ context.Context, _ storage.Transaction, path storage.Path) (any, error) {
	return nil, &storage.Error{Code: storage.NotFoundErr, Message: path.String()}
}
