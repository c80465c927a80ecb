// Package server implements the HTTP API: the operations that openapi/ specifies.
//
// An operation translates a request into one call of the store, and its result
// into a response. Middleware authenticates, authorizes and validates the request
// against the spec before the operation runs.
package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/trace"

	"caracal.run/management/gen"
	"caracal.run/management/gen/api"
	"caracal.run/management/server/auth"
	"caracal.run/management/server/coding"
	"caracal.run/management/server/docs"
	"caracal.run/management/server/egress"
	"caracal.run/management/server/issuer"
	"caracal.run/management/server/jobs"
	"caracal.run/management/server/limiter"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/policy"
	"caracal.run/management/server/problem"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/state"
	"caracal.run/management/server/sts"
	"caracal.run/management/store"
	"caracal.run/management/store/ingest"
	"caracal.run/management/store/oauthstate"
	"caracal.run/management/store/onetime"
	"caracal.run/management/store/outbox"
	"caracal.run/management/store/redisconn"
	"caracal.run/management/store/sealer"
)

// Options are the dependencies of a [Server].
type Options struct {
	Config Config
	Store  *store.Store
	Redis  *redisconn.Client
	Log    *slog.Logger
	Traces trace.TracerProvider
}

// maxBundleBytes limits the memory of compiled policy sets.
const maxBundleBytes = 64 << 20

// A Server implements the operations of the spec. [Start] starts its background
// workers.
type Server struct {
	config   Config
	store    *store.Store
	redis    *redisconn.Monitor
	log      *slog.Logger
	verifier *auth.Verifier
	outbox   *outbox.Publisher
	jobs     *jobs.Runner
	sealer   *sealer.Sealer
	streams  *eventStreams
	auditKey []byte // signs the audit logs; nil: not configured
	ingester *ingest.Ingester
	egress   *egress.Client
	exchange *provider.Exchanger
	states   *oauthstate.States
	sts      *sts.Client // nil: not configured
	issuer   *issuer.Issuer
	denied   *deniedRequests

	state          *state.Engine
	operations     *operationTable // for calls within the process
	usedTokens     *onetime.Tokens // of Control keys
	usedAssertions *onetime.Tokens // of Control keys
	auditEvents    *auditPublisher

	bundles  *policy.Cache
	metrics  *metrics
	traces   trace.TracerProvider
	limits   limits
	draining chan struct{}          // closed when the shutdown begins
	requests *middleware.Operations // the operations of the spec
	spec     []byte                 // the OpenAPI document as YAML
	specJSON func() ([]byte, error)

	controlKeyLimit, applicationLimit *middleware.RateLimit // of limits
}

type limits struct {
	address, token, readiness, authFailures, registrations, anonymousRegistrations, control, controlKeys, clientFailures, tokens *limiter.Limiter
}

func (l limits) all() (all []*limiter.Limiter) {
	for _, limit := range l.named() {
		all = append(all, limit.Limiter)
	}
	return all
}

// prefixes returns the prefixes of the keys in Redis that the limiters use, each once.
func (l limits) prefixes() []string {
	var all []string
	for _, limit := range l.all() {
		if prefix, used := limit.Prefix(); used {
			all = append(all, prefix)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

type namedLimit struct {
	name string
	*limiter.Limiter
}

func (l limits) named() []namedLimit {
	return []namedLimit{{"address", l.address}, {"token", l.token}, {"readiness", l.readiness}, {"auth_failures", l.authFailures}, {"registrations", l.registrations}, {"anonymous_registrations", l.anonymousRegistrations},
		{"control", l.control}, {"control_keys", l.controlKeys}, {"client_auth_failures", l.clientFailures}, {"token_exchanges", l.tokens}}
}

var _ api.StrictServerInterface = (*Server)(nil)

// loadOperations returns the operations of the spec, which are loaded once per process.
var loadOperations = sync.OnceValues(func() (*middleware.Operations, error) {
	spec, err := openapi3.NewLoader().LoadFromData(gen.Requests)
	if err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	operations, err := middleware.NewOperations(spec)
	if err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	return operations, nil
})

// New returns a server and its HTTP handler. It fails if an HMAC key is invalid.
func New(o Options) (*Server, http.Handler, error) {
	c := o.Config
	operations, err := loadOperations()
	if err != nil {
		return nil, nil, err
	}
	spec, err := specWithServer(gen.OpenAPI, c.PublicURL)
	if err != nil {
		return nil, nil, err
	}
	key, err := hmacKey(c.StreamsHMACKey)
	if err != nil {
		return nil, nil, err
	}
	auditKey, err := hmacKey(c.AuditHMACKey)
	if err != nil {
		return nil, nil, err
	}
	stsKey, err := hmacKey(c.GatewaySTSKey)
	if err != nil {
		return nil, nil, err
	}
	usedTokens := []string{assertionPrefix}
	if c.ControlEnabled {
		usedTokens = append(usedTokens, controlTokenPrefix)
	} else {
		c.ControlPerMinute, c.ControlCapacity = 0, 0 // Redis needs no permission for their keys
	}
	perMinute := func(prefix string, limit int) *limiter.Limiter { return limiter.New(prefix, time.Minute, limit) }
	m, outbound := newMetrics(), egress.New(c.Egress)
	s := &Server{
		config: c, store: o.Store, log: o.Log, traces: o.Traces, requests: operations, spec: spec, specJSON: sync.OnceValues(func() ([]byte, error) { return jsonSpec(spec) }),
		verifier: auth.New(o.Store, o.Log, c.LastUsedDebounce.duration()),
		denied:   newDeniedRequests(o.Store, o.Log),
		state:    &state.Engine{Store: o.Store, CheckUpstreamURL: checkUpstream},
		egress:   outbound,
		exchange: provider.NewExchanger(outbound),
		states:   oauthstate.New(o.Store, o.Redis),
		bundles:  policy.NewCache(maxBundleBytes),
		sealer:   sealer.New(o.Store.For(store.System), o.Log, auditKey),
		auditKey: auditKey,
		outbox: outbox.New(o.Store.For(store.System), o.Redis, o.Log, outbox.Config{
			Traces: o.Traces, Key: key, Batch: c.OutboxBatch, PollInterval: c.OutboxPoll.duration(), MaxLen: c.OutboxStreamLen,
			MaxAttempts: c.OutboxMaxAttempts, Retention: c.OutboxRetention.duration(),
			Observe: func(took time.Duration) { m.outbox.Observe(took.Seconds()) },
		}),
		jobs: jobs.New(o.Store.For(store.System), o.Log, slices.Concat(
			jobs.Of(jobs.Retention{Sessions: c.SessionRetention, Challenges: c.ChallengeRetention}), jobs.OfAuditEvents(auditKey, c.AuditRetentionDays))...),
		ingester: ingest.New(o.Store, o.Redis, o.Log, ingest.Config{
			Key: auditKey, Consumer: c.WorkerID, ClaimIdle: c.AuditClaimIdle.duration(), MaxDeliveries: c.AuditMaxDeliveries, RetentionDays: c.AuditRetentionDays,
		}),
		limits: limits{
			address:      perMinute("api:v1_rl:", c.RequestsPerMinute),
			token:        perMinute("api:v1_rl:", c.RequestsPerMinute),
			readiness:    perMinute("api:ready_rl:", c.ReadyPerMinute),
			authFailures: perMinute("api:admin_auth_fail:", c.AuthFailuresPerMinute),

			registrations:          limiter.New("rl:dcr:", time.Second, registrationsPerSecond),
			anonymousRegistrations: limiter.New("rl:dcr_anonymous:", time.Hour, anonymousRegistrationsPerHour),

			control:     perMinute("api:control_invoke_ip:", c.ControlPerMinute),
			controlKeys: limiter.New("api:control_invoke_key:", c.ControlWindow.duration(), c.ControlCapacity),

			clientFailures: perMinute("api:client_auth_fail:", c.AuthFailuresPerMinute),
			tokens:         perMinute("api:token_exchange:", tokensPerMinute),
		},
		issuer:      issuer.New(o.Store.For(store.System), issuer.Config{Base: c.baseURL(), URL: c.STSIssuerURL, KeysURL: c.STSJWKSURL, Audience: c.ControlAudience}),
		auditEvents: newAuditPublisher(o.Redis, auditKey, o.Log),
		metrics:     m,
		draining:    make(chan struct{}),
	}
	s.controlKeyLimit = middleware.NewRateLimit(middleware.ActorLimit, s.limits.controlKeys)
	s.applicationLimit = middleware.NewRateLimit(middleware.ActorLimit, s.limits.tokens)
	s.usedTokens = onetime.New(controlTokenPrefix, o.Redis)
	s.usedAssertions = onetime.New(assertionPrefix, o.Redis)
	s.operations = newOperationTable(s, operations, middleware.Validate(c.BodyLimit))
	s.streams = newEventStreams(o.Store.For(store.System), s.sealer.Changed)
	if stsKey != nil {
		s.sts = sts.New(c.STSURL, stsKey, 0)
	}
	s.redis = redisconn.NewMonitor(o.Redis, redisconn.Needs{
		Streams: store.Streams(), Counters: s.limits.prefixes(), States: []string{oauthstate.Prefix}, Used: usedTokens,
		Consumed: []redisconn.ConsumedStream{{Stream: ingest.Stream, DeadLetters: ingest.DeadLetterStream}},
	}, o.Log)
	m.register(s)
	return s, coding.Handler(s.handler()), nil
}

// Published returns the number of events that this process has published.
func (s *Server) Published() uint64 { return s.outbox.Stat().Published }

func (s *Server) handler() http.Handler {
	e := echo.New()
	e.IPExtractor = clientAddress(s.config.TrustProxy, s.config.ProxyHeader)
	e.HTTPErrorHandler = func(err error, c echo.Context) { // for requests that do not reach the Log middleware
		_ = problem.Write(c.Response(), c.Request(), "", err)
	}
	e.Pre(routeByEncodedPath)
	e.Use(
		middleware.RequestContext(s.requests, string(s.config.PublicURL)),
		middleware.Trace(s.traces),
		middleware.Log(s.log, s.metrics.observe, s.denied.add, func(w http.ResponseWriter, r *http.Request, err error) bool {
			return writeEnvelope(w, r, err) || writeErrorPage(w, r, err)
		}),
		middleware.Recover(),
		middleware.LimitByAddress(s.limits.address),
		middleware.Authenticate(s.verifier, s.limits.authFailures),
		middleware.AuthenticateControl(s.authenticateControl, s.recordRejected),
		middleware.Authorize(s.verifier, s.config.ApproveWithWrite),
		middleware.LimitByToken(s.limits.token),
		middleware.Validate(s.config.BodyLimit),
		middleware.Deadline(s.config.StatementTimeout.duration()+s.config.ConnectTimeout.duration(), exportTimeout),
		middleware.Idempotency(s.store, s.beforeReplay),
	)
	api.RegisterHandlers(headForGet{e}, api.NewStrictHandler(s, nil))
	if s.config.Docs != nil && *s.config.Docs {
		docs.Register(headForGet{e}, s.config.PublicURL.path())
	}
	return e
}

// routeByEncodedPath makes Echo route by the encoded path. By default, Echo routes by
// the decoded path unless net/url sets RawPath, and %2541 would be decoded twice.
func routeByEncodedPath(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		url := c.Request().URL
		url.RawPath = url.EscapedPath()
		return next(c)
	}
}

// headForGet registers every GET route for HEAD as well; net/http omits the body.
type headForGet struct{ *echo.Echo }

func (e headForGet) GET(path string, h echo.HandlerFunc, m ...echo.MiddlewareFunc) *echo.Route {
	e.Echo.HEAD(path, h, m...)
	return e.Echo.GET(path, h, m...)
}

// cause returns the audit context of the request that ctx belongs to.
func cause(ctx context.Context) store.Cause { return middleware.RequestInfoFrom(ctx).Cause() }

// afterCommit calls f when what the request of ctx changed is committed, as
// [store.IdempotentRequest.AfterCommit] does. The transaction of a request with an
// Idempotency-Key is still open when its operation returns.
func afterCommit(ctx context.Context, f func(error)) {
	middleware.RequestInfoFrom(ctx).Idempotent.AfterCommit(f)
}

// inTx returns the result of a change in a transaction that the request of ctx causes.
func inTx[T any](ctx context.Context, s *Server, change func(*store.Tx) (T, error)) (result T, err error) {
	err = s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) (err error) {
		result, err = change(tx)
		return err
	})
	return result, err
}

// checkReadOnly returns an error unless the read-only fields in the body of the
// request that ctx belongs to have their present values.
func checkReadOnly(ctx context.Context, present any) error {
	return middleware.RequestInfoFrom(ctx).CheckReadOnly(present)
}

// storeFor returns the store scoped to the caller.
func (s *Server) storeFor(ctx context.Context) *store.Store { return s.store.For(cause(ctx).Actor) }
