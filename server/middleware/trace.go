package middleware

import (
	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Trace starts a span for each request, as a child of the caller's span if the
// request has a traceparent header (W3C Trace Context). The name of a span is the
// operation id. The names of http attributes follow the semantic conventions of
// OpenTelemetry.
func Trace(provider trace.TracerProvider) echo.MiddlewareFunc {
	tracer := provider.Tracer("caracal.run/management/server")
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			info := RequestInfoFrom(r.Context())
			name, route := r.Method, ""
			if info.Operation != nil {
				name, route = info.Operation.ID, info.Operation.route.Path
			}
			ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
			if _, disabled := provider.(noop.TracerProvider); disabled {
				if caller := trace.SpanContextFromContext(ctx); caller.IsValid() {
					info.Trace = caller.TraceID().String() // for the log only
				}
				return next(c)
			}
			ctx, span := tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
			defer span.End()
			info.Trace = span.SpanContext().TraceID().String()
			c.SetRequest(r.WithContext(ctx))
			err := next(c)
			status := c.Response().Status
			span.SetAttributes(
				attribute.String("http.request.method", r.Method), attribute.String("http.route", route),
				attribute.Int("http.response.status_code", status), attribute.String("caracal.request_id", info.RequestID))
			if status >= 500 {
				span.SetStatus(codes.Error, "")
			}
			return err
		}
	}
}
