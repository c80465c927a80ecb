package server_test

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/egress"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// A tokenServer stands for the internet: whatever name is asked for, it answers,
// but for some names that it makes a difference with. It notes what it was sent.
type tokenServer struct {
	*httptest.Server
	before   func() // runs when a request has come and is not answered
	mu       sync.Mutex
	received []string // complete requests
	dialled  []string // addresses
}

func newTokenServer(t *testing.T) *tokenServer {
	t.Helper()
	s := &tokenServer{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := httputil.DumpRequest(r, true)
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.received = append(s.received, string(text))
		s.mu.Unlock()
		if s.before != nil {
			s.before()
		}
		var status int
		if _, err := fmt.Sscanf(r.URL.Path, "/answers/%d", &status); err != nil {
			t.Errorf("asked for %s", r.URL)
			return
		}
		w.Header().Set("Location", "https://login.example.com/followed")
		w.WriteHeader(status)
	}))
	s.Server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// LookupNetIP makes it a resolver.
func (s *tokenServer) LookupNetIP(_ context.Context, _, name string) ([]netip.Addr, error) {
	switch name {
	case "private.example.com.":
		return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
	case "nowhere.example.com.":
		return nil, errors.New("lookup nowhere.example.com on 10.9.9.9:53: no such host")
	case "closed.example.com.":
		return []netip.Addr{netip.MustParseAddr("93.184.215.99")}, nil
	}
	return []netip.Addr{netip.MustParseAddr("93.184.215.14")}, nil
}

func (s *tokenServer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	s.dialled = append(s.dialled, address)
	s.mu.Unlock()
	if strings.HasPrefix(address, "93.184.215.99:") {
		return nil, errors.New("dial tcp 10.1.2.3:4444->93.184.215.99:443: connection refused")
	}
	return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
}

func (s *tokenServer) options() egress.Options {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return egress.Options{Resolver: s, Dial: s.dial, RootCAs: roots}
}

// endpointAt is a configuration whose token endpoint is at a URL.
func endpointAt(host, path string) client.ProviderConfigInput {
	return rawConfig(fmt.Sprintf(`{"token_endpoint":"https://%s%s","allowed_token_hosts":["%s"],"client_id":"caracal","client_secret":"hush-client","token_params":{"tenant":"hush-tenant"}}`,
		host, path, strings.Split(host, ":")[0]))
}

func TestTestProvider(t *testing.T) {
	t.Parallel()
	upstream := newTokenServer(t)
	a := servertest.WithEgress(t, upstream.options())
	zone := a.Zone().ID
	const answered = "The token endpoint responded."
	for _, tt := range []struct {
		name       string
		host, path string
		status     int // 0 is unreachable
		detail     string
	}{
		{"answers 200", "login.example.com", "/answers/200", 200, answered},
		{"refuses", "login.example.com", "/answers/401", 401, answered},
		{"refuses the method", "Login.Example.COM:8443", "/answers/405", 405, answered},
		{"redirects", "login.example.com", "/answers/302", 302, answered},
		{"fails", "login.example.com", "/answers/500", 500, answered},
		{"has a query", "login.example.com", "/answers/400?code=hush", 400, answered},
		{"has another's certificate", "login.example.org", "/answers/200", 0, "The TLS handshake with the host failed, or its certificate is invalid."},
		{"refuses the connection", "closed.example.com", "/answers/200", 0, "Could not connect to the host."},
		{"is within", "private.example.com", "/answers/200", 0, "The host does not resolve to a public address."},
		{"is nowhere", "nowhere.example.com", "/answers/200", 0, "The host does not resolve to a public address."},
		{"is an address", "93.184.215.14", "/answers/200", 0, "The host of the URL must be a DNS name, not an IP address."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := newProvider(t, a, zone, client.NewProvider{Name: &tt.name, Kind: "oauth2_client_credentials", ConfigJSON: endpointAt(tt.host, tt.path)})
			resp, err := a.Admin.TestProviderWithResponse(t.Context(), zone, created.ID)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, "")
			got := *resp.JSON200
			if got.Reachable != (tt.status != 0) || *cmp.Or(got.Status, new(0)) != tt.status || (got.Status == nil) == got.Reachable || got.Detail != tt.detail || got.DurationMs < 0 {
				t.Errorf("answered %s, want %d %q", resp.Body, tt.status, tt.detail)
			}
			if now := readProvider(t, a.Admin, zone, created.ID); !reflect.DeepEqual(now, created) {
				t.Errorf("the test has changed it into %+v", now)
			}
			want := []string{"testProvider | POST /v1/zones/" + zone + "/providers/" + created.ID + `/test | 200 | {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":[]}`}
			if entries := storetest.Column[string](a.DB, "SELECT concat_ws(' | ', operation, action, status_code, payload) FROM audit_entries WHERE entity_type = 'providers' AND entity_id = $1 AND operation <> 'createProvider'", created.ID); !slices.Equal(entries, want) {
				t.Errorf("the audit entries are %q, want %q", entries, want)
			}
		})
	}
	t.Cleanup(func() { // when all are done
		if len(upstream.received) != 6 {
			t.Errorf("the endpoint received %q", upstream.received)
		}
		for _, text := range upstream.received {
			head, _, _ := strings.Cut(text, " ")
			if lower := strings.ToLower(text); head != http.MethodHead || strings.Contains(lower, "authorization") || strings.Contains(lower, "cookie") || strings.Contains(text, "?") || strings.Contains(text, secretMarker) || !strings.HasSuffix(text, "\r\n\r\n") {
				t.Errorf("it was sent %q", text)
			}
		}
		for _, address := range upstream.dialled {
			if !strings.HasPrefix(address, "93.184.215.") {
				t.Errorf("a connection to %s was opened", address)
			}
		}
	})
}

// TestTestProviderRunsOutsideTransactions checks that no transaction is open during
// the request to the endpoint, and that the audit entry is already committed.
func TestTestProviderRunsOutsideTransactions(t *testing.T) {
	t.Parallel()
	upstream := newTokenServer(t)
	a := servertest.WithEgress(t, upstream.options())
	zone := a.Zone().ID
	id := newProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "oauth2_client_credentials", ConfigJSON: endpointAt("login.example.com", "/answers/204")}).ID
	upstream.before = func() {
		if n := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE entity_id = $1 AND operation = 'testProvider'", id); n != 1 {
			t.Errorf("got %d audit entries during the request to the endpoint, want 1", n)
		}
		if n := storetest.Value[int](a.DB, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); n != 0 {
			t.Errorf("%d write locks of zones are held during the request to the endpoint", n)
		}
	}
	resp, err := a.Admin.TestProviderWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if *resp.JSON200.Status != http.StatusNoContent {
		t.Errorf("got %s", resp.Body)
	}
}

func TestTestProviderAccess(t *testing.T) {
	t.Parallel()
	upstream := newTokenServer(t)
	a := servertest.WithEgress(t, upstream.options())
	zone, other, system := a.Zone().ID, a.Zone().ID, systemZone(a).ID
	const archivedZone = "archived"
	a.DB.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ($1, 'Zone', $1, false)", archivedZone)
	add := func(zone string) string {
		return newProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "oauth2_client_credentials", ConfigJSON: endpointAt("login.example.com", "/answers/401")}).ID
	}
	live, ofOtherZone, archived, inArchivedZone, ofSystemZone := add(zone), add(other), add(zone), add(archivedZone), add(system)
	servertest.Expect(t, deleteProvider(t, a.Admin, zone, archived), http.StatusNoContent, "")
	a.DB.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", archivedZone)
	type row struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string
		want     code.Code
	}
	tests := []row{
		{"global token", a.ClientFor("", "write"), zone, live, ""},
		{"zone token", a.ClientFor(zone, "write"), zone, live, ""},
		{"read token", a.ClientFor("", "read"), zone, live, code.AdminTokenReadOnly},
		{"token of another zone", a.ClientFor(other, "write"), zone, live, code.AdminTokenZoneMismatch},
		{"unknown", a.Admin, zone, "unknown", code.ProviderNotFound},
		{"archived", a.Admin, zone, archived, code.ProviderNotFound},
		{"of another zone", a.Admin, zone, ofOtherZone, code.ProviderNotFound},
		{"zone unknown", a.Admin, "nowhere", live, code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, inArchivedZone, code.ZoneNotFound},
		{"system zone", a.Admin, system, ofSystemZone, ""},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system, ofSystemZone, code.SystemZoneReadOnly},
	}
	for _, s := range samples {
		if want := code.ProviderTestUnsupported; !strings.HasPrefix(string(s.kind), "oauth2_") {
			id := newProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: s.kind, ConfigJSON: rawConfig(s.config)}).ID
			tests = append(tests, row{"of the kind " + string(s.kind), a.Admin, zone, id, want})
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.TestProviderWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
		})
	}
	t.Cleanup(func() { // when all are done
		if len(upstream.received) != 3 {
			t.Errorf("the endpoint received %q", upstream.received)
		}
	})
}

// TestTestProviderRejectsStoredInvalidConfig: a row may be from before its
// endpoint had to be on an allowed host.
func TestTestProviderRejectsStoredInvalidConfig(t *testing.T) {
	t.Parallel()
	upstream := newTokenServer(t)
	a := servertest.WithEgress(t, upstream.options())
	zone := a.Zone().ID
	for _, tt := range []struct{ name, config, detail string }{
		{"another host", `{"token_endpoint":"https://evil.example.com/answers/200","allowed_token_hosts":["login.example.com"]}`, "token_endpoint must be on a host in allowed_token_hosts"},
		{"no TLS", `{"token_endpoint":"http://login.example.com/answers/200","allowed_token_hosts":["login.example.com"]}`, "token_endpoint must be an HTTPS URL"},
		{"no hosts", `{"token_endpoint":"https://login.example.com/answers/200"}`, "requires allowed_token_hosts"},
		{"nothing", `{}`, "token_endpoint must be an HTTPS URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := a.DB.Provider(zone)
			a.DB.Exec("UPDATE providers SET kind = 'oauth2_authorization_code', config_json = $2::jsonb WHERE id = $1", id, tt.config)
			resp, err := a.Admin.TestProviderWithResponse(t.Context(), zone, id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, "")
			if want := (client.ProviderTest{Detail: "oauth2_authorization_code provider config " + tt.detail}); *resp.JSON200 != want {
				t.Errorf("answered %s, want %+v", resp.Body, want)
			}
		})
	}
	t.Cleanup(func() {
		if len(upstream.dialled) > 0 {
			t.Errorf("somebody dialled %q", upstream.dialled)
		}
	})
}
