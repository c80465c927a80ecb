package docs

import (
	"bytes"
	"html/template"
	"path"
	"strings"
	"sync"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// guide is a rendered guide. Its Title is the text of its first heading, and Sections
// are its headings of the second level.
type guide struct {
	Name, Title string
	Body        template.HTML
	Sections    []section
	page        []byte
}

type section struct{ ID, Title string }

// guideNames are the names of the guides, in the order in which a reader needs them.
var guideNames = []string{"tour", "go-client", "production", "settings", "performance"}

// markdown renders CommonMark with tables. It omits HTML in the source, and so also what
// the Content-Security-Policy would forbid.
var markdown = goldmark.New(
	goldmark.WithExtensions(extension.NewTable(extension.WithTableCellAlignMethod(extension.TableCellAlignNone))),
	goldmark.WithParserOptions(parser.WithAutoHeadingID(), parser.WithASTTransformers(util.Prioritized(linkTransformer{}, 0))),
)

// linkTransformer changes the links between the files of the guides to links between
// their pages, whose paths have no extension.
type linkTransformer struct{}

// Transform implements [parser.ASTTransformer].
func (linkTransformer) Transform(document *ast.Document, _ text.Reader, _ parser.Context) {
	_ = ast.Walk(document, func(node ast.Node, entering bool) (ast.WalkStatus, error) { // returns the error of the function: none
		if link, ok := node.(*ast.Link); ok && entering {
			file, fragment, found := strings.Cut(string(link.Destination), "#")
			if name, ok := strings.CutSuffix(file, ".md"); ok && !strings.Contains(name, "/") {
				link.Destination = []byte("/docs/guides/" + name)
				if found {
					link.Destination = append(link.Destination, "#"+fragment...)
				}
			}
		}
		return ast.WalkContinue, nil
	})
}

// guides returns the guides. They are rendered once, because they are embedded.
var guides = sync.OnceValue(func() []guide {
	all := make([]guide, len(guideNames))
	for i, name := range guideNames {
		all[i] = render(name, read(assets, path.Join("guides", name+".md")))
	}
	frame := template.Must(template.ParseFS(assets, "guide.html"))
	for i := range all {
		var page bytes.Buffer
		if err := frame.Execute(&page, map[string]any{"Guide": all[i], "Guides": all}); err != nil {
			panic(err) // cannot happen: the template is embedded, and memory accepts all writes
		}
		all[i].page = page.Bytes()
	}
	return all
})

// render returns a guide without its page.
func render(name string, source []byte) guide {
	g := guide{Name: name}
	document := markdown.Parser().Parse(text.NewReader(source))
	for node := document.FirstChild(); node != nil; node = node.NextSibling() {
		heading, ok := node.(*ast.Heading)
		if !ok {
			continue
		}
		title := string(heading.Lines().Value(source))
		switch heading.Level {
		case 1:
			g.Title = title
		case 2:
			id, _ := heading.AttributeString("id") // set by WithAutoHeadingID
			g.Sections = append(g.Sections, section{string(id.([]byte)), title})
		}
	}
	var body bytes.Buffer
	if err := markdown.Renderer().Render(&body, source, document); err != nil {
		panic(err) // cannot happen: memory accepts all writes
	}
	// What can be wider than the screen scrolls by itself, with the keyboard too.
	g.Body = template.HTML(strings.NewReplacer( // goldmark has escaped the text
		"<table>", `<div class="table" tabindex="0" role="group" aria-label="Table"><table>`, "</table>", "</table></div>",
		"<th>", `<th scope="col">`, "<pre>", `<pre tabindex="0" role="group" aria-label="Code">`,
	).Replace(body.String()))
	return g
}
