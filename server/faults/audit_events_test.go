//go:build faults

package faults_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/store"
	"caracal.run/management/store/ingest"
	"caracal.run/management/store/private"
)

// auditZones are zones of audit events, which need not exist.
var auditZones = []string{"audit-1", "audit-2", "audit-3"}

// Audit events that other services send while processes are killed, and while Redis and
// Postgres are killed and restarted, are stored exactly once each, in valid chains.
func TestKilledProcessesIngestEachAuditEventOnce(t *testing.T) {
	t.Parallel()
	const kills, workers = 30, 2
	b := newBackendsIn(t, private.Options{Dir: ramDir(t)}) // Redis keeps its data
	r := b.redis()
	if err := r.ConfigSet(t.Context(), "appendfsync", "always").Err(); err != nil {
		t.Fatal(err)
	}
	settings := []string{"AUDIT_HMAC_KEY=" + streamKey, "AUDIT_CLAIM_IDLE_SECS=1"}
	stop := make(chan struct{})
	var producer, killers sync.WaitGroup
	sent := 0
	producer.Go(func() { sent = sendAuditEvents(t, r, stop) })
	for worker := range workers {
		random := rand.New(rand.NewPCG(1, uint64(worker)))
		killers.Go(func() {
			for n := range kills / workers {
				s, serving := b.spawn(fmt.Sprintf("killed-%d-%d", worker, n), settings...)
				select {
				case <-serving:
					time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
				case <-s.logDone: // Postgres was unavailable at its start
				}
				s.kill()
			}
		})
	}
	for _, server := range []*private.Process{b.servers.Postgres(), b.servers.Redis()} {
		time.Sleep(2 * time.Second)
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	killers.Wait()
	last, other := b.start("last", settings...), b.start("other", settings...)
	time.Sleep(time.Second) // both receive events
	close(stop)
	producer.Wait()
	eventually(t, 60*time.Second, "every audit event is acknowledged", func() bool { return isIngested(r) })

	counts := column[int](b, "SELECT count(*) FROM audit_events UNION ALL SELECT count(DISTINCT (zone_id, id)) FROM audit_events UNION ALL SELECT sum(count)::bigint FROM audit_decision_counts")
	for _, count := range counts {
		if count != sent {
			t.Errorf("%d events were sent; stored, different and counted are %v", sent, counts)
			break
		}
	}
	if n := r.XLen(t.Context(), ingest.DeadLetterStream).Val(); n != 0 {
		t.Errorf("there are %d dead letters", n)
	}
	b.checkAuditChains()
	if last.metric("caracal_audit_inserts_total") == 0 || other.metric("caracal_audit_inserts_total") == 0 {
		t.Error("one of the last two processes stored no event")
	}
	t.Logf("%d events were sent during %d kills; the last processes stored %v and %v of them", sent, kills, last.metric("caracal_audit_inserts_total"), other.metric("caracal_audit_inserts_total"))
	last.terminate()
	other.terminate()
}

// sendAuditEvents sends audit events until it is stopped, and returns their number. It
// sends events again whose outcome is unknown.
func sendAuditEvents(t *testing.T, r *redis.Client, stop <-chan struct{}) (sent int) {
	const batch, interval = 20, 50 * time.Millisecond // fewer than processes with the race detector can store
	key := decodeKey()
	for {
		select {
		case <-stop:
			return sent
		case <-time.After(interval):
		}
		var events []ingest.Event
		for range batch {
			events = append(events, ingest.Event{
				ID: fmt.Sprint("event-", sent), ZoneID: auditZones[sent%len(auditZones)], EventType: "token_exchange", RequestID: fmt.Sprint("request-", sent), Decision: "allow",
				EvaluationStatus: "complete", Metadata: map[string]any{"application_id": "application-1", "agent_labels": []string{"planner"}}, OccurredAt: time.Now(),
			})
			sent++
		}
		for ingest.Publish(t.Context(), r, key, events...) != nil {
			time.Sleep(interval)
		}
	}
}

func decodeKey() []byte {
	key, err := hex.DecodeString(streamKey)
	if err != nil {
		panic(err)
	}
	return key
}

// isIngested reports whether every audit event is acknowledged.
func isIngested(r *redis.Client) bool {
	ctx, cancel := context.WithTimeout(context.Background(), maxRequestTime)
	defer cancel()
	groups, err := r.XInfoGroups(ctx, ingest.Stream).Result()
	if err != nil || len(groups) != 1 {
		return false
	}
	stream, err := r.XInfoStream(ctx, ingest.Stream).Result()
	return err == nil && groups[0].Pending == 0 && groups[0].LastDeliveredID == stream.LastGeneratedID
}

// checkAuditChains verifies the chains of audit events.
func (b *backends) checkAuditChains() {
	b.t.Helper()
	s, err := store.Open(b.t.Context(), store.Config{
		URL: b.servers.PostgresURL(private.Service, "caracal"), Name: "verifier", PoolMax: 2, ConnectTimeout: connectTimeout, IdleTimeout: time.Minute,
		StatementTimeout: 15 * time.Second, IdleInTxTimeout: 30 * time.Second,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.Close()
	for _, zone := range auditZones {
		v, err := s.For(store.System).VerifyAuditChain(b.t.Context(), decodeKey(), zone, store.ChainRange{First: 1, Budget: time.Minute})
		if err != nil || v.Fault != nil || !v.Complete || v.Events == 0 {
			b.t.Errorf("the chain of %s: %+v, fault %+v, error %v", zone, v, v.Fault, err)
		}
	}
}
