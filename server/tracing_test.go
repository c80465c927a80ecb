package server_test

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"caracal.run/management/server/servertest"
)

// A trace that a caller began goes through the request and its transaction to
// the entry in the stream, and each part of it reaches the collector.
func TestTracingReachesTheStream(t *testing.T) { // not parallel: it sets the environment
	var mu sync.Mutex
	spans := map[string]*trace.Span{}
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var batch collector.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(body, &batch) != nil {
			t.Error("the collector cannot read what it got")
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, resource := range batch.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				for _, s := range scope.Spans {
					spans[s.Name] = s
				}
			}
		}
	}))
	defer other.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", other.URL)
	a := servertest.New(t)
	zone := a.Zone()
	const traceID, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	raw := a.Do("DELETE", "/v1/zones/"+zone.ID, "", append(bearer(servertest.Bootstrap), "traceparent", "00-"+traceID+"-"+caller+"-01")...)
	servertest.Expect(t, raw, http.StatusNoContent, "")
	var entry map[string]any
	eventually(t, "the event arrives", func() bool {
		entries, err := a.Redis.XRange(t.Context(), "caracal.policy.invalidate", "-", "+").Result()
		if err == nil && len(entries) == 1 {
			entry = entries[0].Values
		}
		return entry != nil
	})
	if err := a.Service.Stop(); err != nil { // sends what is left to the collector
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	request, transaction, publish := spans["deleteZone"], spans["transaction"], spans["publish caracal.policy.invalidate"]
	if request == nil || transaction == nil || publish == nil {
		t.Fatalf("the collector has only %v", spans)
	}
	hexOf := hex.EncodeToString
	if hexOf(request.TraceId) != traceID || hexOf(request.ParentSpanId) != caller || hexOf(transaction.ParentSpanId) != hexOf(request.SpanId) ||
		hexOf(publish.ParentSpanId) != hexOf(transaction.SpanId) {
		t.Errorf("the spans do not hang together: %v", spans)
	}
	if want := "00-" + traceID + "-" + hexOf(publish.SpanId) + "-01"; entry["traceparent"] != want {
		t.Errorf("the entry says %v, want %s", entry["traceparent"], want)
	}
	if !strings.Contains(a.Log.String(), `"trace_id":"`+traceID+`"`) {
		t.Error("the log does not name the trace")
	}
}

func TestTracingIsOffWithoutCollector(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone()
	raw := a.Do("DELETE", "/v1/zones/"+zone.ID, "", append(bearer(servertest.Bootstrap), "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")...)
	servertest.Expect(t, raw, http.StatusNoContent, "")
	eventually(t, "the event arrives without a trace", func() bool {
		entries, err := a.Redis.XRange(t.Context(), "caracal.policy.invalidate", "-", "+").Result()
		return err == nil && len(entries) == 1 && entries[0].Values["traceparent"] == nil
	})
}
