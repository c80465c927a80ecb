// Package policy parses, checks, compiles and evaluates policies with Open Policy
// Agent. It knows neither the database nor the HTTP API.
//
// The content of a policy is a Rego module that defines documents: app_ids, grants,
// confinement, restrict, risk and approval_tiers. [Validate] checks one module.
// [Compile] combines the modules of a policy set to a [Bundle]: it evaluates the
// documents, checks them and adds the decision contract, contract/contract.rego.
// The contract is in a package of its own and reads the documents as data, so that
// a module cannot change how a decision is made.
//
// The rules come from policies.md and policy-evaluation.md.
package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// InputSchemaVersion is the schema of the input of a decision, and the default
// schema version of a policy.
const InputSchemaVersion = "2026-05-20"

// legacySchemaVersion is the label of policies in the syntax before Rego v1.
const legacySchemaVersion = "2026-03-16"

// SupportedSchemaVersion reports whether a policy can have a schema version.
func SupportedSchemaVersion(v string) bool {
	return v == InputSchemaVersion || v == legacySchemaVersion
}

// A Module is the content of one policy.
type Module struct {
	ID            string // of the policy version
	Content       string // Rego
	SchemaVersion string
}

// An Issue is an error or a warning about the content of a policy.
type Issue struct {
	Code    string // for programs: a name, or name:argument
	Message string // a sentence
	Row     int    // of the position in the content, from 1; 0 if there is none
	Column  int    // from 1, in bytes
	Line    string // the text of the row, shortened if it is long
}

// A CompileError is the error of modules that are not valid, alone or together.
type CompileError struct {
	ID     string // of the module with the issues; "" if they concern several
	Issues []Issue
}

func (e *CompileError) Error() string {
	first := e.Issues[0]
	return fmt.Sprintf("%s: %d:%d: %s", cmp.Or(e.ID, "policy"), first.Row, first.Column, first.Message)
}

// maxIssues limits the issues that are reported at once.
const maxIssues = 50

// issues collects the issues of a module.
type issues struct {
	lines []string
	list  []Issue
}

func newIssues(content string) *issues {
	return &issues{lines: strings.Split(content, "\n")}
}

func (i *issues) add(loc *ast.Location, code, format string, args ...any) {
	if len(i.list) == maxIssues {
		return
	}
	for n, arg := range args {
		switch arg := arg.(type) {
		case string:
			args[n] = truncate(arg, 500)
		case fmt.Stringer:
			args[n] = truncate(arg.String(), 500)
		}
	}
	issue := Issue{Code: truncate(code, 100), Message: fmt.Sprintf(format, args...)}
	if loc != nil && loc.Row > 0 && loc.Row <= len(i.lines) {
		line := i.lines[loc.Row-1]
		issue.Row, issue.Column, issue.Line = loc.Row, byteColumn(line, loc.Col), shorten(line)
	}
	if !slices.Contains(i.list, issue) {
		i.list = append(i.list, issue)
	}
}

// byteColumn converts a column in characters, as OPA counts, to one in bytes.
func byteColumn(line string, column int) int {
	offset := 0
	for ; column > 1 && offset < len(line); column-- {
		_, size := utf8.DecodeRuneInString(line[offset:])
		offset += size
	}
	return offset + 1
}

// shorten removes white space at the end of a line and truncates it to 200
// characters.
func shorten(line string) string {
	return truncate(strings.TrimRight(strings.ToValidUTF8(line, "\uFFFD"), " \t\r"), 200)
}

// truncate returns the first characters of a text.
func truncate(text string, limit int) string {
	if len(text) > limit {
		characters := 0
		for offset := range text {
			if characters == limit {
				return text[:offset] + "…"
			}
			characters++
		}
	}
	return text
}

// codeOrder is the order in which the contract reports errors: the code of the
// first issue is the code of the response (policies.md, "Source validation"). A code
// without its argument stands for those that are not listed.
var codeOrder = []string{
	"empty_policy", "unterminated_string", "unbalanced_delimiters", "missing_package_declaration", "invalid_package_name", "parse_error",
	"forbidden_builtin:http.send", "forbidden_builtin:net.lookup_ip_addr", "forbidden_builtin:net.cidr_contains",
	"forbidden_builtin:net.cidr_intersects", "forbidden_builtin:net.cidr_expand", "forbidden_builtin:net.cidr_merge",
	"forbidden_builtin:opa.runtime", "forbidden_builtin:rand.intn", "forbidden_builtin:time.now_ns",
	"forbidden_builtin", "must_use_package_caracal_authz", "must_be_data_document",
	"data_document_must_not_define_result", "data_document_must_define_data",
}

// sorted returns the issues in the order of the contract, and otherwise by position.
func (i *issues) sorted() []Issue {
	rank := func(issue Issue) int {
		name, _, _ := strings.Cut(issue.Code, ":")
		for _, code := range []string{issue.Code, name} {
			if n := slices.Index(codeOrder, code); n >= 0 {
				return n
			}
		}
		return len(codeOrder)
	}
	slices.SortStableFunc(i.list, func(a, b Issue) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Row, b.Row), cmp.Compare(a.Column, b.Column))
	})
	return i.list
}
