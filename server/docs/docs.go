// Package docs serves /docs, an interactive reference of the API. The page is
// rendered in the browser from /openapi.yaml, so it always matches the spec. It
// renders the operations with Swagger UI, whose files come unmodified from a Go
// module. The guides at /docs/guides/ are rendered by this package, from the Markdown
// files that the README links to.
//
// The package depends neither on the store nor on the operations. The page sends
// ordinary requests, with the token that its user entered.
package docs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"html"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"
	"github.com/swaggest/swgui/v5/static"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/coding"
)

// policy is the Content-Security-Policy of the page. It allows files and requests
// from the page's own origin only: no inline scripts or styles, and no framing.
// The data: images are the icons in Swagger UI's stylesheet.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

//go:embed page.html guide.html guides/*.md init.js samples.js schema.js search.js services.js theme.js style.css icon.svg
var assets embed.FS

// Router is the part of [echo.Echo] that [Register] uses.
type Router interface {
	GET(path string, h echo.HandlerFunc, m ...echo.MiddlewareFunc) *echo.Route
}

// Register adds the routes of the page, of its files and of the guides. They refer to each
// other, and to the spec, below the path under which its user reaches the service; "" is the
// root.
func Register(r Router, publicPath string) {
	for at, f := range files() {
		r.GET(at, f.serve)
	}
	page := newFile("page.html", compress(below(publicPath, read(assets, "page.html"))))
	r.GET("/docs", page.serve)
	r.GET("/docs/", page.serve)
	for _, g := range guides() {
		r.GET("/docs/guides/"+g.Name, newFile("guide.html", compress(below(publicPath, g.page))).serve)
	}
}

// below returns a page whose references are below a path. References are the only
// attributes that start with a slash.
func below(publicPath string, page []byte) []byte {
	return bytes.ReplaceAll(page, []byte(`="/`), []byte(`="`+html.EscapeString(publicPath)+`/`))
}

// file is a file of the page, compressed with gzip, because browsers accept that and
// the files of Swagger UI are distributed that way.
type file struct {
	contentType string
	etag        string
	gzipped     []byte
}

// files returns the files that the page loads, by path.
var files = sync.OnceValue(func() map[string]file {
	// The page needs the table of error codes, because the spec contains only the
	// names of the codes that no operation returns.
	table, err := json.Marshal(code.Table)
	if err != nil {
		panic(err) // cannot happen: numbers and strings
	}
	all := map[string]file{"/docs/errors.json": newFile("errors.json", compress(table))}
	for _, name := range []string{"init.js", "samples.js", "schema.js", "search.js", "services.js", "theme.js", "style.css", "icon.svg"} {
		all["/docs/"+name] = newFile(name, compress(read(assets, name)))
	}
	for _, name := range []string{"swagger-ui-bundle.js", "swagger-ui.css"} {
		all["/docs/"+name] = newFile(name, read(static.FS, name+".gz"))
	}
	return all
})

// contentTypes are the content types, by file extension. They are not read from
// the operating system: with nosniff, a wrong type there would break the page.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
	".json": "application/json; charset=utf-8",
}

// newFile returns a file with the content type of its name.
func newFile(name string, gzipped []byte) file {
	sum := sha256.Sum256(gzipped)
	// A weak ETag, because it is the same for both encodings.
	return file{contentType: contentTypes[path.Ext(name)], etag: `W/"` + hex.EncodeToString(sum[:8]) + `"`, gzipped: gzipped}
}

// read returns the content of an embedded file.
func read(fsys fs.FS, name string) []byte {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		panic(err) // cannot happen: the file is embedded
	}
	return text
}

// compress returns the text, compressed with gzip.
func compress(text []byte) []byte {
	var gzipped bytes.Buffer
	w := gzip.NewWriter(&gzipped)
	_, _ = w.Write(text) // never fails (bytes.Buffer)
	_ = w.Close()
	return gzipped.Bytes()
}

// serve writes the file, or 304 if the client already has it.
func (f file) serve(c echo.Context) error {
	r, h := c.Request(), c.Response().Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	// Caches must revalidate: page, script and spec must be of the same build.
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.etag)
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("If-None-Match"), f.etag) {
		return c.NoContent(http.StatusNotModified)
	}
	if coding.AcceptsGzip(r.Header) {
		h.Set("Content-Encoding", "gzip")
		h.Set("Content-Length", strconv.Itoa(len(f.gzipped)))
		return c.Blob(http.StatusOK, f.contentType, f.gzipped)
	}
	plain, err := gzip.NewReader(bytes.NewReader(f.gzipped))
	if err != nil {
		return err
	}
	return c.Stream(http.StatusOK, f.contentType, plain)
}
