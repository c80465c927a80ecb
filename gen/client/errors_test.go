package client_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
)

func TestErrorResponseIsAnError(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{{status: 400, header: map[string]string{"X-Request-Id": "header"}, body: `{
		"error": "invalid_resource", "error_description": "The resource is invalid.", "requestId": "r1",
		"details": {"issues": [{"path": ["operations", "0", "path"], "message": "must not be empty"}, {"path": ["name"], "message": "must be a string"}]},
		"detail": "more"}`}}}
	_, err := newClient(t, f).CreateResource(t.Context(), "z1", client.NewResource{})
	e, ok := errors.AsType[*client.Error](fmt.Errorf("wrapped: %w", err))
	if !ok {
		t.Fatalf("got %v", err)
	}
	want := &client.Error{
		Operation: "createResource", Status: 400, Code: client.CodeInvalidResource, Description: "The resource is invalid.", RequestID: "r1",
		Fields: []client.FieldError{{Path: "operations.0.path", Message: "must not be empty"}, {Path: "name", Message: "must be a string"}},
		Extra:  map[string]any{"detail": "more"},
	}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("got %+v, want %+v", e, want)
	}
	const text = "createResource: invalid_resource (400): The resource is invalid. operations.0.path: must not be empty. name: must be a string. detail: more. (request r1)"
	if e.Error() != text {
		t.Errorf("got  %s\nwant %s", e, text)
	}
	if client.Code(err) != client.CodeInvalidResource || client.Code(io.EOF) != "" || client.Code(nil) != "" {
		t.Errorf("codes %q, %q, %q", client.Code(err), client.Code(io.EOF), client.Code(nil))
	}
}

func TestErrorHasExtraFieldsAndRetryAfter(t *testing.T) {
	t.Parallel()
	_, _, err := get(t, reply{status: 409, body: `{"error":"dcr_shutdown_required","live_dcr_applications":2}`, header: map[string]string{"Retry-After": "7"}})
	e, _ := errors.AsType[*client.Error](err)
	if e == nil || e.Extra["live_dcr_applications"] != 2.0 || e.RetryAfter != 7*time.Second {
		t.Errorf("got %+v", e)
	}
	date := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	_, _, err = get(t, reply{status: 404, body: `{"error":"zone_not_found"}`, header: map[string]string{"Retry-After": date}})
	if e, _ := errors.AsType[*client.Error](err); e == nil || e.RetryAfter < 59*time.Minute || e.RetryAfter > time.Hour {
		t.Errorf("got %+v", e)
	}
}

func TestErrorInTheFormatOfRFC9457(t *testing.T) {
	t.Parallel()
	_, _, err := get(t, reply{status: 404, header: map[string]string{"Content-Type": "application/problem+json"},
		body: `{"type":"x","title":"x","status":404,"error":"zone_not_found","error_description":"Zone not found.","requestId":"r1"}`})
	if e, _ := errors.AsType[*client.Error](err); e == nil || e.Code != client.CodeZoneNotFound || e.Extra != nil {
		t.Errorf("got %+v", e)
	}
}

func TestErrorWithoutACodeKeepsTheFieldsOfTheResponse(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{{status: 503, body: `{"ok":false,"draining":true}`}}}
	_, err := newClient(t, f, client.WithoutRetry()).GetReadiness(t.Context())
	if e, _ := errors.AsType[*client.Error](err); e == nil || e.Status != 503 || e.Code != "" || e.Extra["draining"] != true {
		t.Errorf("got %+v", e)
	}
}

func TestForeignResponseIsAnErrorWithStatusAndContentType(t *testing.T) {
	t.Parallel()
	html := map[string]string{"Content-Type": "text/html; charset=utf-8", "ETag": `"html"`}
	for name, r := range map[string]reply{
		"login page":           {status: 200, header: html, body: "<html>Log in</html>"},
		"error page":           {status: 404, header: html, body: "<html>Not found</html>"},
		"no content type":      {status: 200, header: map[string]string{"Content-Type": ""}, body: zoneJSON},
		"malformed type":       {status: 200, header: map[string]string{"Content-Type": "application json"}, body: zoneJSON},
		"another charset":      {status: 200, header: map[string]string{"Content-Type": "application/json; charset=iso-8859-1"}, body: zoneJSON},
		"another success":      {status: 202, body: zoneJSON},
		"no content":           {status: 204},
		"error code of others": {status: 403, body: `{"error":"Access denied by WAF"}`},
		"no object":            {status: 403, body: `"denied"`},
		"malformed error":      {status: 403, body: `{"error":`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etag := "old"
			f := &fake{replies: []reply{r}}
			zone, err := newClient(t, f).GetZone(t.Context(), "z1", client.ReadETag(&etag))
			e, ok := errors.AsType[*client.Error](err)
			if !ok || e.Code != "" || e.Status != r.status || zone != (client.Zone{}) || etag != "" {
				t.Fatalf("got %+v, %v", zone, err)
			}
			contentType := r.header["Content-Type"]
			if r.header == nil {
				contentType = "application/json"
			}
			if text := e.Error(); !strings.Contains(text, fmt.Sprint(r.status)) || !strings.Contains(text, fmt.Sprintf("%q", contentType)) {
				t.Errorf("%s does not name the status and the content type", text)
			}
		})
	}
	f := &fake{replies: []reply{{status: 200, header: html, body: "<html>"}}}
	if err := newClient(t, f).DeleteZone(t.Context(), "z1"); err == nil {
		t.Error("an HTML page passed for a deletion")
	}
	if text, err := newClient(t, f).GetMetrics(t.Context()); err == nil || text != "" {
		t.Errorf("an HTML page passed for metrics: %q, %v", text, err)
	}
}

func TestErrorSaysThatTheBaseURLHasNoVersion(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]bool{"https://caracal.example.com/v1": true, "https://caracal.example.com/": false} {
		for _, r := range []reply{
			{status: 404, body: `{"error":"not_found","error_description":"The requested path does not exist."}`},
			{status: 404, header: map[string]string{"Content-Type": "text/html"}, body: "<html>Not found</html>"},
		} {
			c, err := client.New(base, token, client.WithTransport(&fake{replies: []reply{r}}))
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.GetZone(t.Context(), "z1")
			if got := strings.Contains(err.Error(), "(the client adds /v1 to the base URL)"); got != want {
				t.Errorf("%s: %v", base, err)
			}
		}
	}
}

func TestInvalidJSONIsAnError(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"empty": "", "truncated": `{"id":"z1"`, "null": "null", "another type": `["z1"]`, "no fields": "{}", "foreign fields": `{"status":"ok"}`,
		"wrong type of a field": `{"id":1}`, "more than one value": zoneJSON + zoneJSON,
	} {
		zone, _, err := get(t, reply{status: 200, body: body})
		if err == nil || !strings.Contains(err.Error(), "getZone: unexpected response (200): the ") || zone != (client.Zone{}) {
			t.Errorf("%s: %+v, %v", name, zone, err)
		}
	}
	f := &fake{replies: []reply{{status: 200, body: "null"}}}
	if page, err := newClient(t, f).ListZones(t.Context()); err == nil {
		t.Errorf("null passed for a list: %+v", page)
	}
}

func TestResponseSizeIsLimited(t *testing.T) {
	t.Parallel()
	zone, f, err := get(t, reply{status: 200, body: strings.Repeat(" ", 64<<20) + zoneJSON})
	if err == nil || !strings.Contains(err.Error(), "64 MiB") || zone != (client.Zone{}) || len(f.requests) != 1 {
		t.Errorf("%+v, %v, %d requests", zone, err, len(f.requests))
	}
}
