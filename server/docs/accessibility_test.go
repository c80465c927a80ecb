//go:build browser

package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/server/servertest"
)

// axe returns the source of axe-core, which finds faults of accessibility.
var axe = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "axe")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("npm", "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "axe-core@4.14.1")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", err
	}
	source, err := os.ReadFile(filepath.Join(dir, "node_modules", "axe-core", "axe.min.js"))
	return string(source), err
})

// accessible fails the test if axe finds a fault that is not minor in a part of the page,
// such as headings that are not in order, or if the page has logged an error before.
func (b *browser) accessible(where, part, origin string) {
	b.tb.Helper()
	b.sameOriginOnly(origin)
	source, err := axe()
	if err != nil {
		b.tb.Fatalf("this test requires npm (task browser installs it): %v", err)
	}
	faults := run[[]string](b, source+`;
		return axe.run(`+"`"+part+"`"+`, {preload: false, resultTypes: ["violations"]}).then(({violations}) => violations
			.filter((v) => v.impact !== "minor")
			.map((v) => v.impact + " " + v.id + ": " + v.help + ": " + v.nodes.slice(0, 3).map((n) => n.target + " " + n.html.slice(0, 150) + " " + (n.any[0]?.message ?? "")).join("; ")))`)
	if len(faults) > 0 {
		b.tb.Errorf("%s is not accessible:\n%s", where, strings.Join(faults, "\n"))
	}
	b.log("browser") // axe sets styles, which the policy of the page forbids
	b.noInternals(where)
}

// noInternals fails the test if the page shows how a library prints its values.
func (b *browser) noInternals(where string) {
	b.tb.Helper()
	content := run[string](b, "return document.body.textContent")
	for _, internal := range []string{"OrderedMap", "Map {", "List [", "[object Object]", "undefined"} {
		if strings.Contains(content, internal) {
			b.tb.Errorf("%s shows %q", where, internal)
		}
	}
}

func TestPageIsAccessible(t *testing.T) {
	a := servertest.New(t)
	for _, scheme := range []string{"light", "dark"} {
		t.Run(scheme, func(t *testing.T) {
			b := open(t, scheme, 1280, 900)
			b.visit(a.URL + "/docs")
			b.shows("#operations", "Create a zone")
			b.accessible("the start page", "html", a.URL)
			b.write("#token", servertest.Bootstrap)
			for _, one := range []string{"zones/createZone", "providers/createProvider", "providers/updateProvider", "resources/createResource", "policy-sets/activatePolicySet", "zones/listZones"} {
				id := "#operations-" + strings.ReplaceAll(one, "/", "-") + ".is-open"
				b.visit("about:blank")
				b.visit(a.URL + "/docs#/" + one)
				b.element(id + " .execute")
				b.click(id + " .samples summary")
				if strings.HasPrefix(one[strings.Index(one, "/")+1:], "list") {
					b.click(id + " .execute")
					b.shows(id+" .live-responses-table .response-col_status", "200")
				} else {
					b.click(id + " [data-name=model]")
					b.element(id + " .schema")
				}
				b.accessible(one, id, a.URL)
			}
		})
	}
}
