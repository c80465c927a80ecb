//go:build browser

package docs_test

import (
	"strings"
	"testing"

	"caracal.run/management/server/servertest"
)

// The page has a table of the services whose configuration is an example in the spec, in
// light and dark mode, on a desktop and a phone.
func TestServicesTable(t *testing.T) {
	a := servertest.New(t)
	for _, tt := range []struct {
		name, scheme string
		width        int
	}{{"light", "light", 1280}, {"dark", "dark", 1280}, {"light-phone", "light", 390}, {"dark-phone", "dark", 390}} {
		b := open(t, tt.scheme, tt.width, 900)
		b.visit(a.URL + "/docs")
		b.shows("#services", "Notion")
		rows := run[[]string](b, "return [...document.querySelectorAll('#services tbody tr')].map((row) => row.innerText)")
		if len(rows) != 20 {
			t.Errorf("the table has %d services, want 20", len(rows))
		}
		all := strings.Join(rows, "\n")
		for _, want := range []string{"https://api.notion.com/v1/oauth/token", `token_request_format: "json"`, `token_headers: { "Notion-Version": "2022-06-28" }`, `refresh_endpoint: "https://api.figma.com/v1/oauth/refresh"`} {
			if !strings.Contains(all, want) {
				t.Errorf("the table lacks %s:\n%s", want, all)
			}
		}
		if width := run[int](b, "return document.documentElement.scrollWidth"); width > tt.width {
			t.Errorf("%s: the page is %d pixels wide on a screen of %d", tt.name, width, tt.width)
		}
		run[any](b, "document.querySelector('#services').scrollIntoView()")
		b.picture("services-" + tt.name)
		b.click("#services details summary")
		b.shows("#services pre", `"authorization_endpoint": "https://github.com/login/oauth/authorize"`)
		b.write("#search", "figma")
		if shown := run[int](b, "return [...document.querySelectorAll('#services tbody tr')].filter((row) => row.checkVisibility()).length"); shown != 1 {
			t.Errorf("the search for figma shows %d services, want 1", shown)
		}
		b.sameOriginOnly(a.URL)
	}
}
