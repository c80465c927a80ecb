// Package servertest runs the service in process, on a database of its own, for
// tests that speak HTTP to it. It holds every answer against the spec, whoever
// asked, and remembers which codes were seen: a full run fails at its end if
// one that the spec declares was never met.
package servertest

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server"
	"caracal.run/management/server/egress"
	"caracal.run/management/store/storetest"
)

// Bootstrap is the bootstrap token of every server here.
const Bootstrap = "bootstrap-token-of-the-tests"

// StreamsKey signs the events of every server here: the key of the contract's
// worked examples.
const StreamsKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// KEK wraps the data keys of every server here.
const KEK = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"

// An API is a service in process and those who call it.
type API struct {
	TB      testing.TB
	URL     string
	DB      *storetest.DB
	Redis   *redis.Client
	Admin   *client.ClientWithResponses // the bootstrap token
	Service *server.Service
	Config  server.Config
	Log     *Log
}

// New starts a service on a new database. Limits are off and no secret is
// asked for unless a setting says otherwise.
func New(tb testing.TB, settings ...string) *API {
	tb.Helper()
	return NewReplica(tb, storetest.New(tb), storetest.RedisURL(tb), settings...)
}

// NewReplica starts a service on a database and Redis that others may use too: a
// second replica.
func NewReplica(tb testing.TB, db *storetest.DB, redisURL string, settings ...string) *API {
	tb.Helper()
	return start(tb, db, redisURL, egress.Options{}, settings)
}

// WithEgress is New for a service whose own requests go where a test says.
func WithEgress(tb testing.TB, out egress.Options, settings ...string) *API {
	tb.Helper()
	return start(tb, storetest.New(tb), storetest.RedisURL(tb), out, settings)
}

func start(tb testing.TB, db *storetest.DB, redisURL string, out egress.Options, settings []string) *API {
	tb.Helper()
	config, err := server.LoadConfig(append([]string{
		"CARACAL_MODE=dev", "PORT=0", "DB_POOL_MAX=8",
		"DATABASE_URL=" + db.URL(), "REDIS_URL=" + redisURL,
		"CARACAL_ADMIN_TOKEN=" + Bootstrap, "STREAMS_HMAC_KEY=" + StreamsKey, "ZONE_KEK=" + KEK,
		"API_V1_RATE_LIMIT_PER_MIN=0", "READY_RATE_LIMIT_PER_MIN=0", "ADMIN_AUTH_FAIL_LIMIT_PER_MIN=0",
	}, settings...))
	if err != nil {
		tb.Fatal(err)
	}
	config.Egress = out
	options, err := redis.ParseURL(redisURL)
	if err != nil {
		tb.Fatal(err)
	}
	a := &API{TB: tb, DB: db, Redis: redis.NewClient(options), Config: config, Log: &Log{}}
	_, a.Log.discard = tb.(*testing.B)
	a.Service, err = server.Start(context.Background(), config, slog.New(slog.NewJSONHandler(a.Log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := a.Service.Stop(); err != nil {
			tb.Errorf("stop: %v", err)
		}
		_ = a.Redis.Close()
		if tb.Failed() {
			tb.Logf("log of the service:\n%s", a.Log)
		}
	})
	a.URL = a.Service.URL
	a.Admin = a.ClientWithToken(Bootstrap)
	return a
}

// ClientWithToken calls with a token; "" is none.
func (a *API) ClientWithToken(token string) *client.ClientWithResponses {
	a.TB.Helper()
	c, err := client.NewClientWithResponses(a.URL,
		client.WithHTTPClient(&http.Client{Transport: a.Transport()}),
		client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			return nil
		}))
	if err != nil {
		a.TB.Fatal(err)
	}
	return c
}

// Anonymous calls without a token.
func (a *API) Anonymous() *client.ClientWithResponses { return a.ClientWithToken("") }

// ClientFor calls with a new token for a zone ("": global) and a capability.
func (a *API) ClientFor(zone, capability string) *client.ClientWithResponses {
	a.TB.Helper()
	return a.ClientWithToken(a.Token(zone, capability).Token)
}

// Token mints a token for a zone ("": global) and a capability.
func (a *API) Token(zone, capability string) client.MintedAdminToken {
	a.TB.Helper()
	body := client.NewAdminToken{Name: "test", Scope: client.AdminTokenScopeGlobal, Capability: new(client.AdminTokenCapability(capability))}
	if zone != "" {
		body.Scope, body.ZoneID = client.AdminTokenScopeZone, &zone
	}
	resp, err := a.Admin.CreateAdminTokenWithResponse(context.Background(), body)
	if err != nil {
		a.TB.Fatal(err)
	}
	Expect(a.TB, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// Zone creates a zone.
func (a *API) Zone(change ...func(*client.NewZone)) client.Zone {
	a.TB.Helper()
	body := client.NewZone{Name: "Test zone"}
	for _, f := range change {
		f(&body)
	}
	resp, err := a.Admin.CreateZoneWithResponse(context.Background(), body)
	if err != nil {
		a.TB.Fatal(err)
	}
	Expect(a.TB, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// An Response is what every response of the generated client can say.
type Response interface {
	StatusCode() int
	GetBody() []byte
}

// Expect fails unless the answer has the code that is wanted, with that code's
// status; without one, unless it has the status.
func Expect(tb testing.TB, answer Response, status int, want code.Code) {
	tb.Helper()
	if want != "" {
		status = code.Table[want].Status
	}
	if got := codeOf(answer.GetBody()); answer.StatusCode() != status || got != want && status >= 400 {
		tb.Fatalf("answered %d %q, want %d %q\n%s", answer.StatusCode(), got, status, want, answer.GetBody())
	}
}

// A RawResponse is the answer to a request that the client cannot make.
type RawResponse struct {
	*http.Response
	Body []byte
}

// StatusCode makes a Raw an Answer.
func (r RawResponse) StatusCode() int { return r.Response.StatusCode }

// GetBody makes a Raw an Answer.
func (r RawResponse) GetBody() []byte { return r.Body }

// Do sends a request as it is. Headers come as name, value, name, value…
func (a *API) Do(method, path, body string, headers ...string) RawResponse {
	a.TB.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, a.URL+path, strings.NewReader(body))
	if err != nil {
		a.TB.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{Transport: a.Transport()}).Do(r)
	if err != nil {
		a.TB.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.TB.Fatal(err)
	}
	return RawResponse{resp, text}
}

// A Log is what the service wrote. In a benchmark nothing is kept.
type Log struct {
	mu      sync.Mutex
	text    bytes.Buffer
	discard bool
}

func (l *Log) Write(b []byte) (int, error) {
	if l.discard {
		return len(b), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
