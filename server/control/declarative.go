package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"

	"caracal.run/management/gen/code"
)

// A StateKind is a kind of objects in documents of declarative management.
type StateKind struct {
	Kind          string `json:"kind"`
	IdentityField string `json:"identityField"` // by which an object is found in the zone
	Command       string `json:"command"`       // whose scopes are required
}

// StateKinds are the kinds of objects that commands can declare.
var StateKinds = []StateKind{
	{"application", "name", "app"},
	{"identity-provider", "identifier", "identity-provider"},
	{"resource", "identifier", "resource"},
	{"policy", "name", "policy"},
	{"policy-set", "name", "policy-set"},
	{"grant", "application, user_id, resource", "grant"},
}

const (
	documentFlag = "document"
	specFlag     = "spec"
	pruneFlag    = "prune"
	dryRunFlag   = "dry-run"
)

var (
	document = text(documentFlag, "", "The document: JSON.").required()
	dryRun   = text(dryRunFlag, "", "Only plan the changes.").of(Boolean)
	mode     = query(text("mode", "", "atomic (the default): all objects are changed, or none. best_effort: those that can be."), "mode")
	prune    = text(pruneFlag, "", "Archive what the document does not contain, as prune in the document.").of(Boolean)
)

// declarative returns a subcommand that compares objects with the zone. Its token must have
// the scopes of their kinds.
func declarative(name, summary string, applies bool, flags ...Flag) Subcommand {
	return Subcommand{Name: name, Summary: summary, Flags: flags, declares: true, applies: applies}
}

// ensure returns a subcommand for each kind.
func ensure() (all []Subcommand) {
	for _, k := range StateKinds {
		spec := text(specFlag, "", "What the object should be: a JSON object.").required()
		all = append(all, declarative(k.Kind, "Create or update one object of the kind "+k.Kind+".", true, spec, dryRun))
	}
	return all
}

// callState returns the call of a declarative subcommand in a zone.
func (s Subcommand) callState(flags map[string]any, zone string, scopes []string) (Call, error) {
	values := map[string]any{}
	for _, f := range s.Flags {
		value, given := flags[f.Name]
		if !given || value == nil || value == "" {
			if f.Required {
				return Call{}, invalid(`flag "%s" is required`, f.Name)
			}
			continue
		}
		converted, err := f.convert(value)
		if err != nil {
			return Call{}, err
		}
		values[f.Name] = converted
	}
	body, err := s.document(values)
	if err != nil {
		return Call{}, err
	}
	dry, _ := values[dryRunFlag].(bool)
	c := Call{Operation: "planState", Path: map[string]string{}, Query: url.Values{}, Body: body}
	if s.applies && !dry {
		c.Operation, c.Changes = "applyState", true
	}
	if mode, given := values["mode"].(string); given {
		c.Query.Set("mode", mode)
	}
	prunes, _ := values[pruneFlag].(bool)
	if prunes {
		c.Query.Set("prune", "true")
	}
	if inBody, _ := body["prune"].(bool); inBody {
		prunes = true
	}
	required, err := requiredScopes(body, zone, c.Changes, prunes)
	if err != nil {
		return Call{}, err
	}
	for _, scope := range required {
		if !slices.Contains(scopes, scope) {
			return Call{}, missingScope(scope)
		}
	}
	return c, nil
}

// document returns the document in the flags of a subcommand. The spec of ensure is that of
// the only object of a document.
func (s Subcommand) document(values map[string]any) (map[string]any, error) {
	name := documentFlag
	if _, given := values[specFlag]; given {
		name = specFlag
	}
	given, _ := values[name].(string)
	value, err := decodeJSON(given)
	if err != nil {
		return nil, invalid(`flag "%s" must be valid JSON`, name)
	}
	object, isObject := value.(map[string]any)
	switch {
	case name == specFlag && !isObject:
		return nil, invalid("spec must be a JSON object")
	case name == specFlag:
		return map[string]any{"objects": []any{map[string]any{"kind": s.Name, "spec": object}}}, nil
	case !isObject:
		return nil, invalid("document must be a JSON object")
	}
	return object, nil
}

func decodeJSON(text string) (value any, err error) {
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return value, nil
}

// requiredScopes returns the scopes that a document requires, and removes the zone that its
// specs can name. It returns control_invalid for what is no document, control_denied for a
// kind that the Control API does not have, and control_zone_mismatch.
func requiredScopes(document map[string]any, zone string, changes, prunes bool) ([]string, error) {
	objects, isArray := document["objects"].([]any)
	if !isArray {
		return nil, invalid(`document field "objects" must be an array`)
	}
	var kinds, pruned []StateKind
	for i, value := range objects {
		object, isObject := value.(map[string]any)
		if !isObject {
			return nil, invalid("objects[%d] must be an object", i)
		}
		name, isText := object["kind"].(string)
		if !isText {
			return nil, invalid("objects[%d].kind is required", i)
		}
		kind, err := stateKind(name)
		if err != nil {
			return nil, err
		}
		spec, isObject := object["spec"].(map[string]any)
		if !isObject {
			return nil, invalid("objects[%d].spec must be an object", i)
		}
		for _, field := range []string{"zone_id", "zone"} {
			declared, given := spec[field]
			if text, isText := declared.(string); isText && text != zone {
				return nil, code.ControlZoneMismatch.Saying(fmt.Sprintf("objects[%d] is in zone %s, and the token in zone %s", i, text, zone))
			}
			if given {
				delete(spec, field)
			}
		}
		kinds = append(kinds, kind)
	}
	if pruned = kinds; prunes && document["owner"] != nil {
		pruned = StateKinds // what the owner manages can be of any kind
	}
	if names, isArray := document["prune_kinds"].([]any); isArray && prunes {
		for _, name := range names {
			name, _ := name.(string)
			kind, err := stateKind(name)
			if err != nil {
				return nil, err
			}
			pruned = append(slices.Clone(pruned), kind)
			kinds = append(kinds, kind)
		}
	}
	var scopes []string
	for _, k := range kinds {
		scopes = append(scopes, "control:"+k.Command+":"+read)
		if changes {
			scopes = append(scopes, "control:"+k.Command+":"+write)
		}
	}
	for _, k := range pruned {
		if prunes {
			scopes = append(scopes, "control:"+k.Command+":"+read)
		}
		if prunes && changes {
			scopes = append(scopes, "control:"+k.Command+":"+remove)
		}
	}
	return scopes, nil
}

// stateKind returns a kind by its name.
func stateKind(name string) (StateKind, error) {
	if name == "zone" {
		return StateKind{}, code.ControlDenied.Saying(`kind "zone" is not available through zone-bound Control`)
	}
	at := slices.IndexFunc(StateKinds, func(k StateKind) bool { return k.Kind == name })
	if at < 0 {
		return StateKind{}, invalid(`unknown object kind "%s"`, name)
	}
	return StateKinds[at], nil
}
