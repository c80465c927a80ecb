package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// maxNesting limits how deep brackets can be nested.
const maxNesting = 100

// parse parses a module and reports what is wrong with its syntax. It returns nil
// if the syntax has errors.
func parse(m Module, report *issues) *ast.Module {
	if strings.TrimSpace(m.Content) == "" {
		report.add(nil, "empty_policy", "The policy must not be empty.")
		return nil
	}
	if !checkDelimiters(m.Content, report) {
		return nil
	}
	options := ast.ParserOptions{Capabilities: capabilities, RegoVersion: ast.RegoV1}
	if m.SchemaVersion == legacySchemaVersion {
		options.RegoVersion = ast.RegoV0
	}
	content := m.Content
	for range maxIssues {
		parsed, err := ast.ParseModuleWithOpts(m.ID, content, options)
		if err == nil && len(report.list) == 0 {
			return parsed
		}
		rest := content
		for _, e := range parseErrors(err) {
			reportParseError(e, report)
			rest = withoutStatement(rest, e.Location)
		}
		if rest == content || strings.TrimSpace(rest) == "" {
			break
		}
		content = rest
	}
	return nil
}

func parseErrors(err error) []*ast.Error {
	var list ast.Errors
	var one *ast.Error
	switch {
	case errors.As(err, &list):
		return list
	case errors.As(err, &one):
		return []*ast.Error{one}
	}
	return nil
}

func reportParseError(e *ast.Error, report *issues) {
	loc := e.Location
	switch {
	case e.Message == "package expected" || e.Message == "empty module":
		report.add(loc, "missing_package_declaration", "The first statement must be: package caracal.authz.")
	case loc != nil && loc.Row <= len(report.lines) && strings.HasPrefix(strings.TrimSpace(report.lines[loc.Row-1]), "package"):
		report.add(loc, "invalid_package_name", "The package name is invalid. It must be caracal.authz.")
	case loc == nil:
		report.add(nil, "parse_error", "%s.", sentence(e.Message))
	default:
		report.add(loc, fmt.Sprintf("parse_error:%d", loc.Row), "%s.", sentence(e.Message))
	}
}

// sentence capitalizes the first letter of an error message of OPA.
func sentence(message string) string {
	message, _, _ = strings.Cut(strings.TrimRight(message, ". \n"), "\n")
	if message == "" {
		return message
	}
	return strings.ToUpper(message[:1]) + message[1:]
}

var statementStart = regexp.MustCompile(`^[A-Za-z_]`)

// withoutStatement replaces the statement at a location with empty lines, so that
// the parser, which stops at the first error, can find the next one. A statement
// starts at a line whose first character is a letter.
func withoutStatement(content string, loc *ast.Location) string {
	if loc == nil || loc.Row < 1 {
		return content
	}
	lines := strings.Split(content, "\n")
	if loc.Row > len(lines) {
		return content
	}
	first := loc.Row - 1
	for first > 0 && !statementStart.MatchString(lines[first]) {
		first--
	}
	if strings.HasPrefix(lines[first], "package") {
		return "" // what follows depends on the package
	}
	lines[first] = ""
	for i := first + 1; i < len(lines) && !statementStart.MatchString(lines[i]); i++ {
		lines[i] = ""
	}
	return strings.Join(lines, "\n")
}

// checkDelimiters reports a string that is not terminated and brackets that are not
// balanced.
func checkDelimiters(content string, report *issues) bool {
	row, lineStart := 1, 0
	at := func(offset int) *ast.Location { return &ast.Location{Row: row, Col: offset - lineStart + 1} }
	type bracket struct {
		closing byte
		loc     *ast.Location
	}
	var open []bracket
	for i := 0; i < len(content); i++ {
		switch c := content[i]; c {
		case '\n':
			row, lineStart = row+1, i+1
		case '#':
			for i+1 < len(content) && content[i+1] != '\n' {
				i++
			}
		case '"', '`':
			start := at(i)
			end := i + 1
			for end < len(content) && content[end] != c && (c == '`' || content[end] != '\n') {
				if c == '"' && content[end] == '\\' && end+1 < len(content) && content[end+1] != '\n' {
					end++
				}
				if content[end] == '\n' {
					row, lineStart = row+1, end+1
				}
				end++
			}
			if end >= len(content) || content[end] != c {
				report.add(start, "unterminated_string", "The string is not terminated.")
				return false
			}
			i = end
		case '(', '[', '{':
			if len(open) == maxNesting {
				report.add(at(i), "too_complex", "Brackets must not be nested deeper than %d levels.", maxNesting)
				return false
			}
			open = append(open, bracket{closing: map[byte]byte{'(': ')', '[': ']', '{': '}'}[c], loc: at(i)})
		case ')', ']', '}':
			if len(open) == 0 || open[len(open)-1].closing != c {
				report.add(at(i), "unbalanced_delimiters", "The bracket %c closes none.", c)
				return false
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		report.add(open[len(open)-1].loc, "unbalanced_delimiters", "The bracket is not closed.")
		return false
	}
	return true
}
