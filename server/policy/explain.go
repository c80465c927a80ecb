package policy

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// An Explanation is a decision with what led to it.
type Explanation struct {
	Result    Result
	Documents []string // that were read, such as grants
	Inputs    []string // paths that were read, such as input.principal.id
	Trace     []string // the steps of the evaluation, if requested
}

// maxTraceEvents limits the steps of a trace.
const maxTraceEvents = 1000

// Explain is [Bundle.Decide] with an explanation. If the evaluation fails, it returns
// the explanation of the part before the error too.
func (b *Bundle) Explain(ctx context.Context, input Input, trace bool) (Explanation, error) {
	x := &explainer{documents: map[string]bool{}, inputs: map[string]bool{}, trace: trace}
	result, err := b.decide(ctx, input, x)
	return Explanation{
		Result: result, Documents: slices.Sorted(maps.Keys(x.documents)), Inputs: slices.Sorted(maps.Keys(x.inputs)), Trace: x.lines(),
	}, err
}

// An explainer records the evaluation of the queries of a decision. A nil explainer
// records nothing.
type explainer struct {
	documents, inputs map[string]bool
	trace             bool
	queries           []*queryTracer
}

// tracer returns the tracer of the next query.
func (x *explainer) tracer() topdown.QueryTracer {
	if x == nil {
		return nil
	}
	t := &queryTracer{explainer: x}
	x.queries = append(x.queries, t)
	return t
}

// lines returns the trace of all queries.
func (x *explainer) lines() []string {
	if !x.trace {
		return nil
	}
	var text bytes.Buffer
	for _, q := range x.queries {
		topdown.PrettyTraceWithOpts(&text, q.events, topdown.PrettyTraceOptions{Locations: true})
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	for i := range lines {
		lines[i] = shorten(lines[i])
	}
	return lines
}

type queryTracer struct {
	explainer *explainer
	events    []*topdown.Event
}

func (*queryTracer) Enabled() bool { return true }

func (t *queryTracer) Config() topdown.TraceConfig {
	return topdown.TraceConfig{PlugLocalVars: t.explainer.trace}
}

// TraceEvent implements [topdown.QueryTracer].
func (t *queryTracer) TraceEvent(e topdown.Event) {
	if expression, ok := e.Node.(*ast.Expr); ok && e.Op == topdown.EvalOp {
		ast.WalkRefs(expression, func(ref ast.Ref) bool {
			t.explainer.read(ref)
			return false
		})
	}
	steps := []topdown.Op{topdown.EnterOp, topdown.EvalOp, topdown.ExitOp, topdown.FailOp}
	if t.explainer.trace && len(t.events) < maxTraceEvents && slices.Contains(steps, e.Op) {
		t.events = append(t.events, &e)
	}
}

// normalizedNames are the names of the documents that normalize renames.
var normalizedNames = map[string]string{"owners": "app_ids", "tags": "risk"}

// read records that a reference was evaluated.
func (x *explainer) read(ref ast.Ref) {
	path := staticPath(ref)
	if strings.HasPrefix(path, "input.") {
		x.inputs[path] = true
		return
	}
	name, ok := strings.CutPrefix(path, "data.caracal.documents.")
	if !ok {
		if name, ok = strings.CutPrefix(path, "data.caracal.authz."); !ok {
			return
		}
	}
	name, _, _ = strings.Cut(name, ".")
	if renamed, ok := normalizedNames[name]; ok {
		name = renamed
	}
	if slices.Contains(documentNames, name) {
		x.documents[name] = true
	}
}
