package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// rewriteComments rewrites the comments of out/client/models.gen.go, whose form
// oapi-codegen fixes.
func rewriteComments(out string) error {
	name := filepath.Join(out, "client", "models.gen.go")
	source, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	rewritten, err := formatted(modelComments(string(source)))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, rewritten, 0o644)
}

// modelComments returns Go source with the comments that oapi-codegen generated in
// the form of Go doc comments: it begins the comment of a type with a sentence,
// removes the name from the comment of a field, and wraps lines. It returns an
// error if a type has no description.
func modelComments(source string) ([]byte, error) {
	var b strings.Builder
	lines := strings.Split(source, "\n")
	for i := 0; i < len(lines); {
		var comment []string
		start := i
		for i < len(lines) && strings.HasPrefix(strings.TrimSpace(lines[i]), "//") {
			comment = append(comment, strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[i]), "//")))
			i++
		}
		if comment == nil {
			b.WriteString(lines[i] + "\n")
			i++
			continue
		}
		next := i
		for next < len(lines)-1 && lines[next] == "" { // some comments are separated from what they describe
			next++
		}
		text := strings.Join(comment, "\n")
		declaration := append(strings.Fields(lines[next]), "", "")
		description, isField := strings.CutPrefix(text, declaration[0]+" ")
		typeDescription, isType := strings.CutPrefix(text, declaration[1]+" ")
		values, isConst := strings.CutPrefix(text, "Defines values for ")
		switch {
		case declaration[0] == "type" && isType:
			if strings.HasPrefix(typeDescription, "defines model for ") {
				return nil, fmt.Errorf("%s: the schema has no description", declaration[1])
			}
			text = typeComment(declaration[1], typeDescription)
		case declaration[0] == "const" && isConst:
			text = "The values of [" + strings.TrimSuffix(values, ".") + "]."
		case isField:
			text = description
		default:
			b.WriteString(strings.Join(lines[start:i], "\n") + "\n")
			continue
		}
		b.WriteString(doc(text))
		i = next
	}
	return []byte(b.String()), nil
}

// typeComment returns the description of a schema as the comment of its type: "A
// tenant." becomes "Zone is a tenant.".
func typeComment(name, description string) string {
	verb := "is the"
	switch first, _, _ := strings.Cut(description, " "); {
	case slices.Contains([]string{"A", "An", "The", "How", "What", "Where", "Whether"}, first):
		verb = "is"
	case strings.HasSuffix(first, "s"):
		verb = "are the"
	}
	if letters := []rune(description); len(letters) > 1 && unicode.IsLower(letters[1]) || strings.HasPrefix(description, "A ") {
		description = lowerFirst(description)
	}
	return name + " " + verb + " " + description
}

// doc returns paragraphs as a Go comment. Lines that begin with "- " are the items
// of a list.
func doc(text string) string {
	const width = 80
	var b strings.Builder
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString("//\n")
		}
		for part := range strings.SplitSeq("\n"+paragraph, "\n- ") {
			prefix, indent := "// ", "// "
			if !strings.HasPrefix(part, "\n") {
				prefix, indent = "//   - ", "//     "
			}
			line := prefix
			for word := range strings.FieldsSeq(part) {
				switch {
				case line == prefix || line == indent:
					line += word
				case len(line)+1+len(word) > width:
					b.WriteString(line + "\n")
					line = indent + word
				default:
					line += " " + word
				}
			}
			if line != prefix {
				b.WriteString(line + "\n")
			}
		}
	}
	return b.String()
}
