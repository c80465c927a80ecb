package ingest_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"caracal.run/management/store/ingest"
	"caracal.run/management/store/redisconn"
	"caracal.run/management/store/storetest"
)

// BenchmarkIngest measures the events per second that one process stores, of four zones,
// from the stream into the chains, with partitions for a year.
func BenchmarkIngest(b *testing.B) {
	client, err := redisconn.Open(storetest.RedisURL(b), "bench")
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	if err := client.FlushDB(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	db := storetest.New(b)
	db.Exec("SELECT create_audit_partitions(now() - interval '1 year', now())") // events are deduplicated over all months
	events := make([]ingest.Event, 0, 1000)
	publish := func() {
		if err := ingest.Publish(b.Context(), client, key, events...); err != nil {
			b.Fatal(err)
		}
		events = events[:0]
	}
	for n := range b.N {
		events = append(events, ingest.Event{
			ID: fmt.Sprintf("0198c0de-0000-7000-8000-%012d", n), ZoneID: fmt.Sprint("zone-", n%4), EventType: "token_exchange", RequestID: fmt.Sprint("request-", n),
			Decision: "allow", PolicySetVersionID: "psv-3", ManifestSHA: "aa11", EvaluationStatus: "complete", DeterminingPolicies: []any{map[string]any{"policy": "caracal-payments-mint"}}, Diagnostics: []any{},
			Metadata: map[string]any{
				"application_id": fmt.Sprint("application-", n%100), "application_name": "Payments", "application_registration_method": "managed", "resource": "resource://bank", "requested_scopes": []string{"payments:write"},
				"session_id": fmt.Sprint("session-", n%1000), "agent_session_id": fmt.Sprint("agent-", n%1000), "agent_lifecycle": "task", "agent_labels": []string{"planner"}, "delegation_hop_count": 1,
			},
			OccurredAt: time.Now(),
		})
		if len(events) == cap(events) {
			publish()
		}
	}
	publish()
	i := ingest.New(db.Store(), client, slog.New(slog.DiscardHandler), ingest.Config{Key: key, Consumer: "bench", ClaimIdle: time.Minute, MaxDeliveries: 8, RetentionDays: 365})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ResetTimer()
	done := make(chan struct{})
	go func() { i.Run(ctx); close(done) }()
	for i.Stat().Inserts < uint64(b.N) {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	cancel()
	<-done
}
