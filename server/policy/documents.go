package policy

import (
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A shape describes the values that are valid for a document or a part of one.
type shape struct {
	kind     string           // "text", "list" (an array or a set), "entries" (a list, or an object of which only the values count), "object", "fields", or "collection" (an array, set or object)
	item     *shape           // of each element of a list, entries or object
	required map[string]shape // of the fields
}

var (
	text  = shape{kind: "text"}
	texts = shape{kind: "list", item: &text}
)

// shapes are the shapes of the documents (policy-evaluation.md §4).
var shapes = map[string]shape{
	"app_ids":        {kind: "object", item: &text},
	"grants":         {kind: "object", item: &shape{kind: "fields", required: map[string]shape{"application": text, "roles": {kind: "object", item: &texts}}}},
	"confinement":    {kind: "entries", item: &shape{kind: "fields", required: map[string]shape{"label_prefix": text, "scopes": texts}}},
	"restrict":       {kind: "collection"},
	"risk":           {kind: "entries", item: &shape{kind: "fields", required: map[string]shape{"scope": text, "tier": text}}},
	"approval_tiers": texts,
}

// A step is the key of a value in the value that contains it.
type step = ast.Value

// check calls report for each value that does not have the shape, with the path to
// the value and what it must be, until report returns false. Then it returns false.
func (s shape) check(value ast.Value, path []step, report func(path []step, must string) bool) bool {
	valid := true
	item := func(key step, value *ast.Term) {
		valid = valid && (s.item == nil || s.item.check(value.Value, append(path, key), report))
	}
	items := func(must string, arrays, objects, keyed bool) bool {
		array, isArray := value.(*ast.Array)
		set, isSet := value.(ast.Set)
		object, isObject := value.(ast.Object)
		switch {
		case isArray && arrays:
			for i := range array.Len() {
				item(ast.InternedTerm(i).Value, array.Elem(i))
			}
		case isSet && arrays:
			set.Foreach(func(t *ast.Term) { item(t.Value, t) })
		case isObject && objects:
			object.Foreach(func(k, v *ast.Term) {
				if _, ok := k.Value.(ast.String); keyed && !ok {
					valid = valid && report(append(path, k.Value), "have a text as its key")
				} else {
					item(k.Value, v)
				}
			})
		default:
			return report(path, must)
		}
		return valid
	}
	switch s.kind {
	case "text":
		if _, ok := value.(ast.String); !ok {
			return report(path, "be a text")
		}
	case "list":
		return items("be a list or a set", true, false, false)
	case "entries", "collection":
		return items("be a list, a set or an object", true, true, false)
	case "object":
		return items("be an object", false, true, true)
	case "fields":
		object, ok := value.(ast.Object)
		if !ok {
			return report(path, "be an object")
		}
		for _, name := range sortedKeys(s.required) {
			if field := object.Get(ast.StringTerm(name)); field == nil {
				valid = valid && report(append(path, ast.String(name)), "be set")
			} else {
				valid = valid && s.required[name].check(field.Value, append(path, ast.String(name)), report)
			}
		}
	}
	return valid
}

// maxDocumentSize limits the size of a document, see [documentSize].
const maxDocumentSize = 4 << 20

// documentSize returns the number of characters, digits and elements of a value, or
// a larger number than limit if it is larger. A part that is used twice counts twice,
// because normalize copies it.
func documentSize(value ast.Value, limit int) int {
	n := 1
	part := func(t *ast.Term) {
		if n <= limit {
			n += documentSize(t.Value, limit-n)
		}
	}
	switch value := value.(type) {
	case ast.String:
		n += len(value)
	case ast.Number:
		n += len(value)
	case ast.Object:
		value.Foreach(func(k, v *ast.Term) { part(k); part(v) })
	default:
		each(value, part)
	}
	return n
}

// format returns a path in the notation of Rego: grants["resource://x"].roles[0].
func format(name string, path []step) string {
	var b strings.Builder
	b.WriteString(name)
	for _, step := range path {
		if s, ok := step.(ast.String); ok && isIdentifier(string(s)) {
			fmt.Fprintf(&b, ".%s", string(s))
		} else {
			fmt.Fprintf(&b, "[%s]", shorten(step.String()))
		}
	}
	return b.String()
}

func isIdentifier(s string) bool {
	for i, c := range s {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// locate returns the position of the value at a path in the rules of a document, or
// of the innermost value around it that is written literally.
func locate(rules []*ast.Rule, path []step) *ast.Location {
	var best *ast.Location
	depth := -1
	for _, rule := range rules {
		loc, d := locateInRule(rule, path)
		if d > depth {
			best, depth = loc, d
		}
	}
	return best
}

func locateInRule(rule *ast.Rule, path []step) (*ast.Location, int) {
	depth := 0
	for _, element := range rule.Head.Ref()[1:] {
		if depth == len(path) || element.Value.Compare(path[depth]) != 0 {
			return rule.Location, depth
		}
		depth++
	}
	loc, term := rule.Location, rule.Head.Value
	if term == nil && rule.Head.Key != nil { // of a partial set
		term = rule.Head.Key
		if depth == len(path) || term.Value.Compare(path[depth]) != 0 {
			return rule.Location, depth
		}
		depth++
	}
	for term != nil && term.Location != nil {
		loc = term.Location
		if depth == len(path) {
			return loc, depth + 1
		}
		next := element(term.Value, path[depth])
		if next == nil {
			break
		}
		term, depth = next, depth+1
	}
	return loc, depth
}

// element returns the term at a key of a composite value, or nil.
func element(value ast.Value, key step) *ast.Term {
	switch value := value.(type) {
	case ast.Object:
		return value.Get(ast.NewTerm(key))
	case *ast.Array:
		return value.Get(ast.NewTerm(key))
	case ast.Set:
		var found *ast.Term
		value.Foreach(func(t *ast.Term) {
			if t.Value.Compare(key) == 0 {
				found = t
			}
		})
		return found
	}
	return nil
}

// normalize returns the documents in the form that the decision contract reads,
// which makes each of its lookups one step (see contract.rego). The documents must
// have the shapes of their names; absent ones are empty.
func normalize(documents map[string]ast.Value) ast.Object {
	owners, roles := ast.NewObject(), ast.NewObject()
	if appIDs, ok := documents["app_ids"].(ast.Object); ok {
		appIDs.Foreach(func(key, id *ast.Term) { addTo(owners, id, key) })
	}
	if grants, ok := documents["grants"].(ast.Object); ok {
		grants.Foreach(func(identifier, grant *ast.Term) {
			byName := ast.NewObject()
			grant.Value.(ast.Object).Get(ast.InternedTerm("roles")).Value.(ast.Object).Foreach(func(role, scopes *ast.Term) {
				byName.Insert(role, ast.NewTerm(toSet(scopes.Value)))
			})
			roles.Insert(identifier, ast.ObjectTerm(
				[2]*ast.Term{ast.InternedTerm("application"), grant.Value.(ast.Object).Get(ast.InternedTerm("application"))},
				[2]*ast.Term{ast.InternedTerm("roles"), ast.NewTerm(byName)},
			))
		})
	}
	var confinement []*ast.Term
	each(documents["confinement"], func(entry *ast.Term) {
		entryFields := entry.Value.(ast.Object)
		confinement = append(confinement, ast.ObjectTerm(
			[2]*ast.Term{ast.InternedTerm("label_prefix"), entryFields.Get(ast.InternedTerm("label_prefix"))},
			[2]*ast.Term{ast.InternedTerm("scopes"), ast.NewTerm(toSet(entryFields.Get(ast.InternedTerm("scopes")).Value))},
		))
	})
	tags := ast.NewObject()
	each(documents["risk"], func(entry *ast.Term) {
		scope, tier := entry.Value.(ast.Object).Get(ast.InternedTerm("scope")), entry.Value.(ast.Object).Get(ast.InternedTerm("tier"))
		tag := ast.ObjectTerm([2]*ast.Term{ast.InternedTerm("scope"), scope}, [2]*ast.Term{ast.InternedTerm("tier"), tier})
		addTo(tags, scope, tag)
	})
	return ast.NewObject(
		[2]*ast.Term{ast.InternedTerm("owners"), ast.NewTerm(owners)},
		[2]*ast.Term{ast.InternedTerm("grants"), ast.NewTerm(roles)},
		[2]*ast.Term{ast.InternedTerm("confinement"), ast.ArrayTerm(confinement...)},
		[2]*ast.Term{ast.InternedTerm("tags"), ast.NewTerm(tags)},
		[2]*ast.Term{ast.InternedTerm("approval_tiers"), ast.NewTerm(toSet(documents["approval_tiers"]))},
	)
}

// addTo adds an element to the set at a key of an object.
func addTo(object ast.Object, key, element *ast.Term) {
	set := object.Get(key)
	if set == nil {
		set = ast.SetTerm()
		object.Insert(key, set)
	}
	set.Value.(ast.Set).Add(element)
}

// toSet returns the elements of a list or the values of an object.
func toSet(value ast.Value) ast.Set {
	set := ast.NewSet()
	each(value, set.Add)
	return set
}

// each calls fn for the elements of an array or a set, or the values of an object.
func each(value ast.Value, fn func(*ast.Term)) {
	switch value := value.(type) {
	case *ast.Array:
		value.Foreach(fn)
	case ast.Set:
		value.Foreach(fn)
	case ast.Object:
		value.Foreach(func(_, v *ast.Term) { fn(v) })
	}
}
