package middleware

import (
	"cmp"
	"fmt"
	"maps"
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

// An Operation is an operation of the spec, prepared for the middleware.
type Operation struct {
	ID      string
	Method  string
	Path    string // in Echo's syntax
	success int    // the status of its success response

	isPublic, global, write, approve, inZone bool
	control                                  bool // takes a token of a Control key
	envelope                                 bool // its error responses are envelopes (x-envelope)
	noHead                                   bool // does not support HEAD (x-head: false)
	hasPages                                 bool // has HTML pages (x-html)
	streams                                  bool // can send a stream of server-sent events
	hasDocument                              bool // returns a document that is also written as YAML

	TakesKey bool // has a header parameter Idempotency-Key

	// The entity that a request is about: the last path parameter, and the kind
	// that the segments before it name; "" if the path has no parameter.
	entityKind, entityParam string

	route        *routers.Route
	pathParams   openapi3.Parameters
	queryParams  openapi3.Parameters
	invalidQuery code.Code // the error code of invalid query parameters
	takesIfMatch bool
	exports      bool      // has a query parameter format
	body         *Schema   // nil: the operation takes no body
	mediaTypes   []string  // of the body
	challenge    string    // WWW-Authenticate of a response with status 401; "": that of admin tokens
	invalidBody  code.Code // the error code of a body that does not match the schema
	decodesBody  bool      // the operation itself validates the body, and decodes it
	ignoresBody  bool      // a body need not be sent, but must be JSON (x-ignored-body)
	readOnly     []string  // fields that an update accepts with their present value only (readOnly)
	ignored      []string  // read-only fields that an update accepts with any value (x-ignored)
}

// Operations holds the operations of the spec by method and path, and by ID.
type Operations struct {
	byRoute, byID map[string]*Operation
	state         *StateSchemas
}

// Operation returns the operation with an ID, or nil.
func (o *Operations) Operation(id string) *Operation { return o.byID[id] }

// Envelope reports whether the error responses of the operation are envelopes.
func (o *Operation) Envelope() bool { return o != nil && o.envelope }

// find returns the operation that Echo routed a request to, or nil if there is none.
// It returns an error if Echo routed a request that matches no operation: Echo
// allows slashes in the last path parameter, and handles OPTIONS itself.
func (o *Operations) find(c echo.Context) (_ *Operation, routeError error) {
	r := c.Request()
	method := r.Method
	switch method {
	case http.MethodHead:
		method = http.MethodGet
		if op := o.byRoute[method+" "+c.Path()]; op != nil && op.noHead {
			c.Response().Header().Set("Allow", http.MethodGet)
			return op, echo.ErrMethodNotAllowed
		}
	case http.MethodOptions:
		if allow, ok := c.Get(echo.ContextKeyHeaderAllow).(string); ok {
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

// entity returns the kind and the id of the entity that a request is about, or "" if
// there is none or the path parameter is not an id.
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

// NewOperations reads the operations of the spec. It returns an error if one has no
// access rule, if access to its zone would not be checked, or if it takes a body but
// has no error code for an invalid one.
func NewOperations(spec *openapi3.T) (*Operations, error) {
	all := &Operations{byRoute: map[string]*Operation{}, byID: map[string]*Operation{}, state: newStateSchemas(spec)}
	for path, item := range spec.Paths.Map() {
		for method, op := range item.Operations() {
			o, err := newOperation(spec, path, item, method, op)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", op.OperationID, err)
			}
			all.byRoute[o.Method+" "+o.Path], all.byID[o.ID] = o, o
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
		approve:  slices.Contains(access, "approve"),
		inZone:   strings.Contains(path, "{zoneId}"),
		envelope: op.Extensions["x-envelope"] == true,
		noHead:   op.Extensions["x-head"] == false,
		hasPages: op.Extensions["x-html"] == true,
		route:    &routers.Route{Spec: spec, Path: path, PathItem: item, Method: method, Operation: op},
	}
	if !o.isPublic && !o.write && !o.approve && !slices.Contains(access, "read") {
		return nil, fmt.Errorf("x-access %q has none of public, read, write and approve", access)
	}
	if strings.HasPrefix(path, "/v1/zones/{") && !o.inZone {
		return nil, fmt.Errorf("the zone's parameter in %s must be named zoneId, or access to the zone is not checked", path)
	}
	for _, required := range *cmp.Or(op.Security, &spec.Security) {
		if _, control := required["controlBearer"]; control {
			o.control = true
		}
		if _, basic := required["clientBasic"]; basic {
			o.challenge = `Basic realm="caracal", charset="UTF-8"` // RFC 7617
		}
	}
	o.mediaTypes = []string{jsonType}
	o.ignoresBody, _ = op.Extensions["x-ignored-body"].(bool)
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		if name := pathParameter.FindStringSubmatch(segment); name != nil && name[1] != "requestId" { // of a request, which is no object
			o.entityKind, o.entityParam = entityKind(segments[:i]), name[1]
		}
	}
	for status, response := range op.Responses.Map() {
		if n, err := strconv.Atoi(status); err == nil && n < 300 {
			o.success = n
			o.streams = response.Value.Content["text/event-stream"] != nil
			o.hasDocument = response.Value.Content[yamlType] != nil
		}
	}
	for _, p := range slices.Concat(item.Parameters, op.Parameters) {
		switch p.Value.In {
		case openapi3.ParameterInPath:
			o.pathParams = append(o.pathParams, p)
		case openapi3.ParameterInQuery:
			o.queryParams = append(o.queryParams, p)
			o.exports = o.exports || p.Value.Name == "format"
		case openapi3.ParameterInHeader:
			o.takesIfMatch = o.takesIfMatch || p.Value.Name == "If-Match"
			o.TakesKey = o.TakesKey || p.Value.Name == idempotencyKeyHeader
		}
	}
	o.invalidQuery = code.InvalidQuery
	for _, c := range stringList(op.Extensions["x-problems"]) {
		switch code.Table[code.Code(c)].In {
		case "body":
			o.invalidBody = code.Code(c)
		case "query":
			o.invalidQuery = code.Code(c)
		}
	}
	if op.RequestBody == nil {
		return o, nil
	}
	o.mediaTypes = slices.Sorted(maps.Keys(op.RequestBody.Value.Content)) // of the same schema
	body := op.RequestBody.Value.Content[o.mediaTypes[0]].Schema
	if body.Value.Discriminator != nil {
		*body = openapi3.SchemaRef{Value: withoutAlternatives(body.Value)}
	}
	if o.decodesBody = body.Value.Extensions["x-checked-by"] == "state"; o.decodesBody {
		*body = openapi3.SchemaRef{Value: anyValue}
	}
	o.body = newSchema(body.Value)
	for field, schema := range body.Value.Properties {
		if ignored, _ := schema.Value.Extensions["x-ignored"].(bool); ignored {
			o.ignored = append(o.ignored, field)
		} else if schema.Value.ReadOnly {
			o.readOnly = append(o.readOnly, field)
		}
	}
	slices.Sort(o.readOnly) // the order of the issues in an error
	if o.invalidBody == "" {
		return nil, fmt.Errorf("the operation takes a body, but x-problems has no code for an invalid one")
	}
	return o, nil
}

// entityKind returns the kind of the objects in a collection: its name or, if it
// belongs to an object other than a zone, both names, such as policy-versions for
// policies/{id}/versions.
func entityKind(collection []string) string {
	last := len(collection) - 1
	if last < 2 || !pathParameter.MatchString(collection[last-1]) || collection[last-1] == "{zoneId}" {
		return collection[last]
	}
	parent := strings.TrimSuffix(collection[last-2], "s")
	if stem, found := strings.CutSuffix(parent, "ie"); found {
		parent = stem + "y"
	}
	return parent + "-" + collection[last]
}

// stringList returns the strings in an extension of the spec whose value is a list.
func stringList(v any) []string {
	list, _ := v.([]any)
	var texts []string
	for _, item := range list {
		if s, ok := item.(string); ok {
			texts = append(texts, s)
		}
	}
	return texts
}
