package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/policy"
)

// TestDocumentErrorsHavePositions checks the codes and the positions of modules that
// are Rego and not data documents. Each position is in row 4 or below, after the
// lines of document, unless the content is complete.
func TestDocumentErrorsHavePositions(t *testing.T) {
	t.Parallel()
	const head = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n"
	for _, tt := range []struct {
		name, content string
		want          []position
	}{
		{"other package", "# caracal:data-document\npackage caracal.other\napp_ids := {}", []position{{"must_use_package_caracal_authz", 2, 1, "package caracal.other"}}},
		{"longer package", "# caracal:data-document\npackage caracal.authz.x\napp_ids := {}", []position{{"must_use_package_caracal_authz", 2, 1, "package caracal.authz.x"}}},
		{"shorter package", "# caracal:data-document\npackage caracal\nauthz.app_ids := {}", []position{
			{"must_use_package_caracal_authz", 2, 1, "package caracal"}, {"unknown_document:authz", 3, 1, "authz.app_ids := {}"},
		}},
		{"no directive", "package caracal.authz\napp_ids := {}", []position{{"must_be_data_document", 1, 1, "package caracal.authz"}}},
		{"directive after the package", "package caracal.authz\n# caracal:data-document\napp_ids := {}", []position{{"must_be_data_document", 1, 1, "package caracal.authz"}}},
		{"directive on the line of the package", "package caracal.authz # caracal:data-document\napp_ids := {}", []position{{"must_be_data_document", 1, 1, "package caracal.authz # caracal:data-document"}}},
		{"directive with a suffix", "# caracal:data-document-v2\npackage caracal.authz\napp_ids := {}", []position{{"must_be_data_document", 2, 1, "package caracal.authz"}}},
		{"directive with more words", "# caracal:data-document x\npackage caracal.authz\napp_ids := {}", nil},
		{"directive in other case", "# Caracal:data-document\npackage caracal.authz\napp_ids := {}", []position{{"must_be_data_document", 2, 1, "package caracal.authz"}}},
		{"two comment signs", "## caracal:data-document\npackage caracal.authz\napp_ids := {}", []position{{"must_be_data_document", 2, 1, "package caracal.authz"}}},
		{"directive in a raw string", "package caracal.authz\napp_ids := {`\n# caracal:data-document\n`: \"x\"}", []position{{"must_be_data_document", 1, 1, "package caracal.authz"}}},
		{"half a surrogate pair", head + `app_ids := {"a": "x\ud83d"}`, []position{{"lone_surrogate", 4, 18, `app_ids := {"a": "x\ud83d"}`}}},
		{"half a surrogate pair in a key", head + `app_ids := {"\uDE00\ufffd": "x"}`, []position{{"lone_surrogate", 4, 13, `app_ids := {"\uDE00\ufffd": "x"}`}}},
		{"half a surrogate pair in a reference", head + `app_ids["\ud83d"] := "x"`, []position{{"lone_surrogate", 4, 9, `app_ids["\ud83d"] := "x"`}}},
		{"a surrogate pair and replacement characters", head + `app_ids := {"\ud83d\ude00": "\uFFFD` + "\uFFFD" + `"}`, nil},
		{"a raw string", head + "app_ids := {`\\ud83d`: \"x\"}", nil},
		{"no rule", head, []position{{"data_document_must_define_data", 2, 1, "package caracal.authz"}}},
		{"result", head + `result := {"decision": "allow"}`, []position{{"data_document_must_not_define_result", 4, 1, `result := {"decision": "allow"}`}}},
		{"field of result", head + ids + "\nresult.decision := \"allow\"", []position{{"data_document_must_not_define_result", 5, 1, `result.decision := "allow"`}}},
		{"key of result", head + ids + "\nresult[\"decision\"] := \"allow\"", []position{{"data_document_must_not_define_result", 5, 1, `result["decision"] := "allow"`}}},
		{"part of result", head + ids + "\nresult contains 1", []position{{"data_document_must_not_define_result", 5, 1, `result contains 1`}}},
		{"default of result", head + ids + "\ndefault result := {}", []position{{"data_document_must_not_define_result", 5, 9, `default result := {}`}}},
		{"function result", head + ids + "\nresult(x) := x", []position{{"data_document_must_not_define_result", 5, 1, `result(x) := x`}}},
		{"function", head + "grants(x) := {} if x", []position{{"function_not_allowed:grants", 4, 1, `grants(x) := {} if x`}}},
		{"default function", head + "default grants(_) := {}", []position{{"function_not_allowed:grants", 4, 9, `default grants(_) := {}`}}},
		{"with input", head + `restrict contains "x" if data.caracal.authz.grants == {} with input as {}`, []position{
			{"with_not_allowed", 4, 58, `restrict contains "x" if data.caracal.authz.grants == {} with input as {}`},
		}},
		{"with a function", head + `restrict contains "x" if count([]) == 1 with count as 1`, []position{{"with_not_allowed", 4, 41, `restrict contains "x" if count([]) == 1 with count as 1`}}},
		{"import of data", head + "import data.caracal.contract\n" + ids, []position{{"import_not_allowed", 4, 1, "import data.caracal.contract"}}},
		{"import of all data", head + "import data\n" + ids, []position{{"import_not_allowed", 4, 1, "import data"}}},
		{"import of input", head + "import input\n" + ids, []position{{"import_not_allowed", 4, 1, "import input"}}},
		{"import of input with an alias", head + "import input.principal as p\n" + ids, []position{{"import_not_allowed", 4, 1, "import input.principal as p"}}},
		{"import as a document", head + "import data.x as restrict\n" + ids, []position{{"import_not_allowed", 4, 1, "import data.x as restrict"}}},
		{"input in grants", head + "grants := {input.x: 1}", []position{{"input_not_allowed:grants", 4, 12, "grants := {input.x: 1}"}}},
		{"input as a value", head + "app_ids := {\"a\": input}", []position{{"input_not_allowed:app_ids", 4, 18, "app_ids := {\"a\": input}"}}},
		{"input with a variable", head + "risk := [input[x] | some x in [1]]", []position{{"input_not_allowed:risk", 4, 10, "risk := [input[x] | some x in [1]]"}}},
		{"input in a head", head + "grants[input.x] := 1", []position{{"input_not_allowed:grants", 4, 8, "grants[input.x] := 1"}}},
		{"input in the middle of a head", head + "grants.a[input.x].b := 1", []position{{"input_not_allowed:grants", 4, 10, "grants.a[input.x].b := 1"}}},
		{"restrict in the middle of a head", head + "grants.a[restrict[_]].b contains 1", []position{{"input_not_allowed:grants", 4, 10, "grants.a[restrict[_]].b contains 1"}}},
		{"function in the middle of a head", head + "grants.a[http.send({})].b := 1", []position{{"forbidden_builtin:http.send", 4, 10, "grants.a[http.send({})].b := 1"}}},
		{"input in a set", head + "approval_tiers contains input.x", []position{{"input_not_allowed:approval_tiers", 4, 25, "approval_tiers contains input.x"}}},
		{"input in nested comprehensions", head + "grants := {a: b | some a in [1]; b := {c: d | some c in [2]; d := [e | some e in input.x]}}", []position{
			{"input_not_allowed:grants", 4, 82, "grants := {a: b | some a in [1]; b := {c: d | some c in [2]; d := [e | some e in input.x]}}"},
		}},
		{"input in a key of a reference", head + "grants := {\"a\": {\"b\": 1}[input.x]}", []position{{"input_not_allowed:grants", 4, 26, "grants := {\"a\": {\"b\": 1}[input.x]}"}}},
		{"input in else", head + "confinement := [] if {\n\t1 == 2\n} else := input.x", []position{{"input_not_allowed:confinement", 6, 11, "} else := input.x"}}},
		{"input in the body of else", head + "confinement := [] if {\n\t1 == 2\n} else := [] if {\n\tinput.x\n}", []position{{"input_not_allowed:confinement", 7, 2, "\tinput.x"}}},
		{"input in every", head + "confinement := [] if every x in input.y { x }", []position{{"input_not_allowed:confinement", 4, 33, "confinement := [] if every x in input.y { x }"}}},
		{"input in not", head + "confinement := [] if not input.y", []position{{"input_not_allowed:confinement", 4, 26, "confinement := [] if not input.y"}}},
		{"input in a call", head + "confinement := [] if count(input) > 1", []position{{"input_not_allowed:confinement", 4, 28, "confinement := [] if count(input) > 1"}}},
		{"restrict in grants", head + "grants := {restrict: 1}", []position{{"input_not_allowed:grants", 4, 12, "grants := {restrict: 1}"}}},
		{"element of restrict in grants", head + "grants := {restrict[_]: 1}", []position{{"input_not_allowed:grants", 4, 12, "grants := {restrict[_]: 1}"}}},
		{"path of restrict in grants", head + "grants := {data.caracal.authz.restrict: 1}", []position{{"input_not_allowed:grants", 4, 12, "grants := {data.caracal.authz.restrict: 1}"}}},
		{"path of restrict in brackets in grants", head + `grants := {data["caracal"].authz["restrict"].x: 1}`, []position{{"input_not_allowed:grants", 4, 12, `grants := {data["caracal"].authz["restrict"].x: 1}`}}},
		{"all data", head + "restrict := data", []position{{"data_not_allowed", 4, 13, "restrict := data"}}},
		{"all data as a pattern", head + "restrict contains x if data[x]", []position{{"data_not_allowed", 4, 24, "restrict contains x if data[x]"}}},
		{"package as a value", head + "restrict := data.caracal.authz", []position{{"data_not_allowed", 4, 13, "restrict := data.caracal.authz"}}},
		{"package with a variable", head + "restrict contains x if data.caracal.authz[x]", []position{{"data_not_allowed", 4, 24, "restrict contains x if data.caracal.authz[x]"}}},
		{"package with a variable before", head + "restrict contains x if data[x].authz.grants", []position{{"data_not_allowed", 4, 24, "restrict contains x if data[x].authz.grants"}}},
		{"result of the contract", head + "restrict := data.caracal.authz.result", []position{{"data_not_allowed", 4, 13, "restrict := data.caracal.authz.result"}}},
		{"contract", head + "restrict := data.caracal.contract.owner", []position{{"data_not_allowed", 4, 13, "restrict := data.caracal.contract.owner"}}},
		{"documents of the contract", head + "restrict := data.documents.grants", []position{{"data_not_allowed", 4, 13, "restrict := data.documents.grants"}}},
		{"other data", head + "restrict := data.x", []position{{"data_not_allowed", 4, 13, "restrict := data.x"}}},
		{"data as a variable", head + "restrict contains x if { y := data; x := y.x }", []position{{"data_not_allowed", 4, 31, "restrict contains x if { y := data; x := y.x }"}}},
		{"undefined function", head + "restrict := foo(1)", []position{{"compile_error:4", 4, 13, "restrict := foo(1)"}}},
		{"unsafe variable", head + "restrict := {x}", []position{{"compile_error:4", 4, 14, "restrict := {x}"}}},
		{"function as a value", head + "restrict := {x | x := http.send}", []position{{"compile_error:4", 4, 18, "restrict := {x | x := http.send}"}}},
		{"recursion", head + "app_ids := grants\ngrants := app_ids", []position{{"compile_error:4", 4, 1, "app_ids := grants"}, {"compile_error:5", 5, 1, "grants := app_ids"}}},
		{"recursion of one", head + "restrict contains x if some x in restrict", []position{{"compile_error:4", 4, 1, "restrict contains x if some x in restrict"}}},
		{"document and parts of it", head + "grants := {}\ngrants[\"x\"] := {}", []position{{"compile_error:4", 4, 1, "grants := {}"}}},
		{"document and set", head + "restrict := {}\nrestrict contains 1", []position{{"compile_error:4", 4, 1, "restrict := {}"}}},
		{"two defaults", head + "default grants := {}\ndefault grants := {}", []position{{"compile_error:5", 5, 1, "default grants := {}"}}},
		{"wrong argument", head + "restrict := {count(1)}", []position{{"compile_error:4", 4, 14, "restrict := {count(1)}"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := positions(check(t, tt.content, policy.InputSchemaVersion)); !slices.Equal(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestConflictsNameTheDocument requires that rules of which only one can exist are
// reported in words of the contract.
func TestConflictsNameTheDocument(t *testing.T) {
	t.Parallel()
	for rules, want := range map[string]string{
		"default grants := {}\ndefault grants := {}":   "grants has two defaults.",
		"grants := {}\ngrants[\"x\"] := {}":            "grants is defined both as a whole and in parts.",
		"restrict := {}\nrestrict contains \"x\"":      "restrict is defined both as a whole and in parts.",
		"restrict contains \"x\"\nrestrict.y := 1":     "restrict is defined both as a whole and in parts.",
		"app_ids.a := \"x\"\napp_ids.a contains \"y\"": "app_ids is defined both as a whole and in parts.",
	} {
		issues := check(t, document(rules), policy.InputSchemaVersion)
		if len(issues) != 1 || issues[0].Message != want {
			t.Errorf("%s: got %+v, want %q", rules, issues, want)
		}
	}
}

// TestCompileErrorsHavePositions requires that many errors of the compiler are reported
// in their order, without an error about their number.
func TestCompileErrorsHavePositions(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{20: 20, 200: 50} {
		issues := check(t, document(lines(n, "restrict contains undefined%d(1)")), policy.InputSchemaVersion)
		if len(issues) != want {
			t.Errorf("got %d issues of %d errors, want %d", len(issues), n, want)
		}
		for i, issue := range issues {
			if issue.Row != i+4 || issue.Code != fmt.Sprintf("compile_error:%d", i+4) {
				t.Errorf("got %+v, want an issue in row %d", issue, i+4)
			}
		}
	}
}

// TestForbiddenBuiltins requires that no way to call a function of the contract's
// list is accepted.
func TestForbiddenBuiltins(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"http.send", "net.lookup_ip_addr", "net.cidr_contains", "net.cidr_intersects", "net.cidr_expand", "net.cidr_merge",
		"opa.runtime", "rand.intn", "time.now_ns",
		"walk", "numbers.range", "trace", "print", "uuid.rfc4122", "io.jwt.decode", "crypto.sha256", "json.unmarshal", "yaml.unmarshal",
	} {
		brackets := name
		if before, after, found := strings.Cut(name, "."); found {
			brackets = before + `["` + after + `"]`
			if middle, last, found := strings.Cut(after, "."); found {
				brackets = before + `["` + middle + `"]["` + last + `"]`
			}
		}
		for rule, column := range map[string]int{
			"restrict contains F":                           19,
			"restrict contains x if x := F":                 29,
			"restrict contains 1 if F":                      24,
			"restrict contains 1 if not F":                  28,
			"restrict contains 1 if count(F) == 1":          30,
			"restrict contains 1 if { every x in F { x } }": 37,
			"restrict contains 1 if { some x in F }":        36,
			"restrict[F] := 1":                              10,
			"restrict := [1 | F]":                           18,
			"restrict := {1: F}":                            17,
			"default restrict := F":                         0, // refused by the parser
			"restrict := input[F]":                          19,
			"restrict := 1 if { 1 == 2 } else := F":         37,
		} {
			for _, call := range []string{name + "()", name + "({})", name + ` ("a", "b")`, brackets + "({})"} {
				content := document(strings.ReplaceAll(rule, "F", call))
				issues := check(t, content, policy.InputSchemaVersion)
				if len(issues) == 0 {
					t.Errorf("%s: accepted", content)
					continue
				}
				want := position{"forbidden_builtin:" + name, 4, column, strings.ReplaceAll(rule, "F", call)}
				if column == 0 {
					want.code, want.column = "parse_error:4", issues[0].Column
				}
				if strings.HasPrefix(issues[0].Code, "parse_error") && strings.Contains(call, " (") {
					continue // white space before the bracket is not Rego in some places
				}
				if got := positions(issues)[0]; got != want {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
			}
		}
	}
}

// TestHelpersOfContractCannotBeExtended requires that a module cannot add rules that
// the decision contract, of the platform or ours, reads.
func TestHelpersOfContractCannotBeExtended(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"principal_owns_resource", "mint_role_allowed", "delegated_mint", "bootstrap_exchange", "gated_tiers", "step_up_diagnostics", "restriction_denied",
		"permitted", "owns", "owner", "bootstrap", "mint", "role_allows", "confined", "diagnostics", "tags", "use", "has_role", "readable", "reasons", "unmet",
		"documents", "contract", "caracal", "authz", "input", "data",
	} {
		for _, rule := range []string{"X if true", "X := true", "X = true", "X contains 1", "X.y := 1", `X["y"] := 1`, "X(_) := true", "default X := true"} {
			content := document(ids + "\n" + strings.ReplaceAll(rule, "X", name))
			issues := check(t, content, policy.InputSchemaVersion)
			if len(issues) == 0 {
				t.Errorf("%s: accepted", content)
			} else if code := issues[0].Code; name != "input" && name != "data" && (code != "unknown_document:"+name || issues[0].Row != 5) {
				t.Errorf("%s: %+v", content, issues[0])
			}
		}
	}
}

// TestAcceptedDocuments are modules that the reference or a strict reader could
// refuse.
func TestAcceptedDocuments(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"partial rules only":                 document(`grants["resource://x"] := {"application": "a", "roles": {}}`),
		"partial rule with a dotted head":    document(`app_ids.payments := "app-1"`),
		"deep partial rule":                  document(`grants["resource://x"] := {"application": "a", "roles": {}}` + "\napp_ids[x] := y if some x, y in {\"a\": \"b\"}"),
		"set of one":                         document(`restrict contains "x"`),
		"line of an object that is a result": document("restrict := {x |\n\ty := {\n\t\"a\": 1,\n\t}\n\tresult = y\n\tx := result.a\n}"),
		"comparison with a result":           document("restrict contains 1 if {\n\tsome result in [1]\n\tresult == 1\n}"),
		"default":                            document("default app_ids := {}\napp_ids := {\"a\": \"b\"}"),
		"else":                               document("app_ids := {} if {\n\t1 == 2\n} else := {\"a\": \"b\"}"),
		"restrict that reads the input":      document(`restrict contains input.principal.id if input.action.method == "DELETE"`),
		"alias of the input":                 document(`restrict contains x if { i := input; x := i.principal.id }`),
		"input with a variable":              document(`restrict contains x if { some x; input[x].id == "y" }`),
		"restrict that reads grants":         document(grants + "\nrestrict contains x if some x, _ in grants"),
		"restrict that reads data":           document(grants + "\nrestrict contains x if some x, _ in data.caracal.authz.grants"),
		"restrict that reads itself":         document(`restrict contains "x" if true`),
		"data in brackets":                   document(ids + "\nrestrict contains x if some x in data[\"caracal\"][\"authz\"][\"app_ids\"]"),
		"package in brackets":                "# caracal:data-document\npackage caracal[\"authz\"]\nimport rego.v1\nrestrict := {}",
		"import of keywords":                 "# caracal:data-document\npackage caracal.authz\nimport future.keywords.in\nimport future.keywords\nrestrict := {}",
		"directive without a space":          "#caracal:data-document\npackage caracal.authz\nrestrict := {}",
		"directive with spaces":              "  # \t caracal:data-document \t\r\npackage caracal.authz\nrestrict := {}",
		"directive below other comments":     "# Owner: payments\n#\n# caracal:data-document\n# more\n\npackage caracal.authz\nrestrict := {}",
		"name of a function as a text":       document(`restrict := {"http.send({})"} # http.send({})`),
		"field with the name of a function":  document(`restrict := {x | http := {"send": 1}; x := http.send}`),
		"local variable named like a rule":   document(`restrict contains owner if owner := "x"`),
		"regular expression":                 document(`restrict contains "x" if regex.match("^/admin/", input.action.path)`),
		"formatted text":                     document(`restrict contains sprintf("%s may not use %v", [input.principal.id, s]) if some s in input.context.requested_scopes`),
		"labels and scopes combined":         document(`restrict contains sprintf("%s-%s", [l, s]) if { some l in input.principal.labels; some s in input.context.requested_scopes }`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if issues := check(t, content, policy.InputSchemaVersion); len(issues) > 0 {
				t.Error(issues)
			}
		})
	}
}

// TestFirstIssueIsTheContracts requires that the first of several issues has the
// code that the contract's order of checks returns.
func TestFirstIssueIsTheContracts(t *testing.T) {
	t.Parallel()
	const directive, authz = "# caracal:data-document\n", "package caracal.authz\n"
	for _, tt := range []struct {
		name, content string
		want          []string
	}{
		{"string before brackets", ")\n`", []string{"unterminated_string"}},
		{"brackets before package", "(", []string{"unbalanced_delimiters"}},
		{"package before functions", "x := time.now_ns()", []string{"missing_package_declaration"}},
		{"package name before functions", "package 1\nx := time.now_ns()", []string{"invalid_package_name"}},
		{"function before package", "package x\nresult := time.now_ns()", []string{
			"forbidden_builtin:time.now_ns", "must_use_package_caracal_authz", "must_be_data_document", "data_document_must_not_define_result",
		}},
		{"functions in the order of the list", directive + authz + "restrict := [time.now_ns(), rand.intn(\"x\", 2), net.cidr_merge([]), http.send({})]", []string{
			"forbidden_builtin:http.send", "forbidden_builtin:net.cidr_merge", "forbidden_builtin:rand.intn", "forbidden_builtin:time.now_ns",
		}},
		{"functions of the list before others", directive + authz + "restrict := [walk([]), time.now_ns()]", []string{
			"forbidden_builtin:time.now_ns", "forbidden_builtin:walk",
		}},
		{"package before directive", "package x\napp_ids := {}", []string{"must_use_package_caracal_authz", "must_be_data_document"}},
		{"package before no rules", "package x\n", []string{"must_use_package_caracal_authz", "must_be_data_document"}},
		{"directive before result", authz + "result := 1", []string{"must_be_data_document", "data_document_must_not_define_result"}},
		{"result before other names", directive + authz + "x := 1\nresult := 1", []string{"data_document_must_not_define_result", "unknown_document:x"}},
		{"three rules with errors", directive + authz + "x := 1\napp_ids := {\"a\": input.b}\ngrants(y) := y", []string{"unknown_document:x", "input_not_allowed:app_ids", "function_not_allowed:grants"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := codes(check(t, tt.content, policy.InputSchemaVersion)); !slices.Equal(got, tt.want) {
				t.Errorf("got  %v\nwant %v", got, tt.want)
			}
		})
	}
}

// TestLongNamesAreShortened requires that codes and messages do not repeat a text of
// any length.
func TestLongNamesAreShortened(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	for _, rules := range []string{
		long + " := 1", "result." + long + " := 1", "restrict := " + long + "(1)", "restrict := {" + long + "}", "restrict := data." + long,
		"grants[\"" + long + "\"] := 1", "app_ids := {\"a\": " + strings.Repeat("1", 100_000) + "}", "restrict := [1 " + long + "]", "import " + long, "import data." + long,
		"app_ids[\"" + long + "\"] := 1", "app_ids[\"" + long + "\"] := \"a\"\napp_ids[\"" + long + "\"] := \"b\"",
	} {
		if issues := check(t, document(rules), policy.InputSchemaVersion); len(issues) == 0 {
			t.Errorf("%.100s: accepted", rules)
		}
	}
}
