package server

import (
	"context"
	"fmt"
	"os"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// newTracing returns the tracer provider, and a function that exports the remaining
// spans and must be called at shutdown. Spans are exported only if the standard
// environment variables of OpenTelemetry configure an OTLP endpoint. newTracing
// fails if they are invalid.
func newTracing(ctx context.Context) (trace.TracerProvider, func(context.Context) error, error) {
	configured := os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	if !configured || os.Getenv("OTEL_SDK_DISABLED") == "true" {
		return noop.NewTracerProvider(), func(context.Context) error { return nil }, nil
	}
	for _, variable := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if protocol := os.Getenv(variable); protocol != "" && protocol != "http/protobuf" {
			return nil, nil, ConfigErrors{{variable, fmt.Sprintf("must be http/protobuf, not %q", protocol)}}
		}
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("traces: %w", err)
	}
	// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override the service name.
	attributes, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "caracal-api")), resource.WithFromEnv())
	if err != nil {
		return nil, nil, fmt.Errorf("traces: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(attributes))
	return provider, provider.Shutdown, nil
}
