package policy

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// The evaluator checks its deadline between expressions, not while it copies,
// compares or formats one value. And a few short lines can make a value of any size:
// b := [a, a], c := [b, b] and so on, or [a | some x in xs]. So the sizes that values
// can reach are estimated before, as the compiler does with types.
const (
	// maxSize limits the size of a value: its characters, digits and elements, if each
	// part that is used twice is counted twice.
	maxSize = 8 << 20

	// inputSize and inputCount are the sizes of the input and of each list in it. Larger
	// inputs are possible: [ParseInput] limits them, and the deadline what is done with
	// all pairs of two lists.
	inputSize, inputCount = 4 << 10, 64
)

// A level describes the values at one depth of a value.
type level struct{ size, count int } // of the largest, and of the one with most elements or characters

// A size describes a value: its first level is the value itself, the next one its
// elements, keys and values, and so on. The last is for everything below.
type size [5]level

func scalar(n int) size { return size{{n, n}} }

// elements returns the size of the elements of a value.
func (s size) elements() size { return size{s[1], s[2], s[3], s[4], s[4]} }

// or returns the size of a value that is one of two.
func (s size) or(other size) size {
	for i := range s {
		s[i] = level{max(s[i].size, other[i].size), max(s[i].count, other[i].count)}
	}
	return s
}

// collection returns the size of a collection of n elements of a size.
func collection(n int, element size) size {
	last := size{element[3]}.or(size{element[4]})[0]
	return size{{add(1, times(n, max(element[0].size, 1))), n}, element[0], element[1], element[2], last}
}

// join returns the size of a collection with the elements of two.
func (s size) join(other size) size {
	joined := s.or(other)
	joined[0] = level{add(s[0].size, other[0].size), add(s[0].count, other[0].count)}
	return joined
}

// flat returns the size of a value whose elements can be from any depth of a value.
func (s size) flat() size {
	all := level{}
	for _, l := range s[1:] {
		all = level{max(all.size, l.size), max(all.count, l.count)}
	}
	return size{s[0], all, all, all, all}
}

// weights are the estimated sizes of the values of a rule and of documents.
type weights struct {
	docs    map[string]size
	vars    map[ast.Var]size // of the rule
	bound   map[ast.Var]bool // variables that are declared by := or in
	changed bool             // a size of a variable has changed
	problem *problem
}

// A problem is the first reason why a rule can become too expensive.
type problem struct {
	loc     *ast.Location
	message string // "" if a value can become too large
}

// checkWeight reports the first rule of modules whose values can become too large.
func checkWeight(modules map[string]*ast.Module, reports map[string]*issues) {
	w := &weights{docs: map[string]size{}}
	// Each pass follows the rules from one document to the next.
	for range documentNames {
		docs := map[string]size{}
		for _, id := range sortedKeys(modules) {
			for _, rule := range modules[id].Rules {
				name, loc := documentOf(rule), rule.Location
				s := w.rule(rule)
				if rule.Head.RuleKind() == ast.MultiValue || len(rule.Head.Ref()) > 1 {
					s = docs[name].join(s)
				} else {
					s = docs[name].or(s)
				}
				if docs[name] = s; w.problem == nil && s[0].size <= maxSize {
					continue
				}
				message := "The value of " + name + " can become too large."
				if w.problem != nil {
					loc = w.problem.loc
					if w.problem.message != "" {
						message = w.problem.message
					}
				}
				reports[id].add(loc, "too_complex", "%s", message)
				return
			}
		}
		if maps.Equal(docs, w.docs) {
			return
		}
		w.docs = docs
	}
}

// rule returns the size of what a rule defines.
func (w *weights) rule(rule *ast.Rule) size {
	w.vars, w.bound = map[ast.Var]size{}, map[ast.Var]bool{}
	expressions := 0
	ast.NewGenericVisitor(func(x any) bool {
		if e, ok := x.(*ast.Expr); ok {
			expressions++
			w.declare(e)
		}
		return false
	}).Walk(rule)
	var s size
	// A variable can be used before the expression that defines it.
	w.changed = true
	for pass := 0; w.changed && w.problem == nil; pass++ {
		w.changed, s = false, size{}
		for r := rule; r != nil; r = r.Else {
			s = s.or(w.branch(r))
		}
		if w.changed && pass > expressions+1 {
			w.report(rule.Location, "") // it grows with each pass
		}
	}
	return s
}

// branch returns the size of what a rule defines without its else.
func (w *weights) branch(rule *ast.Rule) size {
	terms := slices.Clone(rule.Head.Ref()[1:])
	for _, t := range []*ast.Term{rule.Head.Key, rule.Head.Value} {
		if t != nil {
			terms = append(terms, t)
		}
	}
	r := w.body(rule.Body, terms...)
	if rule.Head.RuleKind() == ast.MultiValue {
		return w.wrap(rule, collection(r.distinct(rule.Head.Key), w.term(rule.Head.Key)), r)
	}
	s := scalar(1)
	if rule.Head.Value != nil {
		s = w.term(rule.Head.Value)
	}
	return w.wrap(rule, s, r)
}

// wrap returns the size of the document that a rule with a value defines: the
// elements of its reference are the keys of objects.
func (w *weights) wrap(rule *ast.Rule, value size, r *repetition) size {
	ref := rule.Head.Ref()
	for i := len(ref) - 1; i > 0; i-- {
		key, n := w.term(ref[i]), r.distinct(ref[i])
		s := collection(n, key.or(value))
		s[0].size = add(1, times(n, add(key[0].size, value[0].size)))
		value = s
	}
	return value
}

// report keeps the first problem.
func (w *weights) report(loc *ast.Location, message string) {
	if w.problem == nil {
		w.problem = &problem{loc: loc, message: message}
	}
}

// declare notes the variables that an expression declares.
func (w *weights) declare(e *ast.Expr) {
	bind := func(t *ast.Term) {
		ast.WalkVars(t, func(v ast.Var) bool {
			w.bound[v] = true
			return false
		})
	}
	switch terms := e.Terms.(type) {
	case *ast.SomeDecl:
		for _, symbol := range terms.Symbols {
			if call, ok := symbol.Value.(ast.Call); ok {
				for _, variable := range call[1 : len(call)-1] {
					bind(variable)
				}
			}
		}
	case *ast.Every:
		bind(terms.Value)
		if terms.Key != nil {
			bind(terms.Key)
		}
	case []*ast.Term:
		if e.IsAssignment() {
			bind(terms[1])
		}
	}
}

// A repetition describes how often a body can be true: once for each combination of
// the values of its sources.
type repetition struct {
	sources []int                   // how many values each source has
	origin  map[ast.Var][]int       // the sources of a variable
	from    map[ast.Var][]*ast.Term // the terms from which a variable is calculated
}

// all returns how often the body can be true.
func (r *repetition) all() int {
	n := 1
	for _, count := range r.sources {
		n = times(n, max(count, 1))
	}
	return n
}

// distinct returns how many different values terms can have.
func (r *repetition) distinct(terms ...*ast.Term) int {
	seen, used, n := map[ast.Var]bool{}, map[int]bool{}, 1
	for len(terms) > 0 {
		var next []*ast.Term
		for _, t := range terms {
			ast.WalkVars(t, func(v ast.Var) bool {
				if seen[v] {
					return false
				}
				seen[v] = true
				next = append(next, r.from[v]...)
				for _, source := range r.origin[v] {
					if !used[source] {
						used[source], n = true, times(n, max(r.sources[source], 1))
					}
				}
				return false
			})
		}
		terms = next
	}
	return n
}

// generate adds a source of n values for variables.
func (r *repetition) generate(n int, variables ...*ast.Term) {
	for _, t := range variables {
		ast.WalkVars(t, func(v ast.Var) bool {
			r.origin[v] = append(r.origin[v], len(r.sources))
			return false
		})
	}
	r.sources = append(r.sources, n)
}

// calculate notes that the variables of a pattern are calculated from terms.
func (r *repetition) calculate(pattern *ast.Term, terms ...*ast.Term) {
	ast.WalkVars(pattern, func(v ast.Var) bool {
		r.from[v] = append(r.from[v], terms...)
		return false
	})
}

// body follows the expressions of a body, and of the terms that it is the condition of.
func (w *weights) body(body ast.Body, terms ...*ast.Term) *repetition {
	r := &repetition{origin: map[ast.Var][]int{}, from: map[ast.Var][]*ast.Term{}}
	references := ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension, *ast.Every:
			return true
		case ast.Ref:
			w.generators(x, r)
		}
		return false
	})
	for _, e := range body {
		w.expression(e, r)
		if !e.Negated {
			references.Walk(e)
		}
	}
	for _, t := range terms {
		references.Walk(t)
	}
	return r
}

// generators adds the variables of a reference that are not declared elsewhere: each
// can be any key of what it is an element of.
func (w *weights) generators(ref ast.Ref, r *repetition) {
	s, path := w.head(ref)
	for _, element := range path {
		if v, ok := element.Value.(ast.Var); ok && !w.bound[v] {
			if sources := r.origin[v]; len(sources) > 0 {
				r.sources[sources[0]] = max(r.sources[sources[0]], s[0].count)
			} else {
				r.generate(s[0].count, element)
			}
			w.assign(element, s.elements())
		}
		s = s.elements()
	}
}

// expression assigns sizes to the variables of an expression, and adds what it
// repeats.
func (w *weights) expression(e *ast.Expr, r *repetition) {
	switch terms := e.Terms.(type) {
	case *ast.Term:
		w.term(terms)
	case *ast.SomeDecl:
		for _, symbol := range terms.Symbols {
			if call, ok := symbol.Value.(ast.Call); ok { // some x in xs, some k, v in xs
				last := call[len(call)-1]
				domain := w.term(last)
				for _, variable := range call[1 : len(call)-1] {
					w.assign(variable, domain.elements())
					r.calculate(variable, last)
				}
				r.generate(domain[0].count, call[1:len(call)-1]...)
			}
		}
	case *ast.Every:
		domain := w.term(terms.Domain)
		w.assign(terms.Value, domain.elements())
		if terms.Key != nil {
			w.assign(terms.Key, domain.elements())
		}
		w.body(terms.Body)
	case []*ast.Term:
		if (e.IsAssignment() || e.IsEquality()) && len(terms) == 3 {
			a, b := w.term(terms[1]), w.term(terms[2])
			w.assign(terms[1], b)
			r.calculate(terms[1], terms[2])
			if e.IsEquality() {
				w.assign(terms[2], a)
				r.calculate(terms[2], terms[1])
			}
			return
		}
		s := w.call(terms, e.Location)
		if n := capabilitiesByName[terms[0].Value.String()]; n > 0 && len(terms)-1 > n { // f(x, y) is y = f(x)
			w.assign(terms[n+1], s)
			r.calculate(terms[n+1], terms[1:n+1]...)
		}
	}
}

// assign records that the variables of a pattern can have a size.
func (w *weights) assign(pattern *ast.Term, s size) {
	each := func(t *ast.Term) { w.assign(t, s.elements()) }
	switch value := pattern.Value.(type) {
	case ast.Var:
		if merged := w.vars[value].or(s); merged != w.vars[value] {
			w.vars[value], w.changed = merged, true
		}
	case *ast.Array:
		value.Foreach(each)
	case ast.Object:
		value.Foreach(func(k, v *ast.Term) { each(k); each(v) })
	}
}

// head returns the size of the document or the value that a reference starts with,
// and the path in it.
func (w *weights) head(ref ast.Ref) (size, []*ast.Term) {
	if isDocument(ref) {
		return w.docs[string(ref[3].Value.(ast.String))], ref[4:]
	}
	return w.term(ref[0]), ref[1:]
}

// term returns the size of a term.
func (w *weights) term(t *ast.Term) size {
	s := w.value(t)
	if s[0].size > maxSize {
		w.report(t.Location, "")
	}
	return s
}

func (w *weights) value(t *ast.Term) size {
	container := size{{1, 0}}
	add := func(t *ast.Term) {
		container = container.join(collection(1, w.term(t)))
	}
	switch value := t.Value.(type) {
	case ast.String:
		return scalar(len(value) + 1)
	case ast.Number:
		return scalar(digits(string(value)))
	case ast.Var:
		if value == "input" {
			part := level{inputCount, inputCount}
			return size{{inputSize, inputCount}, part, part, part, part}
		}
		if s, ok := w.docs[string(value)]; ok && !w.bound[value] {
			return s
		}
		return w.vars[value].or(scalar(1))
	case ast.Ref:
		s, path := w.head(value)
		for _, element := range path {
			w.term(element)
			s = s.elements()
		}
		return s.or(scalar(1))
	case *ast.Array:
		value.Foreach(add)
	case ast.Set:
		value.Foreach(add)
	case ast.Object:
		value.Foreach(func(k, v *ast.Term) { add(k); add(v) })
	case *ast.ArrayComprehension:
		r := w.body(value.Body, value.Term)
		return collection(r.all(), w.term(value.Term))
	case *ast.SetComprehension:
		r := w.body(value.Body, value.Term)
		return collection(r.distinct(value.Term), w.term(value.Term))
	case *ast.ObjectComprehension:
		r := w.body(value.Body, value.Key, value.Value)
		n := r.distinct(value.Key)
		return collection(n, w.term(value.Key)).join(collection(n, w.term(value.Value)))
	case ast.Call:
		return w.call(value, t.Location)
	}
	return container.or(scalar(1))
}

// digits returns the number of digits of a number written without an exponent.
func digits(n string) int {
	_, exponent, _ := strings.Cut(strings.ToLower(n), "e")
	e, _ := strconv.Atoi(exponent)
	return add(len(n), max(e, -e))
}

func add(a, b int) int { return min(a+b, 2*maxSize) }

func times(a, b int) int {
	if a > 0 && b > 2*maxSize/a {
		return 2 * maxSize
	}
	return a * b
}
