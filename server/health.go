package server

import (
	"bytes"
	"context"
	"crypto/subtle"
	"net/http"
	"time"

	"github.com/prometheus/common/expfmt"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/middleware"
	"caracal.run/management/store/redisconn"
)

// GetHealth handles GET /health.
func (s *Server) GetHealth(context.Context, api.GetHealthRequestObject) (api.GetHealthResponseObject, error) {
	return api.GetHealth200JSONResponse{Ok: true}, nil
}

// GetReadiness handles GET /ready. The service is ready unless it is draining or
// cannot reach Postgres; what Redis does not allow is only reported.
func (s *Server) GetReadiness(ctx context.Context, _ api.GetReadinessRequestObject) (api.GetReadinessResponseObject, error) {
	const timeout = 5 * time.Second
	select {
	case <-s.draining:
		draining := true
		return api.GetReadiness503JSONResponse{Draining: &draining}, nil
	default:
	}
	if !s.limits.readiness.Allow("ip:" + middleware.RequestInfoFrom(ctx).Address) {
		return nil, code.RateLimited
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	redis := make(chan redisconn.State, 1)
	go func() { redis <- s.redis.Check(ctx) }()
	if err := s.store.Ping(ctx); err != nil {
		failure, dependency := api.UnreadinessErrorPostgresUnreachable, api.UnreadinessDependencyPostgres
		return api.GetReadiness503JSONResponse{Error: &failure, Dependency: &dependency}, nil
	}
	return s.toReadiness(<-redis), nil
}

// toReadiness returns the response of a process that is ready.
func (s *Server) toReadiness(redis redisconn.State) api.GetReadiness200JSONResponse {
	ready := api.GetReadiness200JSONResponse{Ok: true, Redis: api.ReadinessRedisReachable, Outbox: api.ReadinessOutbox(s.outbox.Stat().State)}
	if len(redis.Missing) == 0 {
		return ready
	}
	ready.Redis = api.ReadinessRedisDegraded
	if redis.Reason.Unreachable() {
		ready.Redis = api.ReadinessRedisUnreachable
	}
	ready.RedisError = new(api.ReadinessRedisError(redis.Reason))
	ready.RedisMissing = mapSlice(redis.Missing, func(c redisconn.Capability) api.ReadinessRedisMissing { return api.ReadinessRedisMissing(c) })
	return ready
}

// sharesLimits reports whether Redis allows to count the requests of all processes.
func (s *Server) sharesLimits() bool { return s.redis.Allows(redisconn.RateLimits) }

// GetMetrics handles GET /metrics in the text format of Prometheus.
func (s *Server) GetMetrics(ctx context.Context, _ api.GetMetricsRequestObject) (api.GetMetricsResponseObject, error) {
	if !s.authorizeMetrics(middleware.RequestInfoFrom(ctx).Bearer) {
		return nil, code.Unauthorized
	}
	families, err := s.metrics.registry.Gather()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return nil, err
		}
	}
	return metricsText(text.Bytes()), nil
}

// authorizeMetrics reports whether a request with the given bearer token may read
// the metrics. If METRICS_BEARER is not set, every request may read them in dev
// mode, and none may in other modes.
func (s *Server) authorizeMetrics(bearer string) bool {
	if s.config.MetricsBearer.IsZero() {
		return s.config.Mode == "dev"
	}
	return subtle.ConstantTimeCompare([]byte(bearer), []byte(s.config.MetricsBearer.Reveal())) == 1
}

// metricsText is the response of /metrics. Its Content-Type contains the version of
// the format, which the generated response type does not support.
type metricsText []byte

// VisitGetMetricsResponse writes the response.
func (m metricsText) VisitGetMetricsResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, err := w.Write(m)
	return err
}

// GetOpenAPIJSON handles GET /openapi.json.
func (s *Server) GetOpenAPIJSON(context.Context, api.GetOpenAPIJSONRequestObject) (api.GetOpenAPIJSONResponseObject, error) {
	text, err := s.specJSON()
	return openAPIJSON(text), err
}

// openAPIJSON is the response of /openapi.json.
type openAPIJSON []byte

// VisitGetOpenAPIJSONResponse writes the response.
func (o openAPIJSON) VisitGetOpenAPIJSONResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(o)
	return err
}

// GetOpenAPIYAML handles GET /openapi.yaml.
func (s *Server) GetOpenAPIYAML(context.Context, api.GetOpenAPIYAMLRequestObject) (api.GetOpenAPIYAMLResponseObject, error) {
	return api.GetOpenAPIYAML200ApplicationYAMLResponse{Body: bytes.NewReader(s.spec), ContentLength: int64(len(s.spec))}, nil
}
