package policy

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// warner returns a function that adds a warning about a part of a document. It adds at
// most maxIssues.
func (c *compilation) warner() func(document string, path []step, code, format string, args ...any) {
	added := 0
	return func(document string, path []step, code, format string, args ...any) {
		if added++; added <= maxIssues {
			loc := locate(c.definitions[document], path)
			c.reports[loc.File].add(loc, code, format, args...)
		}
	}
}

// addWarnings adds warnings for what is valid but has no effect: keys of app_ids that no grant
// uses, applications of grants that app_ids does not name, and tiers that need
// approval but tag no scope. It compares only documents that are defined, because
// another policy of the set can define the others.
func (c *compilation) addWarnings() {
	report := c.warner()
	appIDs, hasAppIDs := c.documents["app_ids"].(ast.Object)
	grants, hasGrants := c.documents["grants"].(ast.Object)
	if hasAppIDs && hasGrants {
		used := ast.NewSet()
		grants.Foreach(func(identifier, grant *ast.Term) {
			key := grant.Value.(ast.Object).Get(ast.InternedTerm("application"))
			used.Add(key)
			if appIDs.Get(key) == nil {
				report("grants", []step{identifier.Value, ast.String("application")}, "unknown_application",
					"app_ids does not define %s, so the grant has no effect.", key)
			}
		})
		appIDs.Foreach(func(key, _ *ast.Term) {
			if !used.Contains(key) {
				report("app_ids", []step{key.Value}, "unused_application", "No grant uses %s.", key)
			}
		})
	}
	risk, hasRisk := c.documents["risk"]
	approvalTiers, hasApprovalTiers := c.documents["approval_tiers"]
	if hasRisk && hasApprovalTiers {
		tiers := ast.NewSet()
		each(risk, func(entry *ast.Term) { tiers.Add(entry.Value.(ast.Object).Get(ast.InternedTerm("tier"))) })
		each(approvalTiers, func(tier *ast.Term) {
			if !tiers.Contains(tier) {
				report("approval_tiers", nil, "unused_tier", "No scope has the tier %s.", tier)
			}
		})
	}
}

// resources returns the identifiers of the resources that grants name.
func (c *compilation) resources() []string {
	var identifiers []string
	if grants, ok := c.documents["grants"].(ast.Object); ok {
		grants.Foreach(func(identifier, _ *ast.Term) {
			identifiers = append(identifiers, string(identifier.Value.(ast.String)))
		})
	}
	return identifiers
}

// addUndeclaredScopes reports each scope that the grants name and that no resource
// declares. declared has the scopes of each resource by its identifier.
func (c *compilation) addUndeclaredScopes(declared map[string][]string, report *issues) {
	grants, _ := c.documents["grants"].(ast.Object)
	if grants == nil {
		return
	}
	warn := func(path []step, code, format string, args ...any) {
		if len(report.list) < maxIssues { // locate takes time
			report.add(locate(c.definitions["grants"], path), code, format, args...)
		}
	}
	grants.Foreach(func(identifier, grant *ast.Term) {
		name := string(identifier.Value.(ast.String))
		scopes, exists := declared[name]
		if !exists {
			warn([]step{identifier.Value}, "unknown_resource", "The zone has no resource %s, so the grant has no effect.", identifier)
			return
		}
		grant.Value.(ast.Object).Get(ast.InternedTerm("roles")).Value.(ast.Object).Foreach(func(role, list *ast.Term) {
			at := -1
			each(list.Value, func(scope *ast.Term) {
				at++
				if !slices.Contains(scopes, string(scope.Value.(ast.String))) {
					path := []step{identifier.Value, ast.String("roles"), role.Value, elementKey(list.Value, at, scope)}
					warn(path, "undeclared_scope", "The resource %s does not declare the scope %s.", identifier, scope)
				}
			})
		})
	})
}

// elementKey returns the key of an element of an array, or a set, at an index.
func elementKey(container ast.Value, index int, element *ast.Term) step {
	if _, ok := container.(*ast.Array); ok {
		return ast.InternedTerm(index).Value
	}
	return element.Value
}

// issues returns the issues of all modules.
func (c *compilation) issues() []Issue {
	var all []Issue
	for _, id := range sortedKeys(c.reports) {
		all = append(all, c.reports[id].sorted()...)
	}
	return all
}
