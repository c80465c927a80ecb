package server_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"caracal.run/management/server"
	"caracal.run/management/server/egress"
	"caracal.run/management/server/middleware"
)

// A resolver resolves every name to the addresses that it returns.
type resolver func(context.Context) []netip.Addr

func (r resolver) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	return r(ctx), nil
}

// A test of a provider sends none of its secrets to the token endpoint or anywhere
// else, and a panic logs nothing of the request.
func TestTestProviderLeaksNoSecret(t *testing.T) { // not parallel: see captureProcess
	w := watch(t, captureProcess(t))
	upstream := httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w.upstream, "%s %s\n", r.Method, r.RequestURI)
		_ = r.Header.Write(w.upstream)
		_, _ = io.Copy(w.upstream, r.Body)
		// The endpoint may know the secret and return it.
		out.Header().Set("Location", "https://id.example.com/?secret="+stem)
		out.Header().Set("Set-Cookie", "secret="+stem)
		http.Error(out, stem, http.StatusUnauthorized)
	}))
	t.Cleanup(upstream.Close)
	roots := x509.NewCertPool()
	roots.AddCert(upstream.Certificate())
	public := func(context.Context) []netip.Addr { return []netip.Addr{netip.MustParseAddr("93.184.215.14")} }
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", upstream.Listener.Addr().String())
	}
	config := `{"token_endpoint":"https://example.com/token","client_id":"me","allowed_token_hosts":["example.com"],"client_secret":"` + w.secret() + `"}`
	provider := decode[struct{ ID string }](t, w.mustSend(http.StatusCreated, "POST", "/v1/zones/"+w.zone.ID+"/providers", `{"name":"Tested","kind":"oauth2_client_credentials","config_json":`+config+`}`))
	for _, tt := range []struct {
		name   string
		egress egress.Options
		want   int
	}{
		{"response", egress.Options{Resolver: resolver(public), RootCAs: roots, Dial: dial}, http.StatusOK},
		{"response too large", egress.Options{Resolver: resolver(public), RootCAs: roots, Dial: dial, MaxBody: 1}, http.StatusOK},
		{"untrusted certificate", egress.Options{Resolver: resolver(public), Dial: dial}, http.StatusOK},
		{"no address", egress.Options{Resolver: resolver(func(context.Context) []netip.Addr { return nil })}, http.StatusOK},
		{"a panic", egress.Options{Resolver: resolver(func(ctx context.Context) []netip.Addr {
			panic(fmt.Sprintf("%v %+v", ctx, middleware.RequestInfoFrom(ctx)))
		})}, http.StatusInternalServerError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := w.Config
			c.Egress = tt.egress
			replica, err := server.Start(t.Context(), c, slog.New(slog.NewJSONHandler(w.Log, &slog.HandlerOptions{Level: slog.LevelDebug})))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := replica.Stop(); err != nil {
					t.Error(err)
				}
			}()
			onReplica := *w.API
			onReplica.URL = replica.URL
			before := w.API
			w.API = &onReplica
			defer func() { w.API = before }()
			raw := w.send("POST", "/v1/zones/"+w.zone.ID+"/providers/"+provider.ID+"/test", "", append(bearer(w.admin), "Cookie", "session="+w.secret())...)
			if raw.Response.StatusCode != tt.want {
				t.Errorf("got %d, want %d", raw.Response.StatusCode, tt.want)
			}
		})
	}
	if w.upstream.String() == "" {
		t.Error("the token endpoint was never called")
	}
	if !strings.Contains(w.Log.String(), "panic: ") {
		t.Error("nothing panicked")
	}
	w.expectNothing()
}
