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
)

// GetHealth answers GET /health.
func (s *Server) GetHealth(context.Context, api.GetHealthRequestObject) (api.GetHealthResponseObject, error) {
	return api.GetHealth200JSONResponse{Ok: true}, nil
}

// GetReadiness answers GET /ready. Postgres and Redis are asked at once.
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
	redis := make(chan api.ReadinessRedis, 1)
	go func() {
		// Redis away is worth saying and not worth waiting for.
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if s.redis.Ping(ctx).Err() != nil {
			redis <- api.ReadinessRedisUnreachable
			return
		}
		redis <- api.ReadinessRedisReachable
	}()
	if err := s.store.Ping(ctx); err != nil {
		failure, dependency := api.UnreadinessErrorPostgresUnreachable, api.UnreadinessDependencyPostgres
		return api.GetReadiness503JSONResponse{Error: &failure, Dependency: &dependency}, nil
	}
	return api.GetReadiness200JSONResponse{Ok: true, Redis: <-redis}, nil
}

// GetMetrics answers GET /metrics.
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

func (s *Server) authorizeMetrics(bearer string) bool {
	if s.config.MetricsBearer == "" {
		return s.config.Mode == "dev"
	}
	return subtle.ConstantTimeCompare([]byte(bearer), []byte(s.config.MetricsBearer)) == 1
}

// metricsText is the answer with the version of the format in its type, which
// the spec's text/plain leaves open.
type metricsText []byte

// VisitGetMetricsResponse writes the answer.
func (m metricsText) VisitGetMetricsResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, err := w.Write(m)
	return err
}

// GetOpenAPIJSON answers GET /openapi.json.
func (s *Server) GetOpenAPIJSON(context.Context, api.GetOpenAPIJSONRequestObject) (api.GetOpenAPIJSONResponseObject, error) {
	return openAPIJSON(s.spec.json), nil
}

// openAPIJSON is the document as it was encoded at start.
type openAPIJSON []byte

// VisitGetOpenAPIJSONResponse writes the answer.
func (o openAPIJSON) VisitGetOpenAPIJSONResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(o)
	return err
}

// GetOpenAPIYAML answers GET /openapi.yaml.
func (s *Server) GetOpenAPIYAML(context.Context, api.GetOpenAPIYAMLRequestObject) (api.GetOpenAPIYAMLResponseObject, error) {
	return api.GetOpenAPIYAML200ApplicationYAMLResponse{Body: bytes.NewReader(s.spec.yaml), ContentLength: int64(len(s.spec.yaml))}, nil
}
