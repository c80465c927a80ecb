package policy_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/policy"
)

const legacy = "2026-03-16"

// position is where an issue is, and the text of the line.
type position struct {
	code        string
	row, column int
	line        string
}

func positions(issues []policy.Issue) []position {
	var list []position
	for _, i := range issues {
		list = append(list, position{i.Code, i.Row, i.Column, i.Line})
	}
	return list
}

func codes(issues []policy.Issue) []string {
	var list []string
	for _, i := range issues {
		list = append(list, i.Code)
	}
	return list
}

// check validates content and requires that each issue is complete: a code, a
// sentence, and either no position or one in the content, with its line.
func check(t testing.TB, content, schemaVersion string) []policy.Issue {
	t.Helper()
	issues := issuesOf(t.Context(), t, content, schemaVersion)
	requireComplete(t, content, issues)
	return issues
}

// issuesOf returns the issues of content.
func issuesOf(ctx context.Context, t testing.TB, content, schemaVersion string) []policy.Issue {
	t.Helper()
	if _, err := policy.Validate(ctx, content, schemaVersion); err != nil {
		return compileError(t, err).Issues
	}
	return nil
}

func requireComplete(t testing.TB, content string, issues []policy.Issue) {
	t.Helper()
	lines := strings.Split(content, "\n")
	for _, i := range issues {
		if i.Code == "" || len(i.Code) > 300 {
			t.Errorf("%.400q: the code is empty or long", i.Code)
		}
		if len(i.Message) < 10 || len(i.Message) > 2000 || !strings.HasSuffix(i.Message, ".") || strings.HasSuffix(i.Message, "..") {
			t.Errorf("%s: the message %.400q is not a sentence", i.Code, i.Message)
		}
		switch {
		case i.Row == 0 && i.Column == 0 && i.Line == "":
		case i.Row < 1 || i.Row > len(lines):
			t.Errorf("%s: row %d of %d", i.Code, i.Row, len(lines))
		case i.Column < 1 || i.Column > len(lines[i.Row-1])+1:
			t.Errorf("%s: column %d of %d in row %d", i.Code, i.Column, len(lines[i.Row-1]), i.Row)
		case len([]rune(i.Line)) > 201:
			t.Errorf("%s: the line has %d characters", i.Code, len([]rune(i.Line)))
		}
	}
}

// TestSyntaxErrorsHavePositions checks the codes and the positions of texts that are
// not Rego.
func TestSyntaxErrorsHavePositions(t *testing.T) {
	t.Parallel()
	const head = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n"
	for _, tt := range []struct {
		name, content string
		want          []position
	}{
		{"empty", "", []position{{"empty_policy", 0, 0, ""}}},
		{"white space", " \n\t\r\n", []position{{"empty_policy", 0, 0, ""}}},
		{"string without end", head + `restrict := "x`, []position{{"unterminated_string", 4, 13, `restrict := "x`}}},
		{"string over two lines", head + "restrict := \"x\ny\"", []position{{"unterminated_string", 4, 13, `restrict := "x`}}},
		{"string that ends with a backslash", head + `restrict := {"x\"}`, []position{{"unterminated_string", 4, 14, `restrict := {"x\"}`}}},
		{"string that ends with a backslash at the end", head + `restrict := {"x\`, []position{{"unterminated_string", 4, 14, `restrict := {"x\`}}},
		{"raw string without end", head + "restrict := {`x\ny", []position{{"unterminated_string", 4, 14, "restrict := {`x"}}},
		{"unterminated string before an unbalanced bracket", head + "restrict := )\n\"", []position{{"unterminated_string", 5, 1, `"`}}},
		{"bracket without end", head + "restrict := {", []position{{"unbalanced_delimiters", 4, 13, "restrict := {"}}},
		{"bracket without start", head + "restrict := [}]", []position{{"unbalanced_delimiters", 4, 14, "restrict := [}]"}}},
		{"closing bracket first", ")", []position{{"unbalanced_delimiters", 1, 1, ")"}}},
		{"position after a raw string", head + "restrict := {`a\nb`,\n (}", []position{{"unbalanced_delimiters", 6, 3, " (}"}}},
		{"position after an escaped quote", head + `restrict := ["\"", }]`, []position{{"unbalanced_delimiters", 4, 20, `restrict := ["\"", }]`}}},
		{"columns count bytes", head + `restrict := ["é☃😀", }`, []position{{"unbalanced_delimiters", 4, 27, `restrict := ["é☃😀", }`}}},
		{"columns count bytes after parsing, too", head + `restrict := ["é☃😀", ; ]`, []position{{"parse_error:4", 4, 27, `restrict := ["é☃😀", ; ]`}}},
		{"a tab is one column", head + "\t\trestrict := ;", []position{{"parse_error:4", 4, 15, "\t\trestrict := ;"}}},
		{"no package", "# caracal:data-document\napp_ids := {}", []position{{"missing_package_declaration", 2, 1, "app_ids := {}"}}},
		{"only a comment", "# caracal:data-document\n", []position{{"missing_package_declaration", 0, 0, ""}}},
		{"package in a comment and in a string", "# package caracal.authz\nx := `\npackage caracal.authz\n`", []position{{"missing_package_declaration", 2, 1, "x := `"}}},
		{"package without a name", "# caracal:data-document\npackage\napp_ids := {}", []position{{"missing_package_declaration", 2, 1, "package"}}},
		{"package with an invalid name", "# caracal:data-document\npackage 1a.b\napp_ids := {}", []position{{"invalid_package_name", 2, 9, "package 1a.b"}}},
		{"package that ends with a dot", "# caracal:data-document\npackage caracal.\napp_ids := {}", []position{{"invalid_package_name", 2, 9, "package caracal."}}},
		{"package with a hyphen", "# caracal:data-document\npackage caracal-authz\napp_ids := {}", []position{{"must_use_package_caracal_authz", 2, 9, "package caracal-authz"}}},
		{"rule on the line of the package", "# caracal:data-document\npackage caracal.authz; restrict := {}", []position{{"parse_error:2", 2, 22, "package caracal.authz; restrict := {}"}}},
		{"rule before the package", "restrict := {}\npackage caracal.authz\n", []position{{"missing_package_declaration", 1, 1, "restrict := {}"}}},
		{"rule that starts like a package", head + "packages := ;", []position{{"parse_error:4", 4, 13, "packages := ;"}}},
		{"second package", head + "restrict := {}\npackage caracal.authz", []position{{"parse_error:5", 5, 1, "package caracal.authz"}}},
		{"three broken statements", head + "app_ids := ;\ngrants := {}\nrestrict := := 1\nrisk := [\n\t1 2,\n]\n", []position{
			{"parse_error:4", 4, 12, "app_ids := ;"}, {"parse_error:6", 6, 13, "restrict := := 1"}, {"parse_error:8", 8, 4, "\t1 2,"},
		}},
		{"three broken statements, indented", head + "\tapp_ids := ;\n\tgrants := {}\n\trestrict := := 1\n\trisk := [\n\t\t1 2,\n\t]\n", []position{
			{"parse_error:4", 4, 13, "\tapp_ids := ;"}, {"parse_error:6", 6, 14, "\trestrict := := 1"}, {"parse_error:8", 8, 5, "\t\t1 2,"},
		}},
		{"broken import", "# caracal:data-document\npackage caracal.authz\nimport foo.bar\napp_ids := ;", []position{
			{"parse_error:3", 3, 8, "import foo.bar"}, {"parse_error:4", 4, 12, "app_ids := ;"},
		}},
		{"CRLF", strings.ReplaceAll(head, "\n", "\r\n") + "app_ids := ;\r\n", []position{{"parse_error:4", 4, 12, "app_ids := ;"}}},
		{"NUL", head + "app_ids := {\"\x00\": \"x\"}", []position{{"parse_error:4", 4, 13, "app_ids := {\"\x00\": \"x\"}"}}},
		{"invalid UTF-8", head + "app_ids := {\"\xff\": \"x\"}", []position{{"parse_error:4", 4, 13, "app_ids := {\"\uFFFD\": \"x\"}"}}},
		{"byte order mark in the middle", head + "app_ids := {\"\uFEFF\": \"x\"}", []position{{"parse_error:4", 4, 13, "app_ids := {\"\uFEFF\": \"x\"}"}}},
		{"long line", head + "app_ids := [1 " + strings.Repeat("x", 500) + "]", []position{{"parse_error:4", 4, 15, "app_ids := [1 " + strings.Repeat("x", 186) + "…"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := positions(check(t, tt.content, policy.InputSchemaVersion)); !slices.Equal(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestAcceptedTexts are texts that look wrong to a scanner and are right.
func TestAcceptedTexts(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"brackets in strings and comments": document("# ([{\nrestrict := {\"([{\", `)]}`} # )"),
		"quotes in comments":               document("# \"`\nrestrict := {}"),
		"comment signs in strings":         document("restrict := {\"#\", `#`}"),
		"raw string over lines":            document("restrict := {`a\npackage x\n\"b\\`}"),
		"CRLF":                             strings.ReplaceAll(document(ids+"\n"+grants), "\n", "\r\n"),
		"byte order mark":                  "\uFEFF" + document("restrict := {}"),
		"no line feed at the end":          "# caracal:data-document\npackage caracal.authz\nrestrict := {}",
		"Unicode":                          document(`app_ids := {"é☃😀": "\u00e9"}`),
		"100 levels of brackets":           document("restrict := {" + strings.Repeat("[", 99) + strings.Repeat("]", 99) + "}"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if issues := check(t, content, policy.InputSchemaVersion); len(issues) > 0 {
				t.Error(issues)
			}
		})
	}
}

// TestOldSyntaxNeedsOldLabel requires that Rego without import rego.v1 and with the
// syntax before v1 is valid only with the schema version 2026-03-16.
func TestOldSyntaxNeedsOldLabel(t *testing.T) {
	t.Parallel()
	old := "# caracal:data-document\npackage caracal.authz\nrestrict[\"x\"] { input.session.id == \"s\" }\n"
	if issues := check(t, old, legacy); len(issues) > 0 {
		t.Error(issues)
	}
	missing := position{"parse_error:3", 3, 1, `restrict["x"] { input.session.id == "s" }`} // contains, and if
	if got, want := positions(check(t, old, policy.InputSchemaVersion)), []position{missing, missing}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	imported := document(`restrict contains "x" if input.session.id == "s"`)
	for _, version := range []string{legacy, policy.InputSchemaVersion} {
		if issues := check(t, imported, version); len(issues) > 0 {
			t.Errorf("%s: %v", version, issues)
		}
	}
	b, err := policy.Compile(t.Context(), []policy.Module{{ID: "a", Content: old, SchemaVersion: legacy}, {ID: "b", Content: document(ids + "\n" + grants), SchemaVersion: policy.InputSchemaVersion}})
	if err != nil {
		t.Fatal(err)
	}
	if got := decide(t, b, mintInput(nil)).Decision; got != "allow" {
		t.Errorf("got %s without the session", got)
	}
	if got := decide(t, b, mintInput(object{"session.id": "s"})).Decision; got != "deny" {
		t.Errorf("got %s with the session", got)
	}
}

// TestIssuesAreLimited requires that a text with many errors has a bounded number of
// them, each once.
func TestIssuesAreLimited(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]string{"syntax": "app_ids := ;\n", "rules": "x%d := 1\n", "shapes": "grants[\"%d\"] := 1\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			for i := range 200 {
				b.WriteString(strings.ReplaceAll(rule, "%d", fmt.Sprintf("%03d", i)))
			}
			issues := check(t, document(b.String()), policy.InputSchemaVersion)
			if len(issues) != 50 {
				t.Errorf("got %d issues, want 50", len(issues))
			}
			slices.SortFunc(issues, func(a, b policy.Issue) int { return a.Row - b.Row })
			for i := range issues {
				if issues[i].Row != i+4 {
					t.Fatalf("issue %d is in row %d, want the first 50 rows", i, issues[i].Row)
				}
			}
		})
	}
}

// Consumers parse a policy without "import rego.v1" in the syntax before Rego v1.
func TestImportIsRequiredForNewSyntax(t *testing.T) {
	t.Parallel()
	const head = "# caracal:data-document\npackage caracal.authz\n"
	for rules, want := range map[string]string{
		`app_ids := {"a": "b"}`:                            "",
		`grants["r"] := {"application": "a", "roles": {}}`: "",
		`restrict contains "x"`:                            "import_required",
		`restrict contains "x" if input.session.id`:        "import_required",
		`restrict := ["x"] if input.session.id`:            "import_required",
		`restrict["x"] { input.session.id }`:               "parse_error:3",
	} {
		got := ""
		if issues := check(t, head+rules, policy.InputSchemaVersion); len(issues) > 0 {
			got = issues[0].Code
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", rules, got, want)
		}
		if want == "import_required" {
			if issues := check(t, head+"import rego.v1\n"+rules, policy.InputSchemaVersion); len(issues) > 0 {
				t.Errorf("%s: with the import: %+v", rules, issues)
			}
		}
	}
}

// A second import is refused by the compiler, also if there is nothing else to compile.
func TestDuplicateImportIsInvalid(t *testing.T) {
	t.Parallel()
	issues := check(t, "# caracal:data-document\npackage caracal.authz\nimport rego.v1\nimport rego.v1\nrestrict := {}\n", policy.InputSchemaVersion)
	if len(issues) == 0 {
		t.Error("it is accepted")
	}
}
