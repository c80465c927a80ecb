package middleware

import (
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
)

// A Schema is a schema of the spec, prepared for the validation of values.
type Schema struct {
	schema        *openapi3.Schema
	trimmedFields []string // fields that are trimmed before they are validated (x-trim)
	nameFields    []string // fields that are names, and are normalized before they are validated (x-name)
}

// newSchema prepares a schema. Fields with alternatives become any object: another
// package knows which one applies.
func newSchema(schema *openapi3.Schema) *Schema {
	s := &Schema{schema: schema}
	for name, field := range schema.Properties {
		if trim, _ := field.Value.Extensions["x-trim"].(bool); trim {
			s.trimmedFields = append(s.trimmedFields, name)
		}
		if isName, _ := field.Value.Extensions["x-name"].(bool); isName {
			s.nameFields = append(s.nameFields, name)
		}
		if field.Value.Extensions["x-union"] != nil {
			schema.Properties[name] = anyObject
		}
	}
	slices.Sort(s.nameFields) // the order of the issues in an error
	return s
}

// Check normalizes the fields of an object as the spec declares, and returns the issues of
// the value, which is at a path of the request.
func (s *Schema) Check(value any, path ...string) []code.Issue {
	invalid := &code.Error{Issues: s.normalize(value, path)}
	if err := s.schema.VisitJSON(value, openapi3.MultiErrors(), openapi3.VisitAsRequest(), openapi3.DisableReadOnlyValidation()); err != nil {
		addIssues(invalid, err, path)
	}
	return invalid.Issues
}

// normalize trims fields and normalizes names. It returns an issue for each invalid name.
func (s *Schema) normalize(value any, path []string) (issues []code.Issue) {
	object, _ := value.(map[string]any)
	for _, field := range s.trimmedFields {
		if text, ok := object[field].(string); ok {
			object[field] = strings.TrimFunc(text, store.IsSpace)
		}
	}
	for _, field := range s.nameFields {
		if text, ok := object[field].(string); ok {
			name, problem := store.NormalizeName(text)
			if problem != "" {
				issues = append(issues, code.Issue{Path: slices.Concat(path, []string{field}), Message: problem})
				continue
			}
			object[field] = name
		}
	}
	return issues
}

// anyObject is the schema of an object that another package checks.
var anyObject = openapi3.NewObjectSchema().NewRef()

// anyValue is the schema of a body that another package checks.
var anyValue = openapi3.NewSchema()

// withoutAlternatives returns a schema with a discriminator as one object: with the
// fields that all alternatives have, and every value of the discriminator. Other
// fields are any object. So the errors of a body do not depend on its alternative,
// whose fields another package checks.
func withoutAlternatives(union *openapi3.Schema) *openapi3.Schema {
	object := *union.OneOf[0].Value
	object.Properties = maps.Clone(object.Properties)
	key := openapi3.NewStringSchema()
	for _, one := range union.OneOf {
		for name, field := range one.Value.Properties {
			if name == union.Discriminator.PropertyName {
				key.Enum = append(key.Enum, field.Value.Enum...)
			} else if object.Properties[name].Value != field.Value {
				object.Properties[name] = anyObject
			}
		}
	}
	object.Properties[union.Discriminator.PropertyName] = key.NewRef()
	return &object
}

// StateSchemas are the schemas of the document of declarative management: of the document
// with any specs, and of the spec of each kind of object.
type StateSchemas struct {
	document *Schema
	specs    map[string]*Schema
}

// newStateSchemas returns nil if the spec has no such document.
func newStateSchemas(spec *openapi3.T) *StateSchemas {
	if spec.Components == nil || spec.Components.Schemas["StateDocument"] == nil {
		return nil
	}
	document, object := spec.Components.Schemas["StateDocument"], spec.Components.Schemas["StateObject"]
	s := &StateSchemas{specs: map[string]*Schema{}}
	for _, one := range object.Value.OneOf {
		for _, kind := range one.Value.Properties[object.Value.Discriminator.PropertyName].Value.Enum {
			s.specs[kind.(string)] = newSchema(one.Value.Properties["spec"].Value)
		}
	}
	whole := *document.Value
	whole.Properties = maps.Clone(whole.Properties)
	objects := *whole.Properties["objects"].Value
	objects.Items = withoutAlternatives(object.Value).NewRef()
	whole.Properties["objects"] = objects.NewRef()
	s.document = newSchema(&whole)
	return s
}

// Document returns the issues of a document, except those inside of specs.
func (s *StateSchemas) Document(value any) []code.Issue { return s.document.Check(value) }

// Spec normalizes the spec of an object, which is at a path, and returns its issues.
func (s *StateSchemas) Spec(kind string, value any, path ...string) []code.Issue {
	return s.specs[kind].Check(value, path...)
}

// StateSchemas returns the schemas of the document of declarative management.
func (o *Operations) StateSchemas() *StateSchemas { return o.state }
