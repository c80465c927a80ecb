package ingest_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/store/ingest"
	"caracal.run/management/store/redisconn"
	"caracal.run/management/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

var key, _ = hex.DecodeString("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")

// A setup is a database and a Redis of one test.
type setup struct {
	*testing.T
	db    *storetest.DB
	redis *redisconn.Client
}

func newSetup(t *testing.T) setup {
	t.Helper()
	s := newSetupOn(t, storetest.RedisURL(t))
	if err := s.redis.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

func newSetupOn(t *testing.T, redisURL string) setup {
	t.Helper()
	client, err := redisconn.Open(redisURL, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return setup{t, storetest.New(t), client}
}

// start starts an ingester. It stops when the test ends, or when stop is called.
func (s setup) start(change ...func(*ingest.Config)) (i *ingest.Ingester, stop func()) {
	s.Helper()
	config := ingest.Config{Key: key, Consumer: "one", Batch: 500, ClaimIdle: time.Hour, MaxDeliveries: 8, RemoveIdle: time.Hour, RetentionDays: 365}
	for _, f := range change {
		f(&config)
	}
	i = ingest.New(s.db.Store(), s.redis, slog.New(slog.DiscardHandler), config)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { i.Run(ctx) })
	stop = func() {
		cancel()
		done.Wait()
	}
	s.Cleanup(stop)
	return i, stop
}

// add adds an entry with an event's JSON and its signature to the stream, and returns
// its ID.
func (s setup) add(data string) string {
	s.Helper()
	return s.addEntry("data", data, "sig", signature(data))
}

func (s setup) addEntry(fields ...string) string {
	s.Helper()
	id, err := s.redis.XAdd(s.Context(), &redis.XAddArgs{Stream: ingest.Stream, Values: fields}).Result()
	if err != nil {
		s.Fatal(err)
	}
	return id
}

func signature(data string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(data))
	return hex.EncodeToString(mac.Sum(nil))
}

// event returns the JSON of an event that occurred now.
func event(zone, id string) string { return eventAt(zone, id, time.Now()) }

func eventAt(zone, id string, at time.Time) string {
	return fmt.Sprintf(`{"id":%q,"zone_id":%q,"event_type":"token_exchange","request_id":"r-%s","decision":"allow","evaluation_status":"complete",`+
		`"determining_policies_json":[],"diagnostics_json":null,"metadata_json":{"application_id":"a","agent_labels":["planner"]},"occurred_at":%q}`,
		id, zone, id, at.UTC().Format(time.RFC3339Nano))
}

// eventually waits until a condition is true.
func (s setup) eventually(condition string, isTrue func() bool) {
	s.Helper()
	for deadline := time.Now().Add(30 * time.Second); !isTrue(); {
		if time.Now().After(deadline) {
			s.Fatalf("not true within 30 s: %s", condition)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// acknowledged waits until the group has acknowledged every entry of the stream.
func (s setup) acknowledged() {
	s.Helper()
	s.eventually("every entry is acknowledged", func() bool {
		groups, err := s.redis.XInfoGroups(context.Background(), ingest.Stream).Result()
		if err != nil {
			return false
		}
		for _, g := range groups {
			if g.Name == ingest.Group {
				info, err := s.redis.XInfoStream(context.Background(), ingest.Stream).Result()
				return err == nil && g.Pending == 0 && g.LastDeliveredID == info.LastGeneratedID
			}
		}
		return false
	})
}

func (s setup) stored(zone string) int {
	s.Helper()
	return storetest.Value[int](s.db, "SELECT count(*) FROM audit_events WHERE zone_id = $1", zone)
}

// deadLetters returns the reasons of the dead letters by the ID of their source.
func (s setup) deadLetters() map[string]string {
	s.Helper()
	all, err := s.redis.XRange(s.Context(), ingest.DeadLetterStream, "-", "+").Result()
	if err != nil {
		s.Fatal(err)
	}
	reasons := map[string]string{}
	for _, m := range all {
		reasons[m.Values["src_id"].(string)] = m.Values["reason"].(string)
	}
	return reasons
}

// checkChain checks that the numbers of a zone's chain are consecutive, that each event
// has the hash of the one before, and that the head is the last event.
func (s setup) checkChain(zone string) {
	s.Helper()
	broken := storetest.Value[int](s.db, `SELECT count(*) FROM (
		SELECT chain_seq, row_number() OVER w AS n, prev_content_sha256, lag(content_sha256) OVER w AS previous FROM audit_events WHERE zone_id = $1 WINDOW w AS (ORDER BY chain_seq)
	) AS chain WHERE chain_seq <> n OR prev_content_sha256 IS DISTINCT FROM previous`, zone)
	head := storetest.Value[bool](s.db, `SELECT EXISTS (SELECT FROM audit_chain_heads AS h JOIN audit_events AS e USING (zone_id, chain_seq, content_sha256)
		WHERE h.zone_id = $1 AND chain_seq = (SELECT count(*) FROM audit_events WHERE zone_id = $1))`, zone)
	if broken > 0 || !head {
		s.Errorf("the chain of %s has %d broken links; the head is the last event: %v", zone, broken, head)
	}
}
