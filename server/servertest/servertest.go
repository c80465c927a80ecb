// Package servertest runs the service in process, each on its own database, for
// tests that send it HTTP requests. It validates every response against the
// spec, and every event and audit entry against what the operation declares.
//
// It also records the outcomes: which status and error code each operation
// returned, on which streams it published and of which kinds it recorded audit
// entries. A run of all tests fails at its end if the spec declares an outcome
// that no test has seen, so [Main] must run the tests of the binary.
//
// To split the tests into shards, which may run on different machines, give
// them one empty directory to record their outcomes in, then check what they
// recorded with a run of no test:
//
//	export SERVERTEST_OUTCOMES=$(mktemp -d)
//	go test -count=1 -run '^Test[A-G]' ./server
//	go test -count=1 -skip '^Test[A-G]' ./server
//	go test -count=1 -run '^$' ./server
//
// The last command fails if the shards together have not seen every declared
// outcome. Without -count=1, go test may reuse a result and record nothing.
package servertest

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server"
	"caracal.run/management/server/egress"
	"caracal.run/management/store/storetest"
)

// Bootstrap is the bootstrap token of every service that this package starts.
const Bootstrap = "bootstrap-token-of-the-tests"

// StreamsKey is the key that signs the events of every service.
const StreamsKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// AuditKey is the key that signs the seals of the audit logs of every service.
const AuditKey = "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"

// KEK is the key encryption key of every service.
const KEK = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"

// An API is a running service and its clients.
type API struct {
	TB      testing.TB
	URL     string
	DB      *storetest.DB
	Redis   *redis.Client                  // the server of the URL; of a cluster or of Sentinels, the first one
	Admin   *rawclient.ClientWithResponses // the bootstrap token
	Service *server.Service
	Config  server.Config
	Log     *Log
}

// New starts a service on a new database. Unless a setting overrides it, the rate
// limits are off and /metrics requires no token.
func New(tb testing.TB, settings ...string) *API {
	tb.Helper()
	return NewReplica(tb, storetest.New(tb), storetest.RedisURL(tb), settings...)
}

// NewReplica starts a service on an existing database and Redis, for example as
// a second replica.
func NewReplica(tb testing.TB, db *storetest.DB, redisURL string, settings ...string) *API {
	tb.Helper()
	return start(tb, db, redisURL, egress.Options{}, settings)
}

// WithEgress is like [New], with options for the service's outbound requests.
func WithEgress(tb testing.TB, out egress.Options, settings ...string) *API {
	tb.Helper()
	return start(tb, storetest.New(tb), storetest.RedisURL(tb), out, settings)
}

func start(tb testing.TB, db *storetest.DB, redisURL string, out egress.Options, settings []string) *API {
	tb.Helper()
	config, err := server.LoadConfig(append([]string{
		"CARACAL_MODE=dev", "PORT=0",
		"DB_POOL_MAX=8", "DB_IDLE_TIMEOUT_MS=1000", // the services of many tests that wait for their subtests share a Postgres
		"DATABASE_URL=" + db.URL(), "REDIS_URL=" + redisURL,
		"CARACAL_ADMIN_TOKEN=" + Bootstrap, "STREAMS_HMAC_KEY=" + StreamsKey, "ZONE_KEK=" + KEK, "AUDIT_HMAC_KEY=" + AuditKey,
		"CARACAL_CONTROL_ENABLED=true", "CONTROL_GATE_FILE=/dev/null", "CONTROL_INVOKE_IP_RATE_LIMIT_PER_MIN=0", "CONTROL_RATE_CAPACITY=0",
		"API_V1_RATE_LIMIT_PER_MIN=0", "READY_RATE_LIMIT_PER_MIN=0", "ADMIN_AUTH_FAIL_LIMIT_PER_MIN=0",
	}, settings...))
	if err != nil {
		tb.Fatal(err)
	}
	config.Egress, config.ManualJobs = out, true
	options, err := redis.ParseURL(redisURL)
	if err != nil {
		first, err := url.Parse(redisURL)
		if err != nil {
			tb.Fatal(err)
		}
		options = &redis.Options{Addr: first.Host}
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
		a.recordWrites()
		if tb.Failed() {
			tb.Logf("log of the service:\n%s", a.Log)
		}
	})
	a.URL = a.Service.URL
	a.Admin = a.ClientWithToken(Bootstrap)
	return a
}

// ClientWithToken returns a client that sends a token; "" sends none.
func (a *API) ClientWithToken(token string) *rawclient.ClientWithResponses {
	a.TB.Helper()
	c, err := rawclient.NewClientWithResponses(a.URL,
		rawclient.WithHTTPClient(&http.Client{
			Transport:     a.Transport(),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // a write would become a read
		}),
		rawclient.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
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

// Anonymous returns a client that sends no token.
func (a *API) Anonymous() *rawclient.ClientWithResponses { return a.ClientWithToken("") }

// ClientFor returns a client with a new token for a zone ("": global) and a
// capability.
func (a *API) ClientFor(zone, capability string, change ...func(*client.NewAdminToken)) *rawclient.ClientWithResponses {
	a.TB.Helper()
	return a.ClientWithToken(a.Token(zone, capability, change...).Token)
}

// CanApprove gives approval permission to a token to create.
func CanApprove(n *client.NewAdminToken) { n.CanApprove = new(true) }

// Token creates a token for a zone ("": global) and a capability.
func (a *API) Token(zone, capability string, change ...func(*client.NewAdminToken)) client.MintedAdminToken {
	a.TB.Helper()
	body := client.NewAdminToken{Name: "test", Scope: client.AdminTokenScopeGlobal, Capability: new(client.AdminTokenCapability(capability))}
	if zone != "" {
		body.Scope, body.ZoneID = client.AdminTokenScopeZone, &zone
	}
	for _, f := range change {
		f(&body)
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

// A Response is a response of the generated client, of any operation.
type Response interface {
	StatusCode() int
	GetBody() []byte
}

// Expect fails the test unless the response has the wanted error code and that
// code's status; if no code is wanted, unless it has the status.
func Expect(tb testing.TB, resp Response, status int, want code.Code) {
	tb.Helper()
	if want != "" {
		status = code.Table[want].Status
	}
	if got := codeOf(resp.GetBody()); resp.StatusCode() != status || got != want && status >= 400 {
		tb.Fatalf("got %d %q, want %d %q\n%s", resp.StatusCode(), got, status, want, resp.GetBody())
	}
}

// A RawResponse is the response to a request that [API.Do] sent.
type RawResponse struct {
	*http.Response
	Body []byte
}

// StatusCode implements [Response].
func (r RawResponse) StatusCode() int { return r.Response.StatusCode }

// GetBody implements [Response].
func (r RawResponse) GetBody() []byte { return r.Body }

// Do sends a request that the generated client may not be able to send. Headers
// are pairs of name and value.
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

// A Log keeps the log of the service. In a benchmark it discards it.
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
