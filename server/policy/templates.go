package policy

import (
	"embed"
)

// A Template is a policy to start from.
type Template struct {
	ID, Name, Description string
	Content               string
}

//go:embed templates/*.rego
var templateFiles embed.FS

// Templates returns the policy templates (policy-templates.md). The caller must not
// modify the slice.
func Templates() []Template { return templates }

var templates = []Template{
	template("application-bindings", "Application Bindings", "Gives each application a key, which grants refer to."),
	template("resource-grants", "Resource Grants", "Grants an application access to its resources, with the scopes of each role. Requires Application Bindings."),
	template("label-confinement", "Label Confinement", "Limits agents with certain labels to a list of scopes."),
	template("zone-restriction", "Zone Restriction", "Denies every request in the zone while it has an element."),
	template("risk-tiers", "Risk Tiers", "Assigns scopes to tiers of risk, which decisions report."),
	template("approval-tiers", "Approval Tiers", "Lists the tiers of risk for which a person must approve a request."),
}

func template(id, name, description string) Template {
	content, err := templateFiles.ReadFile("templates/" + id + ".rego")
	if err != nil {
		panic(err) // the files are embedded
	}
	return Template{ID: id, Name: name, Description: description, Content: string(content)}
}
