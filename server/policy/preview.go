package policy

import (
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A Preview summarizes a valid policy (policies.md, "POST /v1/policies/validate").
type Preview struct {
	Package          string
	Rules            []string // names of the documents that it defines
	Decisions        []string // values of "decision" that the text contains
	InputsReferenced []string // such as input.principal.id
	DataReferenced   []string
}

var decision = regexp.MustCompile(`"decision"\s*:\s*"(allow|deny)"`)

func preview(m *ast.Module, content string) Preview {
	p := Preview{Package: "caracal.authz", Rules: []string{}, Decisions: []string{}, InputsReferenced: []string{}, DataReferenced: []string{}}
	for _, rule := range m.Rules {
		p.Rules = append(p.Rules, documentOf(rule))
	}
	for _, match := range decision.FindAllStringSubmatch(content, -1) {
		p.Decisions = append(p.Decisions, match[1])
	}
	references := ast.NewGenericVisitor(func(x any) bool {
		ref, ok := x.(ast.Ref)
		if !ok {
			return false
		}
		switch path := staticPath(ref); {
		case strings.HasPrefix(path, "input."):
			p.InputsReferenced = append(p.InputsReferenced, path)
		case strings.HasPrefix(path, "data.caracal.authz."): // not the package itself
			p.DataReferenced = append(p.DataReferenced, path)
		}
		return false
	})
	for _, rule := range m.Rules {
		walkRule(references, rule)
	}
	for _, list := range []*[]string{&p.Rules, &p.Decisions, &p.InputsReferenced, &p.DataReferenced} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return p
}

// staticPath returns a reference up to its first element that is not an identifier.
func staticPath(ref ast.Ref) string {
	head, _ := ref[0].Value.(ast.Var)
	path := []string{string(head)}
	for _, element := range ref[1:] {
		name, ok := element.Value.(ast.String)
		if !ok || !isIdentifier(string(name)) {
			break
		}
		path = append(path, string(name))
	}
	return strings.Join(path, ".")
}
