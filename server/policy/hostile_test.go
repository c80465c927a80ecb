package policy_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"caracal.run/management/server/policy"
)

// maxAllocated is what the validation of any content may allocate in total.
const maxAllocated = 256 << 20

var repeat = strings.Repeat

// lines returns n lines, each with its number for %d.
func lines(n int, line string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(line, "%d", fmt.Sprint(i)))
		b.WriteByte('\n')
	}
	return b.String()
}

// chain returns a rule with variables x0 to xn, each made of the one before: P in next.
func chain(n int, first, next string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "restrict contains 1 if {\nx0 := %s\n", first)
	for i := range n {
		fmt.Fprintf(&b, "x%d := %s\n", i+1, strings.ReplaceAll(next, "P", fmt.Sprintf("x%d", i)))
	}
	fmt.Fprintf(&b, "x%d != 0\n}", n)
	return b.String()
}

// withStrings returns a rule whose body starts with a list xs of n strings.
func withStrings(n int, body string) string {
	return "restrict contains 1 if {\nxs := [" + lines(n, `"s%d",`) + "]\n" + body + "\n}"
}

// TestHostileContentIsBounded requires that content which is made to take time or
// memory is either valid or has an issue, within a bounded time and memory. The test
// is not parallel, because it measures what the whole process allocates.
func TestHostileContentIsBounded(t *testing.T) {
	text := `"` + repeat("a", 300_000) + `"`
	for _, tt := range []struct{ name, rules, want string }{
		// Values that grow.
		{"arrays", chain(40, "[1]", "[P, P]"), "too_complex"},
		{"objects", chain(40, `{"a": 1}`, `{"a": P, "b": P}`), "too_complex"},
		{"sets", chain(40, `{1}`, `{[P, 1], [P, 2]}`), "too_complex"},
		{"array.concat", chain(40, "[1]", "array.concat(P, P)"), "too_complex"},
		{"concat", chain(40, `"aa"`, `concat("", [P, P])`), "too_complex"},
		{"concat with a separator", chain(40, `"aa"`, `concat(P, [P, "b"])`), "too_complex"},
		{"sprintf", chain(40, `"aa"`, `sprintf("%s%s", [P, P])`), "too_complex"},
		{"quotes in quotes", chain(40, `"\""`, `sprintf("%v", [[P]])`), "too_complex"},
		{"object.union", chain(40, `{"a": 1}`, `object.union({"b": P}, {"a": P})`), "too_complex"},
		{"union", chain(40, `{1}`, `union({{[P, 1]}, {[P, 2]}})`), "too_complex"},
		{"flatten", chain(40, `[1]`, `array.flatten([P, P])`), "too_complex"},
		{"split", chain(40, `split("`+repeat("a", 1000)+`", "")`, `array.concat(P, P)`), "too_complex"},
		{"products", chain(40, "9999999999999999999999", "P * P"), "too_complex"},
		{"products of large exponents", chain(40, "1e300", "P * P"), "too_complex"},
		{"products of small exponents", chain(40, "1e-300", "P * P"), "too_complex"},
		{"quotients", chain(40, "1e300", "P / (1 / P)"), "too_complex"},
		{"sums and products", chain(40, "9999999999999999999999", "sum([P, P]) * P"), "too_complex"},
		{"rounded products", chain(40, "1e300", "floor(P) * P"), "too_complex"},
		{"products of texts", chain(40, `to_number("1e300")`, "P * P"), "too_complex"},
		{"format_int", chain(40, `1e300`, "to_number(format_int(P, 10)) * P"), "too_complex"},
		{"template strings", chain(40, `"aa"`, `$"{P}{P}"`), "parse_error:6"},
		{"unification", "restrict contains 1 if [x, y] = [[y, y], [1, x]]", "too_complex"},
		{"comprehensions", withStrings(1000, "a := [xs | some x in xs]\nb := [a | some x in xs]\nb == b"), "too_complex"},
		{"generated comprehensions", withStrings(1000, "a := [xs | xs[i]]\nb := [a | xs[i]]\nb == b"), "too_complex"},
		{"generated elements", withStrings(1000, "a := [[xs[_], xs[_], xs[_]] | true]\na == a"), "too_complex"},
		{"generated elements of a set", withStrings(1000, "a := {[xs[i], xs[j], xs[k]] | true}\na == a"), "too_complex"},
		{"generated parts", "confinement contains [approval_tiers[_], approval_tiers[_], approval_tiers[_]]\napproval_tiers := [" + lines(1000, `"s%d",`) + "]", "too_complex"},
		{"generated keys", "risk[[approval_tiers[_], approval_tiers[_], approval_tiers[_]]].x := 1\napproval_tiers := [" + lines(1000, `"s%d",`) + "]", "too_complex"},
		{"sets of comprehensions", withStrings(300, "a := {[x, y] | some x in xs; some y in xs}\nb := {[x, y] | some x in a; some y in a}"), "too_complex"},
		{"objects of comprehensions", withStrings(1000, "o := {[x, y]: xs | some x in xs; some y in xs}"), "too_complex"},
		{"concat of a comprehension", "restrict contains y if { s := " + text + "; y := concat(\"\", [s | some x in [" + repeat("1,", 1000) + "]]) }", "too_complex"},
		{"texts of a comprehension", "restrict contains y if { s := " + text + "; y := [concat(\"\", [s, x]) | some x in [" + repeat("\"x\",", 1000) + "]] }", "too_complex"},
		{"concat with a long separator", "restrict contains concat(" + text + ", [" + repeat(`"x",`, 1000) + "])", "too_complex"},
		{"grants that share roles", `grants := g if {
	xs := [` + lines(500, `"s%d",`) + `]
	roles := {x: xs | some x in xs}
	g := {x: {"application": "a", "roles": roles} | some x in xs}
}`, "too_complex"},
		{"parts of a document", `app_ids[[x, y]] := y if {
	xs := [` + lines(3000, `"s%d",`) + `]
	some x in xs
	some y in xs
}`, "too_complex"},
		{"one document of another", strings.ReplaceAll(chain(10, "[1]", "[P, P, P]"), "restrict contains 1", "risk := x10") + "\n" +
			strings.ReplaceAll(chain(10, "risk", "[P, P, P]"), "restrict contains 1", "confinement := x10"), "too_complex"},
		{"one document of another by its path", strings.ReplaceAll(chain(10, "[1]", "[P, P, P]"), "restrict contains 1", "risk := x10") + "\n" +
			strings.ReplaceAll(chain(10, "data.caracal.authz.risk", "[P, P, P]"), "restrict contains 1", "confinement := x10"), "too_complex"},
		{"parts of one document of another", "risk contains [" + repeat("1,", 3000) + "]\n" + lines(2000, "confinement contains [%d, risk]"), "too_complex"},
		{"else", "restrict := {} if {\n1 == 2\n} else := x40 if {\n" + strings.TrimPrefix(chain(40, "[1]", "[P, P]"), "restrict contains 1 if {\n"), "too_complex"},

		// Functions that take long.
		{"width of sprintf", `restrict contains sprintf("%999999999d", [1])`, "too_complex"},
		{"precision of sprintf", `restrict contains sprintf("%.999999999f", [1.5])`, "too_complex"},
		{"width of sprintf from an argument", `restrict contains sprintf("%*d", [999999999, 1])`, "too_complex"},
		{"arguments of sprintf used twice", "restrict contains sprintf(\"" + repeat("%[1]v", 1000) + "\", [" + text + "])", "too_complex"},
		{"variable format", `restrict contains sprintf(f, [1]) if f := concat("", ["%", "999999999d"])`, "too_complex"},
		{"regular expression", "restrict contains 1 if regex.match(\"" + repeat("(a|a){100}", 30) + "b$\", " + text + ")", "too_complex"},
		{"large regular expression", "restrict contains 1 if regex.match(\"" + repeat("a{1000}", 100) + "\", \"x\")", "too_complex"},
		{"long regular expression", "restrict contains 1 if regex.match(\"" + repeat("a", 100_000) + "\", \"x\")", "too_complex"},
		{"regular expression of the input", `restrict contains 1 if regex.match(input.action.path, "x")`, "too_complex"},
		{"variable regular expression", `restrict contains 1 if { p := "x"; regex.match(p, "x") }`, "too_complex"},
		{"regular expression in an old module", `restrict contains 1 if re_match(input.action.path, "x")`, "too_complex"},
		{"invalid regular expression", `restrict contains 1 if regex.match("(", input.action.path)`, ""},
		{"subset", "restrict contains 1 if object.subset([" + repeat("1,", 20_000) + "], [" + repeat("1,", 10_000) + "2])", "too_complex"},
		{"indexof", "restrict contains 1 if indexof(\"" + repeat("é", 60_000) + "\", \"" + repeat("é", 30_000) + "x\") > 0", "too_complex"},
		{"trim", "restrict contains trim(\"" + repeat("é", 60_000) + "\", \"" + repeat("è", 30_000) + "é\")", "too_complex"},
		{"exponent of a text", `restrict contains 1 if to_number("1e-999999999") + 1 > 0`, ""},
		{"exponent", "restrict contains 1e400", "number_out_of_range"},
		{"negative exponent", "restrict contains 1e-400", "number_out_of_range"},
		{"large exponent", "restrict contains 1e999999999", "parse_error:4"},
		{"digits", "restrict contains " + repeat("9", 1000), "number_out_of_range"},
		{"many digits", "restrict contains " + repeat("9", 100_000), "parse_error:4"},
		{"numbers.range", "restrict := numbers.range(1, 1000000000)", "forbidden_builtin:numbers.range"},
		{"walk", "restrict contains x if walk(input, x)", "forbidden_builtin:walk"},
		{"glob", `restrict contains 1 if glob.match("**", [], "x")`, "forbidden_builtin:glob.match"},

		// Evaluation.
		{"three lists", withStrings(1000, "some a in xs\nsome b in xs\nsome c in xs\na == b\nb != c"), "evaluation_timeout:restrict"},
		{"every", withStrings(1000, "every a in xs { every b in xs { every c in xs { a; b; c } } }"), "evaluation_timeout:restrict"},
		{"recursion", "app_ids := grants\ngrants := risk\nrisk := app_ids", "compile_error:4"},

		// Compilation.
		{"expressions", "restrict contains 1 if {\n" + repeat("1 == 1\n", 20_000) + "}", "too_complex"},
		{"variables", "restrict contains 1 if {\n" + lines(10_000, "y%d := 1") + "}", "too_complex"},
		{"variables in reverse", "restrict contains 1 if {\n" + lines(1000, "x%d = y%d\ny%d = z%d") + "}", "too_complex"},
		{"some", "restrict contains 1 if {\n" + lines(10_000, "some y%d in [1]\ny%d == 1") + "}", "too_complex"},
		{"else branches", "restrict := {1} if { 1 == 2 }" + repeat(" else := {2} if { 1 == 2 }\n", 2000), "too_complex"},
		{"nested comprehensions", "restrict := " + repeat("[1 | ", 99) + "1 == 1" + repeat("]", 99), "too_complex"},
		{"nested every", "restrict contains 1 if " + repeat("{ every x in [1] ", 30) + "{ x }" + repeat("}", 30), "too_complex"},
		{"many comprehensions", "restrict := [" + repeat("[1 | y := [2 | z := 1]],", 5000) + "]", "too_complex"},
		{"rules with expressions", lines(500, "restrict contains %d if {"+repeat(" y = 1;", 40)+" y }"), "too_complex"},
		{"calls", "restrict := [" + repeat("count([1]),", 20_000) + "]", "too_complex"},
		{"operators", "restrict := [1" + repeat("+1", 5000) + "]", "too_complex"},
		{"many operators", "restrict := [1" + repeat("+1", 100_000) + "]", "parse_error:4"},
		{"references in a list", "restrict := [" + repeat("input.x,", 20_000) + "]", "too_complex"},
		{"long reference", "restrict := input" + repeat(".x", 100_000), "too_complex"},
		{"long reference in brackets", "restrict := input" + repeat("[0]", 50_000), "too_complex"},
		{"long head", "grants" + repeat(".x", 100_000) + " := 1", "too_complex"},

		// Syntax.
		{"nested brackets", "restrict := " + repeat("[", 100_000) + repeat("]", 100_000), "too_complex"},
		{"nested brackets without end", "restrict := " + repeat("[", 300_000), "unbalanced_delimiters"},
		{"quotes", repeat(`"`, 300_001), "unterminated_string"},
		{"minus", "restrict := {" + repeat("-", 100_000) + "1}", "parse_error:4"},
		{"not", "restrict contains 1 if " + repeat("not ", 100_000) + "true", "parse_error:4"},
		{"values", "approval_tiers := [" + repeat("1,", 250_000) + "]", "too_complex"},
		{"errors", repeat("app_ids := ;\n", 20_000), "parse_error:4"},
		{"errors in long content", "app_ids := {" + repeat("\"a\": \"b\",\n", 20_000) + "}\n" + repeat("risk := ;\n", 20_000), "parse_error:20005"},
		{"wrong rules", lines(10_000, "x%d := 1"), "unknown_document:x0"},
		{"wrong values of an object", "app_ids := {" + lines(30_000, `"k%d": 1,`) + "}", "invalid_document:app_ids"},
		{"wrong values of a set", "risk := {" + lines(30_000, `"k%d",`) + "}", "invalid_document:risk"},
		{"wrong parts", lines(500, `app_ids["k%d"] := 1`), "invalid_document:app_ids"},
		{"different values", lines(500, `app_ids.k := "v%d"`), "conflicting_document:app_ids"},
		{"comments", repeat("#\n", 200_000) + "restrict := {}", ""},
		{"empty lines", repeat("\n", 500_000) + "restrict := {}", ""},
		{"long text", "restrict contains " + text, ""},
		{"long text with escapes", `restrict contains "` + repeat(`\n`, 200_000) + `"`, ""},
		{"long raw string", "restrict contains `" + repeat("a\n", 200_000) + "`", ""},
		{"long name", repeat("x", 500_000) + " := 1", "unknown_document:" + repeat("x", 83) + "…"},
		{"long variable", "restrict contains 1 if " + repeat("x", 500_000) + " := 1", ""},
		{"large object", "app_ids := {" + lines(30_000, `"k%d": "v",`) + "}", ""},
		{"many rules", repeat("restrict contains 1\n", 10_000), ""},
		{"large grants", grantsOf(3000), ""},
		{"set of numbers with one hash", "restrict := {" + lines(100_000, "0.00%d,") + "}", "too_complex"},
		{"object of numbers with one hash", "app_ids := {" + lines(50_000, "0.00%d: 1,") + "}", "too_complex"},
		{"list of numbers with one hash", "restrict := [" + lines(100_000, "0.00%d,") + "]", ""},
		{"bodies", "restrict contains 1 if 1" + repeat("{1}", 90_000), "too_complex"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			content := document(tt.rules)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			issues := issuesOf(ctx, t, content, policy.InputSchemaVersion)
			runtime.ReadMemStats(&after)
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > maxAllocated {
				t.Errorf("%d MiB were allocated", allocated>>20)
			}
			if ctx.Err() != nil {
				t.Error(ctx.Err())
			}
			requireComplete(t, content, issues)
			got := ""
			if len(issues) > 0 {
				got = issues[0].Code
			}
			if got != tt.want {
				t.Errorf("got %q, want %q: %.300v", got, tt.want, issues)
			}
		})
	}
}

// TestHostileDecisionsAreBounded requires that a decision with the largest input ends,
// with a result or an error, within a bounded time and memory.
func TestHostileDecisionsAreBounded(t *testing.T) {
	labels := make([]string, 1000)
	for i := range labels {
		labels[i] = fmt.Sprint("l", i)
	}
	labels[0] = "payer"
	many := mintInput(object{"principal.labels": labels})
	long := mintInput(object{"action.path": "/" + repeat("é", 2000), "principal.labels": []string{"payer", repeat("é", 500)}})
	deep := mintInput(object{"delegation_edge.constraints_json": nested(4000)})
	for _, tt := range []struct {
		name, rules string
		input       object
		want        string // the decision, or the code of the error
	}{
		{"all pairs of labels", `restrict contains sprintf("%s-%s", [a, b]) if { some a in input.principal.labels; some b in input.principal.labels }`, many, "evaluation_timeout"},
		{"all triples of labels", `restrict contains 1 if { some a in input.principal.labels; some b in input.principal.labels; some c in input.principal.labels; a == b; b != c; c == "x" }`, many, "evaluation_timeout"},
		{"labels of labels", `restrict contains 1 if [input.principal.labels | some a in input.principal.labels] == [input.principal.labels | some a in input.principal.labels; a != "x"]`, many, "deny"},
		{"long text", `restrict contains 1 if regex.match("^/(a|é)*x", input.action.path)`, long, "allow"},
		{"long texts", `restrict contains 1 if indexof(input.action.path, input.principal.labels[1]) > 0`, long, "deny"},
		{"all of a deep value", `restrict contains input`, deep, "deny"},
		{"a deep value as a text", `restrict contains sprintf("%v", [input])`, deep, "deny"},
		{"a deep value twice", `restrict contains 1 if [input, 1] == [input, 1]`, deep, "deny"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			b := compile(t, payments, tt.rules)
			input := parseInput(t, tt.input)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			result, err := b.Decide(ctx, input)
			runtime.ReadMemStats(&after)
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > maxAllocated {
				t.Errorf("%d MiB were allocated", allocated>>20)
			}
			got := result.Decision
			var failed *policy.EvaluationError
			if errors.As(err, &failed) {
				got = failed.Code
			} else if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// nested returns a list in a list, and so on.
func nested(depth int) any {
	var value any = 1
	for range depth {
		value = []any{value}
	}
	return value
}
