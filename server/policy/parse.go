package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

const (
	// maxNesting limits how deep brackets can be nested.
	maxNesting = 100

	// maxSeparators limits the commas, colons and brackets of all modules that are
	// compiled together, and so their values and rules: each takes about a kilobyte of
	// memory to compile.
	maxSeparators = 200_000

	// maxOtherElements limits the elements of a set, or the keys of an object, that are
	// not texts. OPA hashes numbers by their integer part and arrays by the sum of
	// their elements, so that it takes quadratic time to add those with the same hash.
	maxOtherElements = 1000
)

// maxParsedBytes limits what is parsed again to find more errors.
const maxParsedBytes = 4 << 20

// parse parses a module and reports what is wrong with its syntax. It returns nil
// if the syntax has errors. It adds the separators of the module to those of the
// modules before.
func parse(m Module, separators *int, report *issues) *ast.Module {
	if strings.TrimSpace(m.Content) == "" {
		report.add(nil, "empty_policy", "The policy must not be empty.")
		return nil
	}
	statements := scan(m.Content, separators, report)
	if len(report.list) > 0 {
		return nil
	}
	clause, ok := findPackage(m.Content, report)
	if !ok {
		return nil
	}
	options := ast.ParserOptions{Capabilities: capabilities, RegoVersion: ast.RegoV1}
	if m.SchemaVersion == legacySchemaVersion {
		options.RegoVersion = ast.RegoV0
	}
	lines := slices.Clone(report.lines)
	for parsed := 0; parsed <= maxParsedBytes && len(report.list) < maxIssues; parsed += len(m.Content) {
		module, err := ast.ParseModuleWithOpts(m.ID, strings.Join(lines, "\n"), options)
		if err == nil {
			if len(report.list) == 0 {
				requireImport(m, module, report)
				return module
			}
			break
		}
		// The parser stops at the first statement with errors.
		found, removed := false, false
		for _, e := range parseErrors(err) {
			switch loc := e.Location; {
			case loc == nil || loc.Row < 1 || loc.Row > len(lines):
				report.add(nil, "parse_error", "%s.", sentence(e.Message))
			case loc.Row == clause.loc.Row && clause.name != "caracal.authz":
				report.add(clause.loc, "must_use_package_caracal_authz", "The package must be caracal.authz.")
			case found && (strings.HasPrefix(e.Message, "unexpected") || strings.HasPrefix(e.Message, "illegal token")): // a consequence of the error before
			default:
				report.add(loc, fmt.Sprintf("parse_error:%d", loc.Row), "%s.", sentence(e.Message))
				removed = removeStatement(lines, statements, loc.Row) || removed
			}
			found = true
		}
		if !removed {
			break // what follows depends on the package
		}
	}
	if len(report.list) == 0 {
		report.add(nil, "parse_error", "The policy cannot be parsed.")
	}
	return nil
}

// requireImport reports a module without "import rego.v1" that has another meaning, or
// none, in the syntax before Rego v1: consumers parse it in that syntax.
func requireImport(m Module, parsed *ast.Module, report *issues) {
	if m.SchemaVersion == legacySchemaVersion || len(parsed.Imports) > 0 {
		return
	}
	if !slices.ContainsFunc(parsed.Rules, func(r *ast.Rule) bool { return r.Head.Key != nil || !r.Body.Equal(alwaysTrue) }) {
		return // both are the same
	}
	older, err := ast.ParseModuleWithOpts(m.ID, m.Content, ast.ParserOptions{Capabilities: capabilities, RegoVersion: ast.RegoV0})
	if err != nil || !slices.EqualFunc(parsed.Rules, older.Rules, func(a, b *ast.Rule) bool { return a.Equal(b) }) {
		report.add(parsed.Package.Location, "import_required", "The policy uses the syntax of Rego v1. Add after the package: import rego.v1.")
	}
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
	return []*ast.Error{{Message: err.Error()}}
}

// sentence shortens an error message of OPA and capitalizes its first letter.
func sentence(message string) string {
	message, _, _ = strings.Cut(strings.TrimRight(message, ". \n"), "\n")
	message, _, _ = strings.Cut(message, " (hint:")
	message = strings.TrimRight(shorten(message), ". :")
	if message == "" {
		return "The policy is invalid"
	}
	return strings.ToUpper(message[:1]) + message[1:]
}

// removeStatement empties the lines of the statement that contains a row, and of those
// before it except imports, which change the syntax, so that the parser can find the
// next error. It reports whether there was something to empty. statements has the
// first rows of all statements; the first is the package.
func removeStatement(lines []string, statements []int, row int) bool {
	next, found := slices.BinarySearch(statements, row)
	if found {
		next++
	}
	removed := false
	for n := 1; n < next; n++ {
		start, end := statements[n]-1, len(lines)
		if n+1 < len(statements) {
			end = statements[n+1] - 1
		}
		if n+1 < next && importClause.MatchString(lines[start]) {
			continue
		}
		for i := start; i < end; i++ {
			removed = removed || lines[i] != ""
			lines[i] = ""
		}
	}
	return removed
}

var (
	// continuation matches the first word of a line that belongs to the statement before.
	continuation = regexp.MustCompile(`^(else|if|contains|in|with)\b`)

	importClause   = regexp.MustCompile(`^[ \t]*import\b`)
	firstStatement = regexp.MustCompile(`^(?:[\s\x{FEFF}]|#[^\n]*)*`)
	packageClause  = regexp.MustCompile(`^package[ \t]+([A-Za-z0-9_.]+)`)
	packageName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)
)

// A clause is the name of a package and its position.
type clause struct {
	name string
	loc  *ast.Location
}

// findPackage returns the package clause, which must be the first statement.
func findPackage(content string, report *issues) (clause, bool) {
	before := firstStatement.FindString(content)
	match := packageClause.FindStringSubmatchIndex(content[len(before):])
	switch {
	case match == nil && len(before) == len(content):
		report.add(nil, "missing_package_declaration", "The first statement must be: package caracal.authz.")
		return clause{}, false
	case match == nil:
		report.add(locationAt(content, len(before)), "missing_package_declaration", "The first statement must be: package caracal.authz.")
		return clause{}, false
	}
	c := clause{name: content[len(before)+match[2] : len(before)+match[3]], loc: locationAt(content, len(before)+match[2])}
	if !packageName.MatchString(c.name) {
		report.add(c.loc, "invalid_package_name", "The package name is invalid. It must be caracal.authz.")
		return c, false
	}
	return c, true
}

// locationAt returns the position of an offset in a text, as OPA counts: columns are
// characters.
func locationAt(content string, offset int) *ast.Location {
	before := content[:offset]
	return &ast.Location{Row: strings.Count(before, "\n") + 1, Col: utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1}
}

// scan reports a string that is not terminated, brackets that are not balanced or
// nested too deep, or too many values, in this order. It returns the rows at which
// statements start.
func scan(content string, separators *int, report *issues) (statements []int) {
	type bracket struct {
		closing byte
		offset  int
		first   bool // whether the next token is the first one of an element
		others  int  // elements that do not start with a text
	}
	var open []bracket
	unbalanced, deep, others, last := -1, -1, -1, -1
	var message string
	separate := func(offset int) {
		if *separators++; *separators > maxSeparators && last < 0 {
			last = offset
		}
	}
	row := 1
	startLine := func(offset int) {
		if len(open) > 0 {
			return
		}
		line := strings.TrimLeft(content[offset:], " \t\uFEFF")
		if line != "" && (line[0] == '_' || line[0]|0x20 >= 'a' && line[0]|0x20 <= 'z') && !continuation.MatchString(line) {
			statements = append(statements, row)
		}
	}
	startLine(0)
	for i := 0; i < len(content); i++ {
		c := content[i]
		if n := len(open) - 1; n >= 0 && open[n].first && !strings.ContainsRune(" \t\r\n#", rune(c)) {
			open[n].first = false
			if c != '"' && c != '`' {
				if open[n].others++; open[n].others > maxOtherElements && open[n].closing == '}' && others < 0 {
					others = i
				}
			}
		}
		switch c {
		case '\n':
			row++
			startLine(i + 1)
		case '#':
			for i+1 < len(content) && content[i+1] != '\n' {
				i++
			}
		case '"', '`':
			end := endOfString(content, i)
			if end < 0 {
				report.add(locationAt(content, i), "unterminated_string", "The string is not terminated.")
				return nil
			}
			row += strings.Count(content[i:end], "\n")
			i = end
		case ',', ':':
			separate(i)
			if n := len(open) - 1; n >= 0 && c == ',' {
				open[n].first = true
			}
		case '(', '[', '{':
			separate(i)
			if len(open) == maxNesting && deep < 0 {
				deep = i
			}
			open = append(open, bracket{closing: map[byte]byte{'(': ')', '[': ']', '{': '}'}[c], offset: i, first: true})
		case ')', ']', '}':
			if n := len(open); n > 0 && open[n-1].closing == c {
				open = open[:n-1]
			} else if unbalanced < 0 {
				unbalanced, message = i, fmt.Sprintf("The bracket %c closes none.", c)
			}
		}
	}
	if len(open) > 0 && unbalanced < 0 {
		unbalanced, message = open[len(open)-1].offset, "The bracket is not closed."
	}
	switch {
	case unbalanced >= 0:
		report.add(locationAt(content, unbalanced), "unbalanced_delimiters", "%s", message)
	case deep >= 0:
		report.add(locationAt(content, deep), "too_complex", "Brackets must not be nested deeper than %d levels.", maxNesting)
	case others >= 0:
		report.add(locationAt(content, others), "too_complex", "A set or an object must not have more than %d elements or keys that are not texts.", maxOtherElements)
	case last >= 0:
		report.add(locationAt(content, last), "too_complex", "The policies must not have more than %d commas, colons and brackets together.", maxSeparators)
	}
	return statements
}

// endOfString returns the offset of the quote that terminates the string at an
// offset, or -1. Only raw strings span lines.
func endOfString(content string, start int) int {
	quote := content[start]
	for i := start + 1; i < len(content); i++ {
		switch c := content[i]; {
		case c == quote:
			return i
		case quote == '`':
		case c == '\n':
			return -1
		case c == '\\' && i+1 < len(content) && content[i+1] != '\n':
			i++
		}
	}
	return -1
}
