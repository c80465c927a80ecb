package server_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server"
	"caracal.run/management/server/egress"
)

// The states, codes, code verifiers and tokens of authorizations are in nothing that
// leaves the process, except in the request to the token endpoint, and are stored only
// sealed.
func TestAuthorizationLeaksNoSecret(t *testing.T) { // not parallel: see captureProcess
	w := watch(t, captureProcess(t))
	issue := func() string {
		return fmt.Sprintf(`{"access_token":%q,"refresh_token":%q}`, w.secret(), w.secret())
	}
	respond := func(http.ResponseWriter, string) {}
	upstream := httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		verifier := r.PostFormValue("code_verifier")
		if verifier == "" || r.PostFormValue("code") == "" {
			t.Errorf("the token endpoint received %v", r.PostForm)
		}
		w.secrets[fmt.Sprint("code verifier ", len(w.secrets))] = []byte(verifier)
		respond(out, r.PostFormValue("code")+" "+verifier+" "+r.Header.Get("Authorization"))
	}))
	t.Cleanup(upstream.Close)
	roots := x509.NewCertPool()
	roots.AddCert(upstream.Certificate())
	c := w.Config
	c.Egress = egress.Options{
		RootCAs:  roots,
		Resolver: resolver(func(context.Context) []netip.Addr { return []netip.Addr{netip.MustParseAddr("93.184.215.14")} }),
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", upstream.Listener.Addr().String())
		},
	}
	replica, err := server.Start(t.Context(), c, slog.New(slog.NewJSONHandler(w.Log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = replica.Stop() })
	onReplica := *w.API
	onReplica.URL = replica.URL
	w.API = &onReplica
	config := `{"token_endpoint":"https://example.com/token","authorization_endpoint":"https://example.com/authorize","redirect_uri":"https://app.example.com/b",` +
		`"client_id":"me","allowed_token_hosts":["example.com"],"client_secret":"` + w.secret() + `"}`
	w.mustSend(http.StatusOK, "PATCH", "/v1/zones/"+w.zone.ID+"/providers/"+w.ids["provider-grants/providers"], `{"config_json":`+config+`}`)
	in := "/v1/zones/" + w.zone.ID + "/provider-grants/oauth/"
	body := fmt.Sprintf(`{"user_id":"user-1","resource_id":%q,"provider_id":%q,"scopes":["invoices:read"]}`, w.ids["provider-grants/resources"], w.ids["provider-grants/providers"])
	write := func(status int, text string) func(http.ResponseWriter, string) {
		return func(out http.ResponseWriter, _ string) {
			out.WriteHeader(status)
			_, _ = out.Write([]byte(text))
		}
	}
	for _, tt := range []struct {
		name    string
		respond func(out http.ResponseWriter, sent string)
		prepare func()
		query   string
		want    int
	}{
		{"completed", write(200, issue()), nil, "", http.StatusCreated},
		{"replaced", write(200, issue()), nil, "", http.StatusCreated},
		{"endpoint quotes the request", func(out http.ResponseWriter, sent string) {
			out.WriteHeader(400)
			_, _ = fmt.Fprintf(out, `{"error":"invalid_grant","error_description":%q}`, sent)
		}, nil, "", http.StatusBadGateway},
		{"malformed response", write(200, issue()+"{"), nil, "", http.StatusBadGateway},
		{"invalid token", write(200, `{"access_token":"`+w.secret()+`\n"}`), nil, "", http.StatusBadGateway},
		{"denied", nil, nil, "&error=access_denied", http.StatusBadRequest},
		{"malformed query", nil, nil, "&code=x", http.StatusBadRequest},
		{"tokens cannot be stored", write(200, issue()), func() { rejectWrites(w.DB, withRowInError) }, "", http.StatusServiceUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			respond = tt.respond
			raw := w.Do("POST", in+"authorize", body, append(bearer(w.admin), "Content-Type", jsonType)...) // not recorded: it returns the state
			if raw.StatusCode() != http.StatusOK {
				t.Fatalf("got %d %s", raw.StatusCode(), raw.Body)
			}
			state := decode[client.ProviderAuthorization](t, raw).State
			w.secrets["the state of "+tt.name] = []byte(state)
			if tt.prepare != nil {
				tt.prepare()
			}
			query := "?state=" + state + "&code=" + w.secret() + tt.query
			for _, accept := range []string{"text/html", jsonType} { // the second time, the state is used up
				got := w.send("GET", in+"callback"+query, "", "Accept", accept, "Referer", "https://example.com/"+query, "Cookie", "session="+w.secret())
				if accept == "text/html" && got.StatusCode() != tt.want {
					t.Errorf("got %d, want %d: %s", got.StatusCode(), tt.want, got.Body)
				}
			}
		})
	}
	if !strings.Contains(w.Log.String(), "completeProviderGrant") {
		t.Error("the callback was not logged")
	}
	w.expectNothing()
}
