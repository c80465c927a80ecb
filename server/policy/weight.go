package policy

import (
	"regexp"

	"github.com/open-policy-agent/opa/v1/ast"
)

// maxWeight limits the size that a value of a rule can reach, roughly in bytes, if
// every part that is used twice is copied.
const maxWeight = 4 << 20

// sharedWeight is what a reference to the input counts, which can be as large as
// [MaxInputBytes].
const sharedWeight = 4 << 10

// weights are upper bounds of the sizes of values. A rule can double a value with
// each line (b := [a, a]; c := [b, b]; …), so that a short module takes more memory
// and time than any deadline prevents: the evaluator checks its deadline between
// expressions, not while it copies or compares one value.
type weights struct {
	vars    map[ast.Var]int // of the rule
	docs    map[string]int  // of all modules
	changed bool
}

// checkWeight reports the first rule of modules whose values can become too large.
func checkWeight(modules map[string]*ast.Module, reports map[string]*issues) {
	w := &weights{docs: map[string]int{}}
	// Each pass follows the rules from one document to the next.
	for range documentNames {
		for _, id := range sortedKeys(modules) {
			for _, rule := range modules[id].Rules {
				for r := rule; r != nil; r = r.Else {
					if size := w.rule(r); size > maxWeight {
						reports[id].add(r.Location, "too_complex", "The value of %s can become too large.", documentOf(rule))
						return
					} else if name := documentOf(rule); size > w.docs[name] {
						w.docs[name] = size
					}
				}
			}
		}
	}
}

// rule returns the size of what a rule defines.
func (w *weights) rule(rule *ast.Rule) int {
	w.vars = map[ast.Var]int{}
	size := 0
	for w.changed = true; w.changed && size <= maxWeight; {
		w.changed = false
		size = 0
		ast.NewGenericVisitor(func(x any) bool {
			switch x := x.(type) {
			case *ast.Rule:
				if x != rule {
					return true // an else branch
				}
			case *ast.Expr:
				size = max(size, w.expression(x))
			}
			return false
		}).Walk(rule)
		if rule.Head.Value != nil {
			size = max(size, w.term(rule.Head.Value))
		}
		if rule.Head.Key != nil {
			size = max(size, w.term(rule.Head.Key))
		}
	}
	return size
}

// expression assigns a size to the variables of an expression, and returns the
// largest size of its terms.
func (w *weights) expression(e *ast.Expr) int {
	switch terms := e.Terms.(type) {
	case *ast.Term:
		return w.term(terms)
	case *ast.SomeDecl:
		size := 0
		for _, symbol := range terms.Symbols {
			if call, ok := symbol.Value.(ast.Call); ok { // some x in xs, some k, v in xs
				size = w.term(call[len(call)-1])
				for _, variable := range call[1 : len(call)-1] {
					w.assign(variable, size)
				}
			}
		}
		return size
	case *ast.Every:
		size := w.term(terms.Domain)
		w.assign(terms.Value, size)
		if terms.Key != nil {
			w.assign(terms.Key, size)
		}
		return size
	case []*ast.Term:
		size := 0
		for _, t := range terms[1:] {
			size = max(size, w.term(t))
		}
		if e.IsAssignment() || e.IsEquality() {
			a, b := terms[1], terms[2]
			sizeA, sizeB := w.term(a), w.term(b)
			w.assign(a, sizeB)
			if e.IsEquality() {
				w.assign(b, sizeA)
			}
			return size
		}
		total := 1
		for _, t := range terms[1:] {
			total = add(total, w.term(t))
		}
		return total
	}
	return 0
}

// assign records that the variables of a pattern can have a size.
func (w *weights) assign(pattern *ast.Term, size int) {
	switch pattern.Value.(type) {
	case ast.Var, *ast.Array, ast.Object:
		ast.WalkVars(pattern, func(v ast.Var) bool {
			if w.vars[v] < size {
				w.vars[v], w.changed = size, true
			}
			return false
		})
	}
}

// widthVerb matches a verb of a format that pads its argument to a width of more
// than two digits or to that of an argument.
var widthVerb = regexp.MustCompile(`%[^a-zA-Z%]*([0-9]{3}|\*)`)

// term returns the size of a term.
func (w *weights) term(t *ast.Term) int {
	total := 1
	switch value := t.Value.(type) {
	case ast.String:
		return len(value) + 1
	case ast.Number:
		return len(value)
	case ast.Var:
		if value == "input" {
			return sharedWeight
		}
		return max(w.vars[value], w.docs[string(value)], 1)
	case ast.Ref:
		switch {
		case isDocument(value):
			return max(w.docs[string(value[3].Value.(ast.String))], 1)
		case len(value) > 0:
			return w.term(value[0]) // an element is not larger than what contains it
		}
	case *ast.Array:
		value.Foreach(func(e *ast.Term) { total = add(total, w.term(e)) })
	case ast.Set:
		value.Foreach(func(e *ast.Term) { total = add(total, w.term(e)) })
	case ast.Object:
		value.Foreach(func(k, v *ast.Term) { total = add(total, add(w.term(k), w.term(v))) })
	case *ast.ArrayComprehension:
		return add(w.term(value.Term), sharedWeight)
	case *ast.SetComprehension:
		return add(w.term(value.Term), sharedWeight)
	case *ast.ObjectComprehension:
		return add(add(w.term(value.Key), w.term(value.Value)), sharedWeight)
	case ast.Call:
		for _, argument := range value[1:] {
			total = add(total, w.term(argument))
		}
		if value[0].Value.String() == "sprintf" {
			if format, ok := value[1].Value.(ast.String); !ok || widthVerb.MatchString(string(format)) {
				return maxWeight + 1
			}
		}
	}
	return total
}

// add returns a sum that does not overflow.
func add(a, b int) int { return min(a+b, 2*maxWeight) }
