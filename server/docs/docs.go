// Package docs serves /docs, where a person reads what the API promises and
// tries it. The page makes itself from /openapi.json, so it lists whatever the
// spec lists; Swagger UI, which draws the operations, is a Go module and leaves
// the binary as it came.
//
// The package knows neither the store nor the operations. What the page sends
// is a request like any other, with the token that its reader typed.
package docs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"
	"github.com/swaggest/swgui/v5/static"

	"caracal.run/management/gen/code"
)

// policy lets the page have its own files and talk to its own origin, and
// nothing else: no inline script, no inline style, no frame around it. The
// data: images are the icons in Swagger UI's stylesheet.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

//go:embed page.html init.js style.css icon.svg
var ours embed.FS

// A Router is what Register adds its routes to.
type Router interface {
	GET(path string, h echo.HandlerFunc, m ...echo.MiddlewareFunc) *echo.Route
}

// Register adds a route for the page and one for each file that it needs.
func Register(r Router) {
	for at, f := range files() {
		r.GET(at, f.serve)
	}
}

// A file is kept packed: as every browser wants it, and as Swagger UI comes.
type file struct {
	kind   string
	tag    string
	packed []byte
}

// files are what is served, by path.
var files = sync.OnceValue(func() map[string]file {
	// The spec knows which operation answers which code, but of those that are
	// answered where no operation is only the names.
	sentences, err := json.Marshal(code.Table)
	if err != nil {
		panic(err) // numbers and strings
	}
	page := newFile("page.html", pack(read(ours, "page.html")))
	all := map[string]file{"/docs": page, "/docs/": page, "/docs/errors.json": newFile("errors.json", pack(sentences))}
	for _, name := range []string{"init.js", "style.css", "icon.svg"} {
		all["/docs/"+name] = newFile(name, pack(read(ours, name)))
	}
	for _, name := range []string{"swagger-ui-bundle.js", "swagger-ui.css"} {
		all["/docs/"+name] = newFile(name, read(static.FS, name+".gz"))
	}
	return all
})

// kinds are said here and not asked of the machine: with nosniff, a type that
// its administrator has changed would leave the page blank.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
	".json": "application/json; charset=utf-8",
}

func newFile(name string, packed []byte) file {
	sum := sha256.Sum256(packed)
	// Weak, since it stands for the packed and the plain form alike.
	return file{kind: kinds[path.Ext(name)], tag: `W/"` + hex.EncodeToString(sum[:8]) + `"`, packed: packed}
}

func read(from fs.FS, name string) []byte {
	text, err := fs.ReadFile(from, name)
	if err != nil {
		panic(err) // embedded, or this would not have been built
	}
	return text
}

func pack(text []byte) []byte {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(text) // a buffer takes everything
	_ = w.Close()
	return packed.Bytes()
}

func (f file) serve(c echo.Context) error {
	r, h := c.Request(), c.Response().Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	// Kept, but never used unasked: page, script and spec belong together, and
	// a new binary brings all three.
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.tag)
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("If-None-Match"), f.tag) {
		return c.NoContent(http.StatusNotModified)
	}
	if takesGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		h.Set("Content-Length", strconv.Itoa(len(f.packed)))
		return c.Blob(http.StatusOK, f.kind, f.packed)
	}
	plain, err := gzip.NewReader(bytes.NewReader(f.packed))
	if err != nil {
		return err
	}
	return c.Stream(http.StatusOK, f.kind, plain)
}

// takesGzip reads an Accept-Encoding header (RFC 9110 §12.5.3).
func takesGzip(accepted string) bool {
	for one := range strings.SplitSeq(accepted, ",") {
		coding, weight, _ := strings.Cut(strings.ReplaceAll(one, " ", ""), ";q=")
		if strings.EqualFold(coding, "gzip") {
			q, err := strconv.ParseFloat(weight, 64)
			return weight == "" || err == nil && q > 0
		}
	}
	return false
}
