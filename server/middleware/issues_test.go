package middleware

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"caracal.run/management/gen"
	"caracal.run/management/gen/code"
)

func parseSchema(t *testing.T, text string) *openapi3.Schema {
	t.Helper()
	var schema openapi3.Schema
	if err := json.Unmarshal([]byte(text), &schema); err != nil {
		t.Fatal(err)
	}
	return &schema
}

// issuesOf returns the issues of an error, each as "path: message".
func issuesOf(t *testing.T, err error) []string {
	t.Helper()
	full, ok := err.(*code.Error)
	if !ok {
		t.Fatalf("%v is not a *code.Error", err)
	}
	var all []string
	for _, issue := range full.Issues {
		all = append(all, strings.TrimPrefix(strings.Join(issue.Path, ".")+": "+issue.Message, ": "))
	}
	slices.Sort(all)
	return all
}

func TestSchemaErrorsReadAfterTheFieldsName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		keyword, schema, value string
		want                   []string
	}{
		{"minLength", `{"properties":{"x":{"type":"string","minLength":1}}}`, `{"x":""}`, []string{"x: must not be empty"}},
		{"minLength", `{"properties":{"x":{"type":"string","minLength":16}}}`, `{"x":"a"}`, []string{"x: must be at least 16 characters"}},
		{"maxLength", `{"properties":{"x":{"type":"string","maxLength":2}}}`, `{"x":"abc"}`, []string{"x: must be at most 2 characters"}},
		{"maxLength", `{"properties":{"x":{"type":"string","maxLength":1}}}`, `{"x":"abc"}`, []string{"x: must be at most 1 character"}},
		{"minimum", `{"properties":{"x":{"type":"integer","minimum":1}}}`, `{"x":0}`, []string{"x: must be at least 1"}},
		{"maximum", `{"properties":{"x":{"type":"integer","maximum":315360000}}}`, `{"x":315360001}`, []string{"x: must be at most 315360000"}},
		{"maximum", `{"properties":{"x":{"type":"number","maximum":0.5}}}`, `{"x":1}`, []string{"x: must be at most 0.5"}},
		{"pattern", `{"properties":{"x":{"type":"string","pattern":"^[a-z]+$"}}}`, `{"x":"A"}`, []string{"x: must match the pattern ^[a-z]+$"}},
		{"enum", `{"properties":{"x":{"type":"string","enum":["a","b","c"]}}}`, `{"x":"d"}`, []string{"x: must be one of a, b, c"}},
		{"enum", `{"properties":{"x":{"type":"string","enum":["managed"]}}}`, `{"x":"dcr"}`, []string{"x: must be managed"}},
		{"type", `{"properties":{"x":{"type":"string"}}}`, `{"x":1}`, []string{"x: must be a string"}},
		{"type", `{"properties":{"x":{"type":"string"}}}`, `{"x":1e400}`, []string{"x: must be a string"}},
		{"type", `{"properties":{"x":{"type":"integer"}}}`, `{"x":"1"}`, []string{"x: must be an integer"}},
		{"type", `{"properties":{"x":{"type":"integer"}}}`, `{"x":1.5}`, []string{"x: must be an integer"}},
		{"type", `{"properties":{"x":{"type":"integer"}}}`, `{"x":1e400}`, []string{"x: must be an integer"}},
		{"type", `{"properties":{"x":{"type":"number"}}}`, `{"x":true}`, []string{"x: must be a number"}},
		{"type", `{"properties":{"x":{"type":"boolean"}}}`, `{"x":"true"}`, []string{"x: must be a boolean"}},
		{"type", `{"properties":{"x":{"type":"array"}}}`, `{"x":{}}`, []string{"x: must be an array"}},
		{"type", `{"type":"object"}`, `[]`, []string{"must be an object"}},
		{"type", `{"properties":{"x":{"type":"array","items":{"type":"string"}}}}`, `{"x":["a",1]}`, []string{"x.1: must be a string"}},
		{"nullable", `{"properties":{"x":{"type":"string"}}}`, `{"x":null}`, []string{"x: must not be null"}},
		{"required", `{"required":["x","y"]}`, `{}`, []string{"x: is required", "y: is required"}},
		{"required", `{"properties":{"x":{"items":{"required":["y"]}}}}`, `{"x":[{}]}`, []string{"x.0.y: is required"}},
		{"additionalProperties", `{"additionalProperties":false,"properties":{"x":{}}}`, `{"y":1}`, []string{"y: unknown field"}},
		{"additionalProperties", `{"additionalProperties":false}`, `{"a\"b\u00a0":1}`, []string{"a\"b\u00a0: unknown field"}},
		{"additionalProperties", `{"additionalProperties":{"type":"string"}}`, `{"y":1}`, []string{"y: must be a string"}},
		{"minItems", `{"properties":{"x":{"type":"array","minItems":1}}}`, `{"x":[]}`, []string{"x: must have at least 1 item"}},
		{"minItems", `{"properties":{"x":{"type":"array","minItems":2}}}`, `{"x":[]}`, []string{"x: must have at least 2 items"}},
		{"maxItems", `{"properties":{"x":{"type":"array","maxItems":2}}}`, `{"x":[1,2,3]}`, []string{"x: must have at most 2 items"}},
		{"format", `{"properties":{"x":{"type":"integer","format":"int32"}}}`, `{"x":1e10}`, []string{"x: must be a 32-bit integer"}},
		{"format", `{"properties":{"x":{"type":"string","format":"date-time"}}}`, `{"x":"yesterday"}`, []string{"x: must be a valid date-time"}},
		{"anyOf", `{"properties":{"x":{"anyOf":[{"type":"string"},{"type":"integer"}]}}}`, `{"x":true}`, []string{"x: must match one of the allowed schemas"}},
		{"allOf", `{"properties":{"x":{"allOf":[{"type":"string","enum":["a","b"]}]}}}`, `{"x":"c"}`, []string{"x: must be one of a, b"}},
		{"several", `{"required":["z"],"properties":{"x":{"type":"string"},"y":{"type":"integer"}}}`, `{"x":1,"y":""}`, []string{"x: must be a string", "y: must be an integer", "z: is required"}},
	} {
		t.Run(tt.keyword+" "+tt.value, func(t *testing.T) {
			t.Parallel()
			value, err := decode([]byte(tt.value))
			if err != nil {
				t.Fatal(err)
			}
			invalid := parseSchema(t, tt.schema).VisitJSON(value, openapi3.MultiErrors(), openapi3.VisitAsRequest())
			if invalid == nil {
				t.Fatal("the schema accepts the value")
			}
			if got := issuesOf(t, withIssues(code.InvalidZone, invalid)); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// annotations are the keywords of schemas that no value can break, and those
// whose errors are those of the schemas in them.
var annotations = []string{"description", "example", "title", "items", "additionalProperties", "allOf", "readOnly", "writeOnly"}

// TestEveryKeywordOfTheSpecIsTranslated walks the schemas that requests are
// validated against: a keyword without a message would be reported as "is invalid".
func TestEveryKeywordOfTheSpecIsTranslated(t *testing.T) {
	t.Parallel()
	spec, err := openapi3.NewLoader().LoadFromData(gen.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	operations, err := NewOperations(spec)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var walk func(where string, schema *openapi3.Schema)
	walk = func(where string, schema *openapi3.Schema) {
		text, err := json.Marshal(schema)
		if err != nil {
			t.Fatal(err)
		}
		var keywords map[string]any
		if err := json.Unmarshal(text, &keywords); err != nil {
			t.Fatal(err)
		}
		for keyword := range keywords {
			seen[keyword] = true
			if strings.HasPrefix(keyword, "x-") || slices.Contains(annotations, keyword) {
				continue
			}
			if messages[keyword] == nil {
				t.Errorf("%s: %s has no message", where, keyword)
			}
		}
		for name, property := range schema.Properties {
			walk(where+"."+name, property.Value)
		}
		for _, part := range schema.AllOf {
			walk(where, part.Value)
		}
		if schema.Items != nil {
			walk(where+"[]", schema.Items.Value)
		}
		if schema.AdditionalProperties.Schema != nil {
			walk(where+".*", schema.AdditionalProperties.Schema.Value)
		}
	}
	for _, o := range operations.byRoute {
		for _, p := range slices.Concat(o.pathParams, o.queryParams) {
			walk(o.ID+" "+p.Value.Name, p.Value.Schema.Value)
		}
		if o.body != nil {
			walk(o.ID, o.body.schema)
		}
	}
	for _, keyword := range []string{"type", "required", "pattern", "minimum", "allOf", "minItems"} {
		if !seen[keyword] {
			t.Errorf("no schema has %s: the walk misses some", keyword)
		}
	}
}

func TestParameterErrorsReadAfterTheParametersName(t *testing.T) {
	t.Parallel()
	spec, err := openapi3.NewLoader().LoadFromData(gen.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	operations, err := NewOperations(spec)
	if err != nil {
		t.Fatal(err)
	}
	const pattern = `must match the pattern ^[A-Za-z0-9_.:-]{1,128}$`
	for _, tt := range []struct{ id, query, want string }{
		{"%20", "", "zoneId: " + pattern},
		{"a%00b", "", "zoneId: " + pattern},
		{"%zz", "", "zoneId: must use valid percent-encoding"},
		{"x", "limit=many", "limit: must be an integer"},
		{"x", "limit=1.5", "limit: must be an integer"},
		{"x", "limit=99999999999999999999", "limit: must be at most 500"},
		{"x", "limit=0", "limit: must be at least 1"},
		{"x", "limit=501", "limit: must be at most 500"},
		{"x", "limit=", "limit: must not be empty"},
		{"x", "limit=1&limit=2", "limit: must not be repeated"},
		{"x", "cursor=", "cursor: must not be empty"},
		{"x", "cursor=" + strings.Repeat("x", 513), "cursor: must be at most 512 characters"},
		{"x", "cursor=%ff", "cursor: must be UTF-8"},
		{"x", "cursor=a%00", "cursor: must not contain a NUL character"},
		{"x", "cursor=%zz", "must use valid percent-encoding"},
	} {
		t.Run(tt.id+" "+tt.query, func(t *testing.T) {
			t.Parallel()
			request := httptest.NewRequest("GET", "/v1/zones/x/applications?"+tt.query, nil)
			c := echo.New().NewContext(request.WithContext(WithRequestInfo(request.Context(), &RequestInfo{})), httptest.NewRecorder())
			c.SetParamNames("zoneId")
			c.SetParamValues(tt.id)
			err := operations.byRoute["GET /v1/zones/:zoneId/applications"].checkParameters(c)
			if got := issuesOf(t, err); fmt.Sprint(got) != "["+tt.want+"]" {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestBodyErrorsReadAfterTheFieldsName(t *testing.T) {
	t.Parallel()
	spec, err := openapi3.NewLoader().LoadFromData(gen.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	operations, err := NewOperations(spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, body string
		code       code.Code
		want       string
	}{
		{"empty", "", code.InvalidJSON, "must not be empty"},
		{"white space", " ", code.InvalidJSON, "must not be empty"},
		{"not UTF-8", "\"\xff\"", code.InvalidJSON, "must be UTF-8"},
		{"truncated", `{"name":`, code.InvalidJSON, "is truncated"},
		{"syntax", `{"name":x}`, code.InvalidJSON, "invalid character 'x' looking for beginning of value at byte 9"},
		{"a lone surrogate", `{"x":"\\ud83d \ud83d\ude00\n\u00e9","name":"\ud83d\n\ude00"}`, code.InvalidJSON, "must not contain a lone surrogate, such as the escape at byte 45"},
		{"two values", `{} {}`, code.InvalidJSON, "must be a single JSON value"},
		{"too deep", strings.Repeat("[", 66) + strings.Repeat("]", 66), code.InvalidJSON, "must not be nested deeper than 64 levels"},
		{"NUL", `{"name":"a\u0000b"}`, code.InvalidZone, "name: must not contain a NUL character"},
		{"NUL in a name", `{"a\u0000b":1}`, code.InvalidZone, "must not contain a field name with a NUL character"},
		{"trimmed", `{"name":" "}`, code.InvalidZone, "name: must not be empty"},
		{"an invalid name and another field", `{"name":"\u202e","x":1}`, code.InvalidZone, "name: must not contain bidirectional controls, such as U+202E at position 1 x: unknown field"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			request := httptest.NewRequest("POST", "/v1/zones", strings.NewReader(tt.body))
			request.Header.Set("Content-Type", "application/json")
			_, _, _, err := operations.byRoute["POST /v1/zones"].readBody(httptest.NewRecorder(), request, 1<<20)
			if got := issuesOf(t, err); fmt.Sprint(got) != "["+tt.want+"]" || err.(*code.Error).Code != tt.code {
				t.Errorf("got %v %q, want %q", err, got, tt.want)
			}
		})
	}
	t.Run("no body", func(t *testing.T) {
		t.Parallel()
		_, _, _, err := operations.byRoute["POST /v1/zones"].readBody(httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/zones", nil), 1)
		if got := issuesOf(t, err); fmt.Sprint(got) != "[is required]" {
			t.Errorf("got %q", got)
		}
	})
}
