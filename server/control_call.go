package server

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/control"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/server/middleware"
)

// An operationTable has the handlers of all operations, to call them within the process.
// The parameters of a call are values; no URL is built from them.
type operationTable struct {
	echo       *echo.Echo
	operations *middleware.Operations
	validate   echo.MiddlewareFunc
	handlers   map[string]echo.HandlerFunc // by method and path
}

func newOperationTable(s api.StrictServerInterface, operations *middleware.Operations, validate echo.MiddlewareFunc) *operationTable {
	t := &operationTable{echo.New(), operations, validate, map[string]echo.HandlerFunc{}}
	api.RegisterHandlers(recordRoutes{t.echo, t.handlers}, api.NewStrictHandler(s, nil))
	return t
}

// recordRoutes records the handler of each route instead of registering it.
type recordRoutes struct {
	*echo.Echo
	handlers map[string]echo.HandlerFunc
}

func (r recordRoutes) record(method, path string, h echo.HandlerFunc) *echo.Route {
	r.handlers[method+" "+path] = h
	return nil
}

func (r recordRoutes) GET(path string, h echo.HandlerFunc, _ ...echo.MiddlewareFunc) *echo.Route {
	return r.record(http.MethodGet, path, h)
}

func (r recordRoutes) POST(path string, h echo.HandlerFunc, _ ...echo.MiddlewareFunc) *echo.Route {
	return r.record(http.MethodPost, path, h)
}

func (r recordRoutes) PUT(path string, h echo.HandlerFunc, _ ...echo.MiddlewareFunc) *echo.Route {
	return r.record(http.MethodPut, path, h)
}

func (r recordRoutes) PATCH(path string, h echo.HandlerFunc, _ ...echo.MiddlewareFunc) *echo.Route {
	return r.record(http.MethodPatch, path, h)
}

func (r recordRoutes) DELETE(path string, h echo.HandlerFunc, _ ...echo.MiddlewareFunc) *echo.Route {
	return r.record(http.MethodDelete, path, h)
}

// call calls an operation in the zone of a Control key, which is its actor. It validates
// the parameters and the body against the spec, and returns the error of the operation.
func (t *operationTable) call(ctx context.Context, caller *middleware.ControlCaller, call control.Call) (*middleware.Buffer, error) {
	op := t.operations.Operation(call.Operation)
	outer := middleware.RequestInfoFrom(ctx)
	inner := &middleware.RequestInfo{
		RequestID: outer.RequestID, Operation: op, Control: caller, Method: outer.Method, Path: outer.Path,
		PublicURL: outer.PublicURL, Address: outer.Address, Trace: outer.Trace,
	}
	if op.TakesKey || op.Method == http.MethodDelete { // those have one transaction
		inner.Idempotent = outer.Idempotent
	}
	ctx = middleware.WithRequestInfo(ctx, inner)
	r := &http.Request{Method: op.Method, URL: &url.URL{RawQuery: call.Query.Encode()}, Header: http.Header{}, Body: http.NoBody}
	if call.Body != nil {
		text, err := jsonresponse.Marshal(call.Body)
		if err != nil {
			return nil, err
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		r.Header.Set("Content-Type", "application/json")
	}
	resp := middleware.NewBuffer()
	c := t.echo.NewContext(r.WithContext(ctx), resp)
	c.SetPath(op.Path)
	var names, values []string
	for segment := range strings.SplitSeq(op.Path, "/") {
		if name, isParameter := strings.CutPrefix(segment, ":"); isParameter {
			value := call.Path[name]
			if name == "zoneId" {
				value = caller.ZoneID
			}
			names, values = append(names, name), append(values, url.PathEscape(value)) // handlers decode it
		}
	}
	c.SetParamNames(names...)
	c.SetParamValues(values...)
	return resp, t.validate(t.handlers[op.Method+" "+op.Path])(c)
}

// A controlResult is the result of a command.
type controlResult struct {
	body       json.RawMessage // nil: no content
	nextCursor *string         // of a list
	changes    bool            // the command can change something
	partial    bool            // some objects of a document could not be changed
	objects    []string        // IDs of the changed objects
}

// resultOf returns a response as the result of a command: a list without its envelope.
func resultOf(r *middleware.Buffer) (controlResult, error) {
	result := controlResult{body: bytes.TrimSpace(r.Body)}
	if len(result.body) == 0 {
		return controlResult{}, nil
	}
	if link := r.Header().Get("Link"); link != "" {
		result.nextCursor = cursorOf(link)
	}
	if result.body[0] != '{' {
		return result, nil
	}
	var object struct {
		ID         string          `json:"id"`
		Rows       json.RawMessage `json:"rows"`
		NextCursor *string         `json:"next_cursor"`
		Outcomes   []stateOutcome  `json:"outcomes"`
	}
	if err := json.Unmarshal(result.body, &object); err != nil {
		return result, err
	}
	if object.Rows != nil {
		result.body, result.nextCursor = object.Rows, object.NextCursor
	}
	if object.ID != "" {
		result.objects = []string{object.ID}
	}
	for _, o := range object.Outcomes {
		if o.Status == api.StateOutcomeStatusApplied {
			result.objects = append(result.objects, o.ID)
		}
		result.partial = result.partial || o.Status == api.StateOutcomeStatusFailed
	}
	return result, nil
}

// A stateOutcome is the outcome of an object in a document.
type stateOutcome struct {
	ID     string                 `json:"id"`
	Status api.StateOutcomeStatus `json:"status"`
}

// cursorOf returns the cursor of the next page in a Link header.
func cursorOf(link string) *string {
	target, _, found := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	next, err := url.Parse(target)
	if !found || err != nil {
		return nil
	}
	cursor := next.Query().Get("cursor")
	return &cursor
}

// controlError maps the error of an operation to that of the command.
func controlError(err error) error {
	var codeErr *code.Error
	var errCode code.Code
	if !errors.As(err, &errCode) || errCode == code.ServiceUnavailable || errCode == code.IdempotencyKeyInUse {
		return err
	}
	entry := code.Table[errCode]
	reason := entry.Sentence
	mapped := code.Error{Cause: err}
	if errors.As(err, &codeErr) {
		reason = cmp.Or(codeErr.Sentence, reason)
		if detail, _ := codeErr.Fields["detail"].(string); detail != "" {
			reason = detail
		}
		mapped.Issues = codeErr.Issues
	}
	switch entry.Status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		mapped.Code = code.ControlInvalid
	case http.StatusForbidden:
		mapped.Code = code.ControlDenied
	case http.StatusNotFound:
		mapped.Code = code.ControlNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		mapped.Code = code.ControlConflict
	default:
		mapped.Code = code.ControlUpstream
	}
	mapped.Sentence = string(errCode) + ": " + reason
	return &mapped
}
