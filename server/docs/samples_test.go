//go:build browser

package docs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caracal.run/management/server/servertest"
)

// Each operation shows how to send it with curl and in Go before it is sent, and the
// Go code compiles.
func TestSamplesOfEveryOperation(t *testing.T) {
	a := servertest.New(t)
	b := open(t, "light", 1280, 900)
	b.visit(a.URL + "/docs")
	b.shows("#operations", "Create a zone")
	var source strings.Builder
	source.WriteString("package samples\n\nimport (\n\t\"context\"\n\t\"encoding/json\"\n\t\"fmt\"\n\t\"os\"\n\n\t\"caracal.run/management/gen/client\"\n)\n")
	for _, op := range servertest.Operations() {
		id := "operations-" + op.Tags[0] + "-" + op.OperationID
		run[any](b, "location.hash = arguments[0]", "#/"+op.Tags[0]+"/"+op.OperationID)
		b.element("#" + id + ".is-open .samples")
		samples := run[[]string](b, "return [...document.querySelectorAll(`#${arguments[0]} .samples .code`)].map((e) => e.textContent)", id)
		if len(samples) != 2 || !strings.HasPrefix(samples[0], "curl -X "+op.Method+" '"+a.URL+op.Path) {
			t.Errorf("the samples of %s are %q", op.OperationID, samples)
			continue
		}
		fmt.Fprintf(&source, "\nfunc %s(ctx context.Context) error {\n%s\n}\n", op.OperationID, samples[1])
		run[any](b, "document.querySelector(`#${arguments[0]} .opblock-summary-control`).click()", id)
	}
	b.sameOriginOnly(a.URL)

	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"samples.go": source.String(),
		"go.mod":     "module samples\n\ngo 1.26\n\nrequire caracal.run/management/gen/client v0.0.0\n\nreplace caracal.run/management/gen/client => " + root + "/gen/client\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "vet", "./...")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the Go samples do not compile: %v\n%.3000s", err, out)
	}
}

func TestSamplesFollowTheReader(t *testing.T) {
	a := servertest.New(t)
	b := open(t, "light", 1280, 900)
	b.visit(a.URL + "/docs#/zones/updateZone")
	const open = "#operations-zones-updateZone.is-open "
	b.write(open+"[data-param-name=zoneId] input", "zone-7")
	b.write(open+"[data-param-name=If-Match] input", `"3"`)
	b.write(open+"textarea", `{"name":"it's"}`)
	b.shows(open+".samples", "/v1/zones/zone-7'")
	b.shows(open+".samples", `-H 'If-Match: "3"'`)
	b.shows(open+".samples", `-d '{"name":"it'\''s"}'`)
	b.shows(open+".samples", "c.UpdateZone(ctx, \"zone-7\", body, client.IfMatch(`\"3\"`))")
	b.sameOriginOnly(a.URL)
}

// Of a union, the page shows the fields of one alternative.
func TestUnionShowsTheChosenAlternative(t *testing.T) {
	a := servertest.New(t)
	b := open(t, "light", 1280, 900)
	for _, op := range []string{"createProvider", "updateProvider"} {
		in := "#operations-providers-" + op + ".is-open .opblock-section-request-body "
		b.visit("about:blank")
		b.visit(a.URL + "/docs#/providers/" + op)
		b.click(in + "[data-name=model]")
		if op == "updateProvider" {
			b.click(in + "details summary")
		}
		b.shows(in+".schema-name", map[string]string{"createProvider": "NewProvider", "updateProvider": "ProviderPatch"}[op])
		choose := func(kind string) {
			b.element(in + ".union select")
			run[any](b, `const choice = document.querySelector(arguments[0]);
				Object.getOwnPropertyDescriptor(HTMLSelectElement.prototype, "value").set.call(choice, [...choice.options].find((o) => o.text === arguments[1]).value);
				choice.dispatchEvent(new Event("change", {bubbles: true}))`, in+".union select", kind)
		}
		choose("api_key")
		if op == "createProvider" {
			b.element(in + ".union details") // the fields of config_json
		}
		b.shows(in+".union", "query_param_name")
		choose("oauth2_client_credentials")
		b.shows(in+".union", "private_key")
		if text := run[string](b, "return document.querySelector(arguments[0]).textContent", in+".union"); strings.Contains(text, "query_param_name") {
			t.Errorf("%s shows the fields of two kinds", op)
		}
		b.picture("union-" + op)
		b.click("#operations-providers-" + op + ".is-open .responses-table [data-name=model]")
		b.shows("#operations-providers-"+op+".is-open .responses-table .fields", "secret_config_keys")
	}
	b.sameOriginOnly(a.URL)
}

func TestDocumentCanBeDownloaded(t *testing.T) {
	a := servertest.New(t)
	b := open(t, "light", 390, 844)
	b.visit(a.URL + "/docs")
	b.element(".download a")
	links := run[[][2]string](b, "return [...document.querySelectorAll('.download a')].map((a) => [a.href, a.download])")
	if len(links) != 2 || links[0] != [2]string{a.URL + "/openapi.yaml", "caracal-management-openapi.yaml"} || links[1] != [2]string{a.URL + "/openapi.json", "caracal-management-openapi.json"} {
		t.Errorf("the links are %q", links)
	}
	b.sameOriginOnly(a.URL)
}
