package policy

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// allowedBuiltins are the functions and operators that a module can use. None of them
// reads the network, the clock or a random source, and the size of a result can be
// estimated from those of the arguments (see weight.go).
var allowedBuiltins = []string{
	"eq", "assign", "equal", "neq", "gt", "gte", "lt", "lte", "internal.member_2", "internal.member_3",
	"plus", "minus", "mul", "div", "rem", "abs", "ceil", "floor", "round",
	"and", "or", "union", "intersection", "set_diff",
	"count", "sum", "max", "min", "sort", "all", "any",
	"array.concat", "array.flatten", "array.reverse", "array.slice",
	"object.filter", "object.get", "object.keys", "object.remove", "object.subset", "object.union", "object.union_n",
	"concat", "contains", "endswith", "format_int", "indexof", "lower", "split", "sprintf", "startswith", "strings.any_prefix_match",
	"strings.any_suffix_match", "strings.count", "strings.reverse", "substring", "to_number", "trim", "trim_left", "trim_prefix",
	"trim_right", "trim_space", "trim_suffix", "upper",
	"is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "type_name",
	"regex.match", "re_match", "semver.compare", "semver.is_valid", "time.parse_rfc3339_ns",
}

// capabilities restricts the parser and the compiler to allowedBuiltins and to the
// features of Rego that this package checks. That restricts evaluation too, because
// only what compiles is evaluated.
var capabilities = func() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool { return !slices.Contains(allowedBuiltins, b.Name) })
	c.AllowNet = []string{}
	c.FutureKeywords = []string{"contains", "every", "if", "in"}
	c.Features = []string{ast.FeatureRefHeads, ast.FeatureRefHeadStringPrefixes, ast.FeatureRegoV1, ast.FeatureRegoV1Import, ast.FeatureKeywordsInRefs}
	return c
}()

// forbiddenBuiltin reports whether a function exists in Rego but a module cannot
// use it.
func forbiddenBuiltin(name string) bool {
	_, exists := ast.BuiltinMap[name]
	return exists && !slices.Contains(allowedBuiltins, name)
}
