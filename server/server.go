// Package server is how the store is reached: the operations of the spec over
// HTTP. An operation is a translation of a request to one call of the store and
// of what it answers to a response; who may call it, and whether the request is
// what the spec admits, is decided before.
package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"caracal.run/management/gen"
	"caracal.run/management/gen/api"
	"caracal.run/management/server/auth"
	"caracal.run/management/server/docs"
	"caracal.run/management/server/egress"
	"caracal.run/management/server/limiter"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/problem"
	"caracal.run/management/store"
	"caracal.run/management/store/outbox"
)

// Options are what a server needs.
type Options struct {
	Config Config
	Store  *store.Store
	Redis  *redis.Client
	Log    *slog.Logger
	Traces trace.TracerProvider
}

// A Server answers requests ([New]). What goes on beside them is in [Start].
type Server struct {
	config   Config
	store    *store.Store
	redis    *redis.Client
	log      *slog.Logger
	verifier *auth.Verifier
	outbox   *outbox.Publisher
	egress   *egress.Client
	denied   *deniedRequests
	metrics  *metrics
	traces   trace.TracerProvider
	limits   limits
	draining chan struct{} // closed when the process is about to stop
	spec     specDocument
}

type limits struct{ address, token, readiness, authFailures, registrations *limiter.Limiter }

func (l limits) all() (all []*limiter.Limiter) {
	for _, one := range l.named() {
		all = append(all, one.Limiter)
	}
	return all
}

type namedLimit struct {
	name string
	*limiter.Limiter
}

func (l limits) named() []namedLimit {
	return []namedLimit{{"address", l.address}, {"token", l.token}, {"readiness", l.readiness}, {"auth_failures", l.authFailures}, {"registrations", l.registrations}}
}

var _ api.StrictServerInterface = (*Server)(nil)

// spec is the spec, read once for all servers of a process.
type specDocument struct {
	json, yaml []byte
	operations *middleware.Operations
}

var loadSpec = sync.OnceValues(func() (specDocument, error) {
	spec, err := openapi3.NewLoader().LoadFromData(gen.OpenAPI)
	if err != nil {
		return specDocument{}, fmt.Errorf("spec: %w", err)
	}
	if err := spec.Validate(context.Background()); err != nil {
		return specDocument{}, fmt.Errorf("spec: %w", err)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return specDocument{}, fmt.Errorf("spec: %w", err)
	}
	operations, err := middleware.NewOperations(spec)
	if err != nil {
		return specDocument{}, fmt.Errorf("spec: %w", err)
	}
	return specDocument{json: text, yaml: gen.OpenAPI, operations: operations}, nil
})

// New makes a server and its handler.
func New(o Options) (*Server, http.Handler, error) {
	spec, err := loadSpec()
	if err != nil {
		return nil, nil, err
	}
	c := o.Config
	key, err := c.streamsKey()
	if err != nil {
		return nil, nil, err
	}
	perMinute := func(prefix string, limit int) *limiter.Limiter { return limiter.New(prefix, time.Minute, limit) }
	m := newMetrics()
	s := &Server{
		config: c, store: o.Store, redis: o.Redis, log: o.Log, traces: o.Traces, spec: spec,
		verifier: auth.New(o.Store, o.Log, c.LastUsedDebounce.duration()),
		denied:   newDeniedRequests(o.Store, o.Log),
		egress:   egress.New(c.Egress),
		outbox: outbox.New(o.Store.For(store.System), o.Redis, o.Log, outbox.Config{
			Traces: o.Traces, Key: key, Batch: c.OutboxBatch, PollInterval: c.OutboxPoll.duration(), MaxLen: c.OutboxStreamLen,
			MaxAttempts: c.OutboxMaxAttempts, Retention: c.OutboxRetention.duration(),
			Observe: func(took time.Duration) { m.outbox.Observe(took.Seconds()) },
		}),
		limits: limits{
			address:      perMinute("api:v1_rl:", c.RequestsPerMinute),
			token:        perMinute("api:v1_rl:", c.RequestsPerMinute),
			readiness:    perMinute("api:ready_rl:", c.ReadyPerMinute),
			authFailures: perMinute("api:admin_auth_fail:", c.AuthFailuresPerMinute),

			registrations: limiter.New("rl:dcr:", time.Second, registrationsPerSecond),
		},
		metrics:  m,
		draining: make(chan struct{}),
	}
	m.register(s)
	handler := s.handler()
	return s, handler, nil
}

// Published is how many events Redis has taken from this process.
func (s *Server) Published() uint64 { return s.outbox.Stat().Published }

func (s *Server) handler() http.Handler {
	e := echo.New()
	e.IPExtractor = echo.ExtractIPDirect()
	if s.config.TrustProxy {
		e.IPExtractor = lastHop
	}
	e.HTTPErrorHandler = func(err error, c echo.Context) { // only what precedes the log
		_ = problem.Write(c.Response(), c.Request(), "", err)
	}
	e.Pre(routeByEncodedPath)
	e.Use(
		middleware.RequestContext(s.spec.operations),
		middleware.Trace(s.traces),
		middleware.Log(s.log, s.metrics.observe, s.denied.add),
		middleware.Recover(),
		middleware.LimitByAddress(s.limits.address),
		middleware.Authenticate(s.verifier, s.limits.authFailures),
		middleware.Authorize(s.verifier),
		middleware.LimitByToken(s.limits.token),
		middleware.Validate(s.config.BodyLimit),
		middleware.Deadline(s.config.StatementTimeout.duration()+s.config.ConnectTimeout.duration()),
	)
	api.RegisterHandlers(headForGet{e}, api.NewStrictHandler(s, nil))
	if s.config.Docs != nil && *s.config.Docs {
		docs.Register(headForGet{e})
	}
	return e
}

// lastHop is the address that the proxy in front of us saw: what it appended to
// X-Forwarded-For. Whatever stands before that, the caller may have made up.
func lastHop(r *http.Request) string {
	fromNullable := r.Header.Values("X-Forwarded-For")
	if len(fromNullable) == 0 {
		return echo.ExtractIPDirect()(r)
	}
	line := fromNullable[len(fromNullable)-1]
	hop := strings.TrimSpace(line[strings.LastIndex(line, ",")+1:])
	if _, err := netip.ParseAddr(hop); err != nil {
		return echo.ExtractIPDirect()(r)
	}
	return hop
}

// routeByEncodedPath makes Echo see the path as it was sent, always. It takes
// the decoded one where that is unambiguous, and then %2541 would be decoded
// twice.
func routeByEncodedPath(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		url := c.Request().URL
		url.RawPath = url.EscapedPath()
		return next(c)
	}
}

// headForGet answers HEAD wherever GET is answered; net/http drops the body.
type headForGet struct{ *echo.Echo }

func (e headForGet) GET(path string, h echo.HandlerFunc, m ...echo.MiddlewareFunc) *echo.Route {
	e.Echo.HEAD(path, h, m...)
	return e.Echo.GET(path, h, m...)
}

// cause is why a transaction of this request runs.
func cause(ctx context.Context) store.Cause { return middleware.RequestInfoFrom(ctx).Cause() }

// storeFor is the store as the caller may see it.
func (s *Server) storeFor(ctx context.Context) *store.Store { return s.store.For(cause(ctx).Actor) }
