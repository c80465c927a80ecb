package server_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
)

// TestClientMethods checks that every operation has a method, that every list
// has an iterator too, and that every method belongs to an operation.
func TestClientMethods(t *testing.T) {
	t.Parallel()
	methods := map[string]reflect.Type{}
	for m := range reflect.TypeFor[*client.Client]().Methods() {
		if m.Type.NumIn() > 1 && m.Type.In(1) == reflect.TypeFor[context.Context]() {
			methods[m.Name] = m.Type
		}
	}
	for _, op := range servertest.Operations() {
		name := strings.ToUpper(op.OperationID[:1]) + op.OperationID[1:]
		method := methods[name]
		if method == nil {
			t.Errorf("operation %s has no method", op.OperationID)
			continue
		}
		delete(methods, name)
		arguments := 3 + strings.Count(op.Path, "{") // receiver, context, path parameters, options
		if op.RequestBody != nil {
			arguments++
		}
		isList := op.Parameters.GetByInAndName("query", "cursor") != nil // its other parameters are options
		if !isList && slices.ContainsFunc(op.Parameters, func(p *openapi3.ParameterRef) bool {
			return p.Value.In == "query"
		}) {
			arguments++ // a struct of the query parameters
		}
		results := 2 // value, error
		if op.Responses.Value("204") != nil {
			results = 1
		}
		if method.NumIn() != arguments || method.NumOut() != results {
			t.Errorf("%s is %v, want %d arguments and %d results", name, method, arguments, results)
		}
		if isList {
			iterator := strings.TrimPrefix(name, "List")
			if methods[iterator] == nil {
				t.Errorf("the list %s has no iterator", op.OperationID)
			}
			delete(methods, iterator)
			if op.Parameters.GetByInAndName("query", "format") != nil {
				if methods["Export"+iterator] == nil {
					t.Errorf("the list %s has no export", op.OperationID)
				}
				delete(methods, "Export"+iterator)
			}
			if op.Responses.Value("200").Value.Content["text/event-stream"] != nil {
				if methods["Follow"+iterator] == nil {
					t.Errorf("the list %s cannot be followed", op.OperationID)
				}
				delete(methods, "Follow"+iterator)
			}
		}
	}
	if len(methods) > 0 {
		t.Errorf("these methods belong to no operation: %q", slices.Sorted(maps.Keys(methods)))
	}
}

// TestClientErrorsOfTheService checks that the client reads what the service
// sends with an error.
func TestClientErrorsOfTheService(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	c := newClient(t, a, a.Transport())
	_, err := c.CreateZone(t.Context(), client.NewZone{Name: "", Slug: new("Not a slug")}, client.RequestID("r1"))
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Operation != "createZone" || e.Status != http.StatusBadRequest || e.Code != client.CodeInvalidZone || e.RequestID != "r1" {
		t.Fatalf("got %v", err)
	}
	var paths []string
	for _, field := range e.Fields {
		paths = append(paths, field.Path)
	}
	if slices.Sort(paths); !slices.Equal(paths, []string{"name", "slug"}) || e.Description == "" {
		t.Errorf("got %+v", e)
	}
	zone := a.Zone(func(z *client.NewZone) { z.DCREnabled = new(true) })
	a.DB.DCRApplications(zone.ID, 3)
	_, err = c.UpdateZone(t.Context(), zone.ID, client.ZonePatch{DCREnabled: new(false)})
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.CodeDCRShutdownRequired || e.Extra["live_dcr_applications"] != 3.0 {
		t.Errorf("got %v", err)
	}
}
