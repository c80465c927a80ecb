package policy

import (
	"context"
	"fmt"
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

// maxTraceLines limits the steps of a trace.
const maxTraceLines = 1000

// Explain is [Bundle.Decide] with an explanation. If the evaluation fails, it returns
// the explanation of the part before the error too. The explanation is evaluated a
// second time, because that takes longer: it may be incomplete.
func (b *Bundle) Explain(ctx context.Context, input Input, trace bool) (Explanation, error) {
	result, err := b.decide(ctx, input, nil)
	x := &explainer{defined: b.defined, documents: map[string]bool{}, inputs: map[string]bool{}, trace: trace}
	_, _ = b.decide(ctx, input, x)
	return Explanation{
		Result: result, Documents: slices.Sorted(maps.Keys(x.documents)), Inputs: slices.Sorted(maps.Keys(x.inputs)), Trace: x.lines,
	}, err
}

// An explainer records the evaluation of the queries of a decision. A nil explainer
// records nothing.
type explainer struct {
	defined           []string // names of the documents that the policies define
	documents, inputs map[string]bool
	trace             bool
	lines             []string
}

// tracer returns the tracer of the next query.
func (x *explainer) tracer() topdown.QueryTracer {
	if x == nil {
		return nil
	}
	return &queryTracer{explainer: x, depths: map[uint64]int{}}
}

type queryTracer struct {
	explainer *explainer
	depths    map[uint64]int // of the nested queries, by their ids
}

func (*queryTracer) Enabled() bool { return true }

func (*queryTracer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent implements [topdown.QueryTracer].
func (t *queryTracer) TraceEvent(e topdown.Event) {
	expression, isExpression := e.Node.(*ast.Expr)
	if isExpression && e.Op == topdown.EvalOp {
		ast.WalkRefs(expression, func(ref ast.Ref) bool {
			t.explainer.read(ref)
			return false
		})
	}
	steps := []topdown.Op{topdown.EnterOp, topdown.EvalOp, topdown.ExitOp, topdown.FailOp}
	if !t.explainer.trace || len(t.explainer.lines) == maxTraceLines || !slices.Contains(steps, e.Op) {
		return
	}
	depth, known := t.depths[e.QueryID]
	if !known {
		depth = min(t.depths[e.ParentID]+1, 40)
		t.depths[e.QueryID] = depth
	}
	if e.Location == nil || len(e.Location.Text) == 0 { // the query itself
		return
	}
	// The text of the source: a value can be larger than the whole policy.
	text, _, _ := strings.Cut(string(e.Location.Text[:min(len(e.Location.Text), 1000)]), "\n")
	line := fmt.Sprintf("%s:%d %s%s %s", e.Location.File, e.Location.Row, strings.Repeat("| ", depth-1), e.Op, text)
	t.explainer.lines = append(t.explainer.lines, shorten(line))
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
	name, ok := strings.CutPrefix(path, "data.documents.")
	if !ok {
		if name, ok = strings.CutPrefix(path, "data.caracal.authz."); !ok {
			return
		}
	}
	name, _, _ = strings.Cut(name, ".")
	if renamed, ok := normalizedNames[name]; ok {
		name = renamed
	}
	if slices.Contains(x.defined, name) {
		x.documents[name] = true
	}
}
