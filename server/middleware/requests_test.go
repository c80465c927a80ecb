package middleware

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"caracal.run/management/gen"
)

// What the service loads is the part of a valid document that it uses.
func TestRequestsArePartOfTheDocument(t *testing.T) {
	t.Parallel()
	load := func(text []byte) *openapi3.T {
		spec, err := openapi3.NewLoader().LoadFromData(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := spec.Validate(t.Context()); err != nil {
			t.Fatal(err)
		}
		return spec
	}
	document, requests := load(gen.OpenAPI), load(gen.Requests)
	for name, schema := range requests.Components.Schemas {
		if want := document.Components.Schemas[name]; !reflect.DeepEqual(withoutTexts(t, schema), withoutTexts(t, want)) {
			t.Errorf("another schema %s", name)
		}
	}
	for path, item := range document.Paths.Map() {
		for method, op := range item.Operations() {
			got := requests.Paths.Value(path).GetOperation(method)
			for _, part := range []func(*openapi3.Operation) any{
				func(op *openapi3.Operation) any { return op.Parameters },
				func(op *openapi3.Operation) any { return op.RequestBody },
			} {
				if !reflect.DeepEqual(withoutTexts(t, part(got)), withoutTexts(t, part(op))) {
					t.Errorf("%s has other parameters or another body", op.OperationID)
				}
			}
		}
	}
	all, err := NewOperations(document)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := NewOperations(requests)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Sorted(maps.Keys(loaded.byRoute)), slices.Sorted(maps.Keys(all.byRoute)); !slices.Equal(got, want) {
		t.Fatalf("routes %q, want %q", got, want)
	}
	for id := range all.byID {
		got, want := *loaded.byID[id], *all.byID[id]
		for _, op := range []*Operation{&got, &want} {
			op.route, op.body, op.pathParams, op.queryParams = nil, nil, nil, nil // compared above
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", id, got, want)
		}
	}
}

// withoutTexts returns a part of a document as JSON values without descriptions and examples.
func withoutTexts(t *testing.T, part any) any {
	t.Helper()
	text, err := json.Marshal(part)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	var strip func(value any, names bool)
	strip = func(value any, names bool) {
		switch value := value.(type) {
		case map[string]any:
			for key, field := range value {
				if !names && slices.Contains([]string{"description", "summary", "example", "examples"}, key) {
					delete(value, key)
				} else {
					strip(field, key == "properties")
				}
			}
		case []any:
			for _, element := range value {
				strip(element, false)
			}
		}
	}
	strip(value, false)
	return value
}
