package docs

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"golang.org/x/net/html"
)

// get returns a page below a public path.
func get(t *testing.T, publicPath, at string) string {
	t.Helper()
	e := echo.New()
	Register(e, publicPath)
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest("GET", at, nil))
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" || w.Header().Get("Content-Security-Policy") != policy {
		t.Fatalf("GET %s got %d %v", at, w.Code, w.Header())
	}
	return w.Body.String()
}

// elements returns the elements of a page with one of the names, or all.
func elements(t *testing.T, page string, names ...string) (found []*html.Node) {
	t.Helper()
	document, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for node := range document.Descendants() {
		if node.Type == html.ElementNode && (len(names) == 0 || slices.Contains(names, node.Data)) {
			found = append(found, node)
		}
	}
	return found
}

func attribute(node *html.Node, key string) string {
	for _, a := range node.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// content returns the text of an element.
func content(node *html.Node) string {
	var b strings.Builder
	for child := range node.Descendants() {
		if child.Type == html.TextNode {
			b.WriteString(child.Data)
		}
	}
	return b.String()
}

// ids returns the ids of a page, and fails the test if one is not unique.
func ids(t *testing.T, at, page string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, node := range elements(t, page) {
		id := attribute(node, "id")
		if id != "" && all[id] {
			t.Errorf("%s has the id %s twice", at, id)
		}
		all[id] = true
	}
	return all
}

func TestGuidesAreServedAndListed(t *testing.T) {
	t.Parallel()
	var files []string
	paths, err := filepath.Glob("guides/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		files = append(files, strings.TrimSuffix(filepath.Base(path), ".md"))
	}
	if names := slices.Sorted(slices.Values(guideNames)); !slices.Equal(names, files) {
		t.Errorf("the guides are %v, the files %v", names, files)
	}
	var listed []string
	for _, link := range elements(t, get(t, "", "/docs"), "a") {
		if name, ok := strings.CutPrefix(attribute(link, "href"), "/docs/guides/"); ok {
			listed = append(listed, name)
			if i := slices.Index(guideNames, name); i < 0 || content(link) != guides()[i].Title {
				t.Errorf("the page lists %s as %q", name, content(link))
			}
		}
	}
	if !slices.Equal(listed, guideNames) {
		t.Errorf("the page lists the guides %v, want %v", listed, guideNames)
	}
}

func TestGuidesRenderTheirHeadingsAndCode(t *testing.T) {
	t.Parallel()
	for _, g := range guides() {
		t.Run(g.Name, func(t *testing.T) {
			source, err := os.ReadFile(filepath.Join("guides", g.Name+".md"))
			if err != nil {
				t.Fatal(err)
			}
			page := get(t, "", "/docs/guides/"+g.Name)
			var blocks, headings, rows []string
			for _, block := range regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```$").FindAllStringSubmatch(string(source), -1) {
				blocks = append(blocks, block[1])
			}
			text := regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(string(source), "")
			for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
				headings = append(headings, heading[1])
			}
			rows = regexp.MustCompile(`(?m)^\| [^-].*$`).FindAllString(text, -1)

			var gotBlocks, gotHeadings []string
			for _, node := range elements(t, page, "pre") {
				gotBlocks = append(gotBlocks, content(node))
			}
			if !slices.Equal(gotBlocks, blocks) {
				t.Errorf("the code blocks are\n%q, want\n%q", gotBlocks, blocks)
			}
			for _, node := range elements(t, page, "h1", "h2", "h3") {
				if node.Parent.Data == "main" {
					gotHeadings = append(gotHeadings, content(node))
					if attribute(node, "id") == "" {
						t.Errorf("the heading %q has no id", content(node))
					}
				}
			}
			if !slices.Equal(gotHeadings, headings) {
				t.Errorf("the headings are %q, want %q", gotHeadings, headings)
			}
			if n := len(elements(t, page, "tr")); n != len(rows) {
				t.Errorf("the tables have %d rows, want %d", n, len(rows))
			}
			if strings.Count(page, "<h1") != 1 || !strings.Contains(page, "<title>"+headings[0]+" – ") {
				t.Errorf("the page does not have one title, %q", headings[0])
			}
		})
	}
}

func TestLinksOfGuidesResolve(t *testing.T) {
	t.Parallel()
	for _, publicPath := range []string{"", "/caracal"} {
		for _, g := range guides() {
			at := "/docs/guides/" + g.Name
			own := ids(t, at, get(t, publicPath, at))
			for _, link := range elements(t, get(t, publicPath, at), "a", "link", "script", "img") {
				target := attribute(link, "href") + attribute(link, "src")
				if strings.HasPrefix(target, "https://") {
					continue
				}
				path, fragment, _ := strings.Cut(target, "#")
				anchors := own
				if path != "" {
					relative, ok := strings.CutPrefix(path, publicPath+"/docs")
					_, isFile := files()["/docs"+relative]
					switch {
					case !ok:
						t.Errorf("%s links to %s, which is not below %s/docs", at, target, publicPath)
						continue
					case isFile:
						continue
					}
					anchors = ids(t, path, get(t, publicPath, "/docs"+relative)) // fails if it is not served
				}
				if fragment != "" && !anchors[fragment] {
					t.Errorf("%s links to %s, which has no such heading", at, target)
				}
			}
		}
	}
}

// The README and the guides link to files of the repository, and to headings in them.
func TestLinksBetweenFilesResolve(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	read := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	sources := []string{"../../README.md"}
	for _, name := range guideNames {
		sources = append(sources, "guides/"+name+".md")
	}
	found := 0
	for _, source := range sources {
		for _, match := range link.FindAllStringSubmatch(read(source), -1) {
			file, fragment, _ := strings.Cut(match[1], "#")
			if strings.HasPrefix(file, "https:") {
				continue
			}
			found++
			target := source
			if file != "" {
				target = filepath.Join(filepath.Dir(source), file)
			}
			if info, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", source, match[1], err)
			} else if !info.IsDir() && fragment != "" && !ids(t, target, string(render("", []byte(read(target))).Body))[fragment] {
				t.Errorf("%s links to %s, which has no such heading", source, match[1])
			}
		}
	}
	if found < len(guideNames) {
		t.Errorf("found only %d links", found)
	}
}

// The policy of the page forbids inline scripts and styles. HTML in Markdown is omitted.
func TestGuidesHaveNoInlineScriptOrStyle(t *testing.T) {
	t.Parallel()
	pages := map[string]string{"HTML in Markdown": string(render("", []byte("# A\n\n<script>alert(1)</script>\n\nB <b onclick=x>c</b> [d](javascript:alert(1))\n\n| a |\n| :-: |\n| b |\n")).Body)}
	for _, name := range guideNames {
		pages[name] = get(t, "", "/docs/guides/"+name)
	}
	for name, page := range pages {
		for _, node := range elements(t, page) {
			inline := node.Data == "style" || node.Data == "script" && attribute(node, "src") == "" || strings.HasPrefix(attribute(node, "href"), "javascript:")
			for _, a := range node.Attr {
				inline = inline || a.Key == "style" || strings.HasPrefix(a.Key, "on")
			}
			if inline {
				t.Errorf("%s: the page has an inline script or style in <%s>", name, node.Data)
			}
		}
	}
}
