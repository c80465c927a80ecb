package policy

import "github.com/open-policy-agent/opa/v1/ast"

// Tests evaluate in parallel, on machines that do other work, too. The deadline must
// not fail those that are about something else.
func init() { evaluationTimeout = 4 * EvaluationTimeout }

// Value returns the input as the rules of policies read it.
func (i Input) Value() ast.Value { return i.term.Value }
