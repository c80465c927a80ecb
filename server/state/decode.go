package state

import (
	"encoding/json"
	"fmt"
	"strconv"

	"caracal.run/management/gen/code"
)

// Schemas check a document against the spec of the API. They normalize names and trim
// fields as the spec says.
type Schemas interface {
	// Document returns the issues of a document, except those inside of specs.
	Document(document any) []code.Issue
	// Spec returns the issues of a spec, which is at a path.
	Spec(kind string, spec any, path ...string) []code.Issue
}

// Decode turns a tree, as a parser of JSON or YAML returns it, into a document. It returns
// every issue that the document has by itself, whatever the zone is like: the document can
// be used only if there are none. It normalizes the tree.
func Decode(tree any, schemas Schemas) (Document, []code.Issue) {
	issues := schemas.Document(tree)
	fields, _ := tree.(map[string]any)
	d := decodeOptions(fields)
	objects, _ := fields["objects"].([]any)
	seen := map[any]int{} // the index of each object, by its key
	for i, value := range objects {
		object, _ := value.(map[string]any)
		kind, _ := object["kind"].(string)
		raw, isObject := object["spec"].(map[string]any)
		spec := newSpec(Kind(kind))
		if spec == nil || !isObject {
			continue // which the schema of the document reports
		}
		at := []string{"objects", strconv.Itoa(i), "spec"}
		if invalid := schemas.Spec(kind, raw, at...); len(invalid) > 0 {
			issues = append(issues, invalid...)
			continue
		}
		if err := decodeSpec(raw, spec); err != nil {
			issues = append(issues, code.Issue{Path: at, Message: "is invalid"})
			continue
		}
		identity, field := spec.Identity()
		if field != "" {
			at = append(at, field)
		}
		if identity == "" {
			issues = append(issues, code.Issue{Path: at, Message: "must not be empty"})
			continue
		}
		key := Object{Kind(kind), spec}.key()
		if first, duplicate := seen[key]; duplicate {
			issues = append(issues, code.Issue{Path: at, Message: fmt.Sprintf("must not be that of objects[%d], too", first)})
			continue
		}
		seen[key] = i
		d.Objects = append(d.Objects, Object{Kind: Kind(kind), Spec: spec})
	}
	return d, issues
}

// decodeOptions returns a document without objects.
func decodeOptions(fields map[string]any) Document {
	const defaultMaxShare = 0.5
	d := Document{Prune: Prune{MaxShare: defaultMaxShare}}
	d.Owner, _ = fields["owner"].(string)
	d.Prune.Enabled, _ = fields["prune"].(bool)
	kinds, _ := fields["prune_kinds"].([]any)
	for _, kind := range kinds {
		name, _ := kind.(string)
		d.Prune.Kinds = append(d.Prune.Kinds, Kind(name))
	}
	if share, given := fields["prune_max_share"].(json.Number); given {
		d.Prune.MaxShare, _ = share.Float64()
	}
	return d
}

// decodeSpec copies a value that matches the schema of its kind to a spec.
func decodeSpec(value map[string]any, spec Spec) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, spec)
}
