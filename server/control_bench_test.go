package server_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/issuer"
	"caracal.run/management/store"
)

// controlKeys creates Control keys, because a key gets a limited number of tokens.
func (x *bench) controlKeys(b *testing.B, n int) (keys []client.CreatedControlKey) {
	b.Helper()
	for range n {
		resp, err := x.Admin.CreateControlKeyWithResponse(b.Context(), strings.TrimPrefix(x.zone, "/v1/zones/"),
			client.NewControlKey{Name: "key", AllowedScopes: []client.ControlScope{client.ControlScopeControlAppRead}})
		if err != nil || resp.JSON201 == nil {
			b.Fatal(resp, err)
		}
		keys = append(keys, *resp.JSON201)
	}
	return keys
}

func BenchmarkIssueToken(b *testing.B) {
	x := newBench(b)
	keys := x.controlKeys(b, 100)
	x.run(b, func(c caller, n int64) {
		key := keys[int(n)%len(keys)]
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {key.ID}, "client_secret": {key.ClientSecret}, "resource": {controlAudience}, "scope": {"control:app:read"}}
		r, err := http.NewRequest("POST", c.url+"/oauth/2/token", strings.NewReader(form.Encode()))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		c.send(b, r, http.StatusOK)
	})
}

// BenchmarkInvokeControl lists 50 applications, each time with another token. Compare it
// with BenchmarkListApplications.
func BenchmarkInvokeControl(b *testing.B) {
	x := newBench(b)
	key := x.controlKeys(b, 1)[0]
	db, _, err := x.Config.OpenStore(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	i := issuer.New(db.For(store.System), issuer.Config{Base: fmt.Sprintf("http://localhost:%d", x.Config.Port), Audience: controlAudience})
	tokens := make(chan string, b.N+1000)
	for range cap(tokens) {
		token, _, err := i.Issue(b.Context(), "request", issuer.Request{Zone: key.ZoneID, Application: key.ID, Scopes: []string{"control:app:read"}, Session: "s", Lifetime: 15 * time.Minute})
		if err != nil {
			b.Fatal(err)
		}
		tokens <- token
	}
	x.run(b, func(c caller, _ int64) {
		r, err := http.NewRequest("POST", c.url+"/v1/control/invoke", strings.NewReader(invocation("app", "list", `{"limit":50}`)))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Content-Type", jsonType)
		r.Header.Set("Authorization", "Bearer "+<-tokens)
		c.send(b, r, http.StatusOK)
	})
}
