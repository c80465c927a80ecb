package policy

import (
	"fmt"
	"regexp/syntax"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

const (
	maxDigits       = 20_000  // of the numbers that are multiplied
	maxComparisons  = 1 << 26 // of the elements of two values with each other
	maxPatternSteps = 4 << 20 // of a regular expression: instructions times characters
	maxInstructions = 10_000  // of a regular expression
)

// capabilitiesByName has the numbers of arguments of the allowed functions.
var capabilitiesByName = func() map[string]int {
	counts := map[string]int{}
	for _, b := range capabilities.Builtins {
		counts[b.Name] = len(b.Decl.FuncArgs().Args)
	}
	return counts
}()

// call returns the size of the result of a call, and reports calls that can take too
// long. Without a case of its own, the result of a function is not larger than its
// arguments together.
func (w *weights) call(terms []*ast.Term, loc *ast.Location) size {
	name := terms[0].Value.String()
	var args []size
	var all size
	for _, t := range terms[1:] {
		args = append(args, w.term(t))
		all = all.join(args[len(args)-1])
	}
	if len(args) < capabilitiesByName[name] || len(args) == 0 {
		return all // the compiler reports it
	}
	number := func(n int) size {
		if n > maxDigits {
			w.report(loc, "The numbers can have too many digits.")
		}
		return scalar(n)
	}
	switch name {
	case "count", "indexof", "strings.count", "type_name", "time.parse_rfc3339_ns", "semver.compare", "semver.is_valid",
		"equal", "neq", "gt", "gte", "lt", "lte", "internal.member_2", "internal.member_3", "all", "any", "contains", "endswith", "startswith",
		"object.subset", "strings.any_prefix_match", "strings.any_suffix_match", "regex.match", "re_match",
		"is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string":
		w.checkCall(name, terms, args, loc)
		return scalar(40)
	case "abs", "ceil", "floor", "round":
		return number(args[0][0].size)
	case "plus", "rem":
		return number(max(args[0][0].size, args[1][0].size) + 1)
	case "mul", "div":
		return number(add(args[0][0].size, args[1][0].size))
	case "minus": // of numbers or sets
		s := args[0]
		s[0].size = max(s[0].size, args[1][0].size) + 1
		return s
	case "sum":
		return number(add(args[0][1].size, 20))
	case "format_int":
		return number(times(4, args[0][0].size))
	case "to_number":
		return scalar(4000) // to_number("1e-4000")
	case "max", "min":
		return args[0].elements().or(scalar(1))
	case "concat":
		return scalar(add(args[1][0].size, times(args[0][0].size, args[1][0].count)))
	case "sprintf":
		return w.sprintf(terms, args, loc)
	case "split":
		s := args[0][0].size
		return size{{times(2, s), s}, {s, s}}
	case "trim", "trim_left", "trim_right":
		w.checkCall(name, terms, args, loc)
		return scalar(args[0][0].size)
	case "lower", "upper":
		return scalar(times(3, args[0][0].size))
	}
	return all.flat()
}

// checkCall reports functions that compare each element or character of one argument
// with each of another, and regular expressions that are large.
func (w *weights) checkCall(name string, terms []*ast.Term, args []size, loc *ast.Location) {
	switch name {
	case "object.subset", "indexof", "trim", "trim_left", "trim_right":
		if a, b := args[0][0], args[1][0]; a.count > maxComparisons/max(b.size, 1) || b.count > maxComparisons/max(a.size, 1) {
			w.report(loc, fmt.Sprintf("The arguments of %s can be too large.", name))
		}
	case "regex.match", "re_match":
		pattern, ok := terms[1].Value.(ast.String)
		if !ok {
			w.report(loc, fmt.Sprintf("The pattern of %s must be a literal string.", name))
			return
		}
		if n := instructions(string(pattern)); n > min(maxInstructions, maxPatternSteps/max(args[1][0].size, 1)) {
			w.report(loc, "The regular expression is too large for the text.")
		}
	}
}

// instructions returns the number of instructions of a regular expression, or 0 if it
// is invalid.
func instructions(pattern string) int {
	if len(pattern) > 1000 {
		return maxInstructions + 1
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return 0
	}
	return len(program.Inst)
}

// sprintf returns the size of a formatted text, in which a nested text has quotes and
// escapes. A format must not pad to a width or use an argument twice.
func (w *weights) sprintf(terms []*ast.Term, args []size, loc *ast.Location) size {
	format, ok := terms[1].Value.(ast.String)
	switch {
	case !ok:
		w.report(loc, "The format of sprintf must be a literal string.")
	case hasWideVerb(string(format)):
		w.report(loc, "The format of sprintf must not have an argument index, or a width or precision of more than two digits.")
	}
	const width = 100 // of a verb, or of its error message
	formatted := add(times(4, args[1][0].size), times(width, add(strings.Count(string(format), "%"), args[1][0].count)))
	return scalar(add(formatted, args[0][0].size))
}

// hasWideVerb reports whether a verb of a format pads its argument to a width of more
// than two digits or to that of an argument, or has the index of an argument.
func hasWideVerb(format string) bool {
	for {
		_, after, found := strings.Cut(format, "%")
		if !found {
			return false
		}
		flags := after[:len(after)-len(strings.TrimLeft(after, "+-# 0123456789.[]*"))]
		digits := 0
		for _, c := range flags {
			if c < '0' || c > '9' {
				digits = 0
			} else if digits++; digits > 2 {
				return true
			}
			if c == '[' || c == '*' {
				return true
			}
		}
		format = strings.TrimPrefix(after[len(flags):], "%")
	}
}
