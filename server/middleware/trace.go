package middleware

import (
	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Trace makes a span of each request, below the caller's if it names one (W3C
// Trace Context). The names of spans and attributes are OpenTelemetry's.
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
			if _, off := provider.(noop.TracerProvider); off {
				if theirs := trace.SpanContextFromContext(ctx); theirs.IsValid() {
					info.Trace = theirs.TraceID().String() // for the log; it goes no further
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
