package middleware

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
)

// An Operation is what the spec says of one, made ready for each request.
type Operation struct {
	ID      string
	Method  string
	Path    string // as Echo routes it
	success int    // the status of its answer when all goes well

	isPublic, global, write, inZone bool

	// The entity that a request is about: the last path parameter, and the
	// literal segment before it; "" if the path has no parameter.
	entityKind, entityParam string

	route         *routers.Route
	path, query   openapi3.Parameters
	body          *openapi3.Schema // nil: takes none
	invalidBody   code.Code        // for a body that breaks the schema
	trimmedFields []string         // members that are trimmed before they are checked
}

// Operations are the operations of the spec, by method and path.
type Operations struct{ byRoute map[string]*Operation }

// find is the operation that Echo routed a request to. Where Echo means well, the
// request is misrouted: it lets a last parameter swallow slashes, and answers
// OPTIONS by itself.
func (o *Operations) find(c echo.Context) (_ *Operation, misrouted error) {
	r := c.Request()
	method := r.Method
	switch method {
	case http.MethodHead:
		method = http.MethodGet
	case http.MethodOptions:
		if allow, known := c.Get(echo.ContextKeyHeaderAllow).(string); known {
			c.Response().Header().Set("Allow", strings.TrimPrefix(allow, "OPTIONS, "))
			return nil, echo.ErrMethodNotAllowed
		}
	}
	found := o.byRoute[method+" "+c.Path()]
	if found != nil && strings.Count(found.Path, "/") != strings.Count(r.URL.RawPath, "/") {
		return nil, echo.ErrNotFound
	}
	return found, nil
}

// entity returns the kind and the id of the entity that a request is about; "" if
// it is about none, or if the path parameter is not an id.
func (o *Operation) entity(c echo.Context) (kind, id string) {
	if o == nil || o.entityParam == "" {
		return "", ""
	}
	if id, err := pathParam(c, o.entityParam); err == nil && IsID(id) {
		return o.entityKind, id
	}
	return "", ""
}

func (o *Operation) public() bool { return o != nil && o.isPublic }

var pathParameter = regexp.MustCompile(`\{([^}]+)\}`)

// NewOperations reads the spec. It refuses an operation that does not say who
// may call it.
func NewOperations(spec *openapi3.T) (*Operations, error) {
	all := &Operations{byRoute: map[string]*Operation{}}
	for path, item := range spec.Paths.Map() {
		for method, op := range item.Operations() {
			o, err := newOperation(spec, path, item, method, op)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", op.OperationID, err)
			}
			all.byRoute[o.Method+" "+o.Path] = o
		}
	}
	return all, nil
}

func newOperation(spec *openapi3.T, path string, item *openapi3.PathItem, method string, op *openapi3.Operation) (*Operation, error) {
	access := stringList(op.Extensions["x-access"])
	o := &Operation{
		ID: op.OperationID, Method: method, Path: pathParameter.ReplaceAllString(path, ":$1"),
		isPublic: slices.Contains(access, "public"),
		global:   slices.Contains(access, "global"),
		write:    slices.Contains(access, "write"),
		inZone:   strings.Contains(path, "{zoneId}"),
		route:    &routers.Route{Spec: spec, Path: path, PathItem: item, Method: method, Operation: op},
	}
	if !o.isPublic && !o.write && !slices.Contains(access, "read") {
		return nil, fmt.Errorf("x-access %q does not say who may call it", access)
	}
	if strings.HasPrefix(path, "/v1/zones/{") && !o.inZone {
		return nil, fmt.Errorf("the zone in %s must be called zoneId, or nobody checks it", path)
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		if name := pathParameter.FindStringSubmatch(segment); name != nil {
			o.entityKind, o.entityParam = segments[i-1], name[1]
		}
	}
	for status := range op.Responses.Map() {
		if n, err := strconv.Atoi(status); err == nil && n < 300 {
			o.success = n
		}
	}
	for _, p := range slices.Concat(item.Parameters, op.Parameters) {
		switch p.Value.In {
		case openapi3.ParameterInPath:
			o.path = append(o.path, p)
		case openapi3.ParameterInQuery:
			o.query = append(o.query, p)
		}
	}
	if op.RequestBody == nil {
		return o, nil
	}
	o.body = op.RequestBody.Value.Content.Get("application/json").Schema.Value
	for member, schema := range o.body.Properties {
		if trim, _ := schema.Value.Extensions["x-trim"].(bool); trim {
			o.trimmedFields = append(o.trimmedFields, member)
		}
		if _, elsewhere := schema.Value.Extensions["x-checked-by"]; elsewhere {
			schema.Value.AnyOf = nil // which of them it must be is known, and said, by whoever checks it
		}
	}
	for _, c := range stringList(op.Extensions["x-problems"]) {
		if code.Table[code.Code(c)].In == "body" {
			o.invalidBody = code.Code(c)
		}
	}
	if o.invalidBody == "" {
		return nil, fmt.Errorf("it takes a body, but x-problems has no code for one that is wrong")
	}
	return o, nil
}

func stringList(v any) []string {
	list, _ := v.([]any)
	var all []string
	for _, one := range list {
		if s, ok := one.(string); ok {
			all = append(all, s)
		}
	}
	return all
}
