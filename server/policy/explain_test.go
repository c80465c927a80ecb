package policy_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/policy"
)

func TestExplainReportsWhatWasRead(t *testing.T) {
	t.Parallel()
	b := compile(t, ids, grants, risk, `restrict contains "read only" if input.session.id == "frozen"`)
	x, err := b.Explain(t.Context(), parseInput(t, mintInput(nil)), false)
	if err != nil {
		t.Fatal(err)
	}
	if x.Result.Decision != "allow" || x.Trace != nil {
		t.Errorf("result %+v, %d lines of trace", x.Result, len(x.Trace))
	}
	if want := []string{"app_ids", "grants", "restrict", "risk", "approval_tiers"}; !sameElements(x.Documents, want) {
		t.Errorf("documents %v, want %v", x.Documents, want)
	}
	for _, path := range []string{"input.session.id", "input.principal.id", "input.principal.labels", "input.context.requested_scopes"} {
		if !slices.Contains(x.Inputs, path) {
			t.Errorf("inputs %v do not contain %s", x.Inputs, path)
		}
	}
	if slices.Contains(x.Inputs, "input.context.challenge_resolved") {
		t.Error("the contract does not read challenge_resolved")
	}
}

func sameElements(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func TestExplainTraces(t *testing.T) {
	t.Parallel()
	b := compile(t, ids, grants, `restrict contains "read only" if input.session.id == "frozen"`)
	x, err := b.Explain(t.Context(), parseInput(t, mintInput(nil)), true)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(x.Trace, "\n")
	for _, want := range []string{`input.session.id == "frozen"`, "contract.rego", "result.rego"} {
		if !strings.Contains(text, want) {
			t.Errorf("the trace does not contain %s:\n%s", want, text)
		}
	}
}

func TestExplainDecidesLikeDecide(t *testing.T) {
	t.Parallel()
	b := compile(t, ids, grants, risk, confinement)
	for _, input := range []object{mintInput(nil), useInput(nil), bootstrapInput(nil), mintInput(object{"principal.labels": []string{"viewer"}})} {
		want := decide(t, b, input)
		x, err := b.Explain(t.Context(), parseInput(t, input), true)
		if err != nil {
			t.Fatal(err)
		}
		if got := x.Result; got.Decision != want.Decision || !slices.Equal(got.DeterminingPolicies, want.DeterminingPolicies) {
			t.Errorf("explained %+v, decided %+v", got, want)
		}
	}
}

func TestExplainReturnsTheTraceOfAFailure(t *testing.T) {
	t.Parallel()
	b := compile(t, ids, `restrict := ["a"] if input.session.id
restrict := ["b"] if input.principal.id`)
	x, err := b.Explain(t.Context(), parseInput(t, mintInput(object{"session": object{"id": "s"}})), true)
	var failed *policy.EvaluationError
	if !errors.As(err, &failed) || failed.Code != "conflicting_document" || len(x.Trace) == 0 {
		t.Errorf("error %v, %d lines of trace", err, len(x.Trace))
	}
}
