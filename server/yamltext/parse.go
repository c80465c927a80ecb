package yamltext

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	empty      = "must not be empty"
	givenTwice = "must not be given twice"
)

// An Error is a problem of a text. Its message follows the name of the value at the path, such
// as "must not be given twice", and does not quote values, which may be secret.
type Error struct {
	Path         []string // empty: the whole text
	Message      string
	Line, Column int // from 1; 0: the text has nothing
}

func (e *Error) Error() string {
	message := e.Message
	if len(e.Path) > 0 {
		message = strings.Join(e.Path, ".") + ": " + message
	}
	if e.Line > 0 {
		message = fmt.Sprintf("%d:%d: %s", e.Line, e.Column, message)
	}
	return message
}

// inside returns the error with the path of a value that the field or index is in.
func (e *Error) inside(name string) *Error {
	e.Path = append([]string{name}, e.Path...)
	return e
}

// Parse parses exactly one YAML document. It returns an [Error]. Fields can be given twice.
func Parse(text []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, another yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil, &Error{Message: empty}
	}
	if err == nil {
		if err = decoder.Decode(&another); errors.Is(err, io.EOF) {
			return &document, nil
		}
	}
	if err == nil {
		return nil, &Error{Message: "must be a single YAML document", Line: another.Line, Column: another.Column}
	}
	line, column := position(text, syntaxError(text, err))
	return nil, &Error{Message: syntaxMessage(err), Line: line, Column: column}
}

// FieldTwice returns an [Error] about the first field that an object in a value has twice.
func FieldTwice(value *yaml.Node) error {
	if twice := fieldTwice(value); twice != nil {
		return twice
	}
	return nil
}

func fieldTwice(value *yaml.Node) *Error {
	names := map[string]bool{}
	for i, child := range value.Content {
		name := strconv.Itoa(i)
		if value.Kind == yaml.MappingNode {
			name = value.Content[i&^1].Value // names and values alternate
			if isName := i%2 == 0; isName && names[name] {
				return &Error{Path: []string{name}, Message: givenTwice, Line: child.Line, Column: child.Column}
			}
			names[name] = true
		}
		if twice := fieldTwice(child); twice != nil {
			return twice.inside(name)
		}
	}
	return nil
}

// parserLine is the line in a message of the parser. It is often that of the block around the
// error, or the line before.
var parserLine = regexp.MustCompile(`^line \d+: `)

// syntaxMessage returns the message of the parser without its line.
func syntaxMessage(err error) string {
	message := parserLine.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml: "), "")
	if strings.HasPrefix(message, "unknown anchor") { // which it quotes
		message = "unknown anchor"
	}
	return "must be YAML: " + message
}

// syntaxError returns the index of the word that makes a text invalid YAML: the longest valid
// part of the text ends before it. A quote or bracket that is never closed is such a word. In a
// large text, it can be another word nearby, because the search is limited.
func syntaxError(text []byte, err error) int {
	const overhead = 1 << 10
	budget := 2 << 20 // bytes to parse
	valid := func(end int) bool {
		budget -= end + overhead
		return budget < 0 || parseAll(bytes.NewReader(text[:end])) == nil
	}
	line := lineOf(text, stop(text, err))
	for line > 0 && !valid(line) {
		line = lineOf(text, line-1)
	}
	content, _, _ := bytes.Cut(text[line:], []byte("\n"))
	first := line + len(content) - len(bytes.TrimLeft(content, " "))
	word := line + len(content)
	for word > first {
		before := bytes.TrimRight(text[line:word], " \r")
		word = max(first, line+bytes.LastIndexByte(before, ' ')+1)
		if valid(word) {
			break
		}
	}
	if budget < 0 {
		return first
	}
	return word
}

// stop returns an index in the line of a syntax error, or after it.
func stop(text []byte, err error) int {
	var line int
	if _, other := fmt.Sscanf(err.Error(), "yaml: line %d: found unexpected end of stream", &line); other == nil {
		index := 0 // of the line of a quote that is not closed: the parser reads to the end
		for rest := text; line > 0 && len(rest) > 0; line-- {
			_, rest, _ = bytes.Cut(rest, []byte("\n"))
			index = len(text) - len(rest)
		}
		return max(0, index-1)
	}
	reader := lineReader{text: text}
	_ = parseAll(&reader) // is err
	return max(0, reader.read-1)
}

// parseAll parses every document of a text.
func parseAll(text io.Reader) error {
	decoder := yaml.NewDecoder(text)
	for {
		var document yaml.Node
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// A lineReader never reads more lines than the parser needs.
type lineReader struct {
	text []byte
	read int // bytes
}

func (r *lineReader) Read(to []byte) (n int, err error) {
	if r.read == len(r.text) {
		return 0, io.EOF
	}
	line, _, _ := bytes.Cut(r.text[r.read:], []byte("\n"))
	n = copy(to, r.text[r.read:min(len(r.text), r.read+len(line)+1)])
	r.read += n
	return n, nil
}

// lineOf returns where the line of a character begins.
func lineOf(text []byte, i int) int { return bytes.LastIndexByte(text[:i], '\n') + 1 }

// position returns the line and the column of a character.
func position(text []byte, i int) (line, column int) {
	return bytes.Count(text[:i], []byte("\n")) + 1, utf8.RuneCount(text[lineOf(text, i):i]) + 1
}
