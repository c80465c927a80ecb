package client_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
)

func TestInvalidOptionOfACallSendsNothing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		opt  client.CallOption
		want string
	}{
		"nil":                      {nil, "an option is nil"},
		"empty ETag":               {client.IfMatch(""), "IfMatch"},
		"ETag with a line":         {client.IfMatch("\"1\"\r\nX: y"), "If-Match"},
		"nil pointer":              {client.ReadETag(nil), "ReadETag"},
		"no pointer for JSON":      {client.ResponseJSON(nil), "ResponseJSON"},
		"body of a read":           {client.RequestJSON([]byte("{}")), "RequestJSON"},
		"empty request ID":         {client.RequestID(""), "RequestID"},
		"request ID with a space":  {client.RequestID("a b"), "RequestID"},
		"long request ID":          {client.RequestID(strings.Repeat("a", 129)), "RequestID"},
		"no header name":           {client.Header("", "x"), "header name"},
		"header name with a space": {client.Header("X Y", "x"), "header name"},
		"header name with a line":  {client.Header("X\r\nY", "x"), "header name"},
		"header value with a line": {client.Header("Authorization", "Bearer hunter2\n"), "Authorization"},
		"header value with NUL":    {client.Header("X-Y", "hunter2\x00"), "X-Y"},
		"host":                     {client.Header("host", "other.example.com"), "Host"},
		"content length":           {client.Header("Content-Length", "5"), "Content-Length"},
		"transfer encoding":        {client.Header("transfer-encoding", "chunked"), "Transfer-Encoding"},
		"connection":               {client.Header("Connection", "close"), "Connection"},
		"upgrade":                  {client.Header("Upgrade", "h2c"), "Upgrade"},
	} {
		f := &fake{replies: []reply{okZone}}
		_, err := newClient(t, f).GetZone(t.Context(), "z1", tt.opt, client.Header("X-Y", "\n"))
		if err == nil || !strings.HasPrefix(err.Error(), "getZone: ") || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") || len(f.requests) != 0 {
			t.Errorf("%s: %v, %d requests", name, err, len(f.requests))
		}
		page, err := newClient(t, f).ListZones(t.Context(), client.Limit(1), tt.opt)
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(f.requests) != 0 || page.Items != nil {
			t.Errorf("%s of a list: %v, %d requests", name, err, len(f.requests))
		}
	}
	f := &fake{replies: []reply{okZone}}
	if _, err := newClient(t, f).ListZones(t.Context(), nil); err == nil || len(f.requests) != 0 {
		t.Errorf("a nil option of a list: %v", err)
	}
}

// RequestJSON and ResponseJSON bypass the types of the package: fields that it does not
// know are sent and received.
func TestJSONTextsOfACall(t *testing.T) {
	t.Parallel()
	const request, created = `{"name":"P","new":1}`, `{"id":"z1","name":"P","new":1}`
	f := &fake{replies: []reply{{status: 201, body: created}, {status: 200, body: "[" + created + "]"}, {status: 500}}}
	c := newClient(t, f, client.WithoutRetry())
	var got json.RawMessage
	if _, err := c.CreateZone(t.Context(), client.NewZone{}, client.RequestJSON([]byte(request)), client.ResponseJSON(&got)); err != nil || f.bodies[0] != request || string(got) != created {
		t.Errorf("sent %s, received %s, %v", f.bodies[0], got, err)
	}
	if _, err := c.ListZones(t.Context(), client.ResponseJSON(&got)); err != nil || string(got) != "["+created+"]" {
		t.Errorf("listed %s, %v", got, err)
	}
	if _, err := c.ListZones(t.Context(), client.ResponseJSON(&got)); err == nil || got != nil {
		t.Errorf("a failed call stores %s, %v", got, err)
	}
	for _, text := range []string{"", "{", "{} {}", "\"\xff\""} {
		sent := len(f.requests)
		if _, err := c.CreateZone(t.Context(), client.NewZone{}, client.RequestJSON([]byte(text))); err == nil || !strings.Contains(err.Error(), "not JSON") || len(f.requests) != sent {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestHeaderValuesAreSentAsTheyAre(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{okZone}}
	if _, err := newClient(t, f).GetZone(t.Context(), "z1", client.Header("X-Note", "a\tb é"), client.RequestID("A_z.9:-")); err != nil {
		t.Fatal(err)
	}
	if h := f.last().Header; h.Get("X-Note") != "a\tb é" || h.Get("X-Request-Id") != "A_z.9:-" {
		t.Errorf("sent %q", h)
	}
}

// A transportFunc is a transport that may break the rules of http.RoundTripper.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTransportThatBreaksTheRules(t *testing.T) {
	t.Parallel()
	for name, resp := range map[string]*http.Response{
		"no response":       nil,
		"no header or body": {StatusCode: 200},
		"no status":         {Header: http.Header{"Content-Type": {"application/json"}}},
	} {
		c, err := client.New("https://caracal.example.com", token, client.WithoutRetry(),
			client.WithTransport(transportFunc(func(*http.Request) (*http.Response, error) { return resp, nil })))
		if err != nil {
			t.Fatal(err)
		}
		if zone, err := c.GetZone(t.Context(), "z1"); err == nil || zone != (client.Zone{}) {
			t.Errorf("%s: %+v, %v", name, zone, err)
		}
	}
}
