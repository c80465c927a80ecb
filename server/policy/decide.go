package policy

import (
	"context"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A Result is the result of the decision contract (policy-evaluation.md §5).
type Result struct {
	Decision            string   // "allow" or "deny"
	EvaluationStatus    string   // "complete"
	DeterminingPolicies []string // names of rules of the contract, such as caracal-payments-mint
	Diagnostics         []Diagnostic
}

// A Diagnostic explains a result. One of its fields is set.
type Diagnostic struct {
	Reason         string // why the request is denied
	StepUpRequired string // the challenge that must be resolved before a token is returned
	Risk           []Tag  // the requested scopes that have a tier of risk
}

// A Tag is the tier of risk of a scope.
type Tag struct{ Scope, Tier string }

// denyUndefined is the result if the contract defines none.
var denyUndefined = Result{Decision: "deny", EvaluationStatus: "complete", Diagnostics: []Diagnostic{{Reason: "no_rule_matched"}}}

// An EvaluationError is the error of a decision that failed. Its message is for the
// author of the policies.
type EvaluationError struct {
	Code    string // evaluation_timeout, conflicting_document or evaluation_error
	Message string
}

func (e *EvaluationError) Error() string { return e.Message }

// data is what the contract reads.
type data struct {
	documents ast.Object
	restrict  ast.Value
}

// Get returns the value of a reference that starts with data.documents.
func (d data) Get(ref ast.Ref) ast.Value {
	if len(ref) < 3 || ref[1].Value.Compare(documentsKey) != 0 {
		return nil
	}
	if ref[2].Value.Compare(restrictKey) == 0 {
		if d.restrict == nil {
			return nil
		}
		value, _ := d.restrict.Find(ref[3:])
		return value
	}
	value, _ := d.documents.Find(ref[2:])
	return value
}

func (data) Put(ast.Ref, ast.Value) {}

var documentsKey, restrictKey ast.Value = ast.String("documents"), ast.String("restrict")

// Decide returns the decision about a request. It returns an [*EvaluationError] if
// the evaluation fails or takes longer than [EvaluationTimeout].
func (b *Bundle) Decide(ctx context.Context, input Input) (Result, error) {
	return b.decide(ctx, input, nil)
}

func (b *Bundle) decide(ctx context.Context, input Input, x *explainer) (Result, error) {
	restrict := b.restrict
	if restrict == nil {
		value, err := b.restrictRules.value(ctx, nil, input.term, x.tracer())
		if err != nil {
			return Result{}, evaluationError(ctx, err)
		}
		restrict = restrictions(value)
	}
	value, err := contract().result.value(ctx, data{documents: b.documents, restrict: restrict}, input.normalized, x.tracer())
	if err != nil {
		return Result{}, evaluationError(ctx, err)
	}
	if value == nil {
		return denyUndefined, nil
	}
	result, err := toResult(value)
	if err != nil {
		return Result{}, err
	}
	for _, d := range result.Diagnostics {
		for i, tag := range d.Risk {
			if i > 0 && tag.Scope == d.Risk[i-1].Scope {
				return Result{}, &EvaluationError{Code: "conflicting_document", Message: fmt.Sprintf("risk has two tiers for the scope %s", tag.Scope)}
			}
		}
	}
	return result, nil
}

// restrictions returns an empty set if restrict is undefined or empty, and a set with
// an element if it has one. Any other value is returned as it is, and denies.
func restrictions(value ast.Value) ast.Value {
	elements := 0
	switch value := value.(type) {
	case nil:
	case *ast.Array:
		elements = value.Len()
	case ast.Set:
		elements = value.Len()
	case ast.Object:
		elements = value.Len()
	default:
		return value
	}
	if elements == 0 {
		return ast.NewSet()
	}
	return ast.NewSet(ast.BooleanTerm(true))
}

func evaluationError(ctx context.Context, err error) error {
	e := &EvaluationError{Code: evaluationCode(err), Message: evaluationMessage(err)}
	if ctx.Err() != nil {
		e.Message = "the time for all decisions of the request is over"
	}
	return e
}

var errNotAResult = errors.New("the decision contract returned something else than a result")

// toResult converts the value of data.caracal.authz.result.
func toResult(value ast.Value) (Result, error) {
	object, ok := value.(ast.Object)
	if !ok {
		return Result{}, errNotAResult
	}
	r := Result{Decision: field(object, "decision"), EvaluationStatus: field(object, "evaluation_status")}
	if r.Decision != "allow" && r.Decision != "deny" || r.EvaluationStatus != "complete" {
		return Result{}, errNotAResult
	}
	for policy := range entries(object, "determining_policies") {
		r.DeterminingPolicies = append(r.DeterminingPolicies, field(policy, "policy"))
	}
	for entry := range entries(object, "diagnostics") {
		d := Diagnostic{Reason: field(entry, "reason"), StepUpRequired: field(entry, "step_up_required")}
		for tag := range entries(entry, "risk") {
			d.Risk = append(d.Risk, Tag{Scope: field(tag, "scope"), Tier: field(tag, "tier")})
		}
		r.Diagnostics = append(r.Diagnostics, d)
	}
	return r, nil
}

// field returns a text field of an object, or "".
func field(object ast.Object, name string) string {
	if term := object.Get(ast.InternedTerm(name)); term != nil {
		if s, ok := term.Value.(ast.String); ok {
			return string(s)
		}
	}
	return ""
}

// entries iterates over the objects of a list that is a field of an object.
func entries(object ast.Object, name string) func(func(ast.Object) bool) {
	return func(yield func(ast.Object) bool) {
		term := object.Get(ast.InternedTerm(name))
		if term == nil {
			return
		}
		list, _ := term.Value.(*ast.Array)
		for i := range list.Len() {
			if entry, ok := list.Elem(i).Value.(ast.Object); ok && !yield(entry) {
				return
			}
		}
	}
}
