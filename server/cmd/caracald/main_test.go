package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/store/storetest"
)

const (
	token     = "a-bootstrap-token-of-the-tests"
	streamKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
)

// The test binary is also the program, so that tests can kill real processes.
func TestMain(m *testing.M) {
	if os.Getenv("CARACALD_TEST_IS_MAIN") != "" {
		main()
		return
	}
	storetest.Main(m)
}

// program returns a caracald command with only these settings as its environment.
func program(args []string, settings ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append([]string{"CARACALD_TEST_IS_MAIN=1"}, settings...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// A replica is a running caracald serve.
type replica struct {
	cmd    *exec.Cmd
	client *rawclient.ClientWithResponses
}

// settingsOf returns the settings of a service on a database and Redis of the tests.
func settingsOf(db *storetest.DB, redisURL string) []string {
	return []string{"PORT=0", "HOST=127.0.0.1", "DATABASE_URL=" + db.URL(), "REDIS_URL=" + redisURL,
		"CARACAL_ADMIN_TOKEN=" + token, "STREAMS_HMAC_KEY=" + streamKey, "ZONE_KEK=" + streamKey, "API_V1_RATE_LIMIT_PER_MIN=0", "OUTBOX_BATCH_SIZE=7"}
}

// startReplica starts a service that ends with the test, and calls onLine with
// each line of its log.
func startReplica(t *testing.T, onLine func(level, line string), settings []string) *replica {
	t.Helper()
	cmd := program([]string{"serve"}, settings...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url := make(chan string, 1)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(url)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var line struct{ Msg, Level, URL string }
			_ = json.Unmarshal(lines.Bytes(), &line) // other output has no level
			if line.Msg == "serving" {
				url <- line.URL
			}
			onLine(line.Level, lines.Text())
		}
	})
	r := &replica{cmd: cmd}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		reader.Wait()
		_ = cmd.Wait()
	})
	r.client, err = rawclient.NewClientWithResponses(<-url, rawclient.WithRequestEditorFn(func(_ context.Context, req *http.Request) error {
		req.Header.Set("Authorization", "Bearer "+token)
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// kill ends the process without a graceful shutdown.
func (r *replica) kill(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
}

func TestConcurrentMigrateAppliesEachMigrationOnce(t *testing.T) {
	t.Parallel()
	db := storetest.NewEmpty(t)
	if out, err := program([]string{"serve"}, "DATABASE_URL="+db.URL(), "REDIS_URL=redis://", "CARACAL_MODE=dev", "ZONE_KEK="+streamKey).CombinedOutput(); err == nil || !strings.Contains(string(out), "caracald migrate") {
		t.Errorf("serve without a schema: %v\n%s", err, out)
	}
	applied := make(chan int, 4)
	var all sync.WaitGroup
	for range cap(applied) {
		all.Go(func() {
			out, err := program([]string{"migrate"}, "CARACAL_MIGRATE_URL="+db.OwnerURL()).Output()
			if err != nil {
				t.Errorf("migrate: %v", err)
			}
			applied <- strings.Count(string(out), "applied ")
		})
	}
	all.Wait()
	close(applied)
	appliers := 0
	for n := range applied {
		if n > 0 {
			appliers++
		}
	}
	if appliers != 1 {
		t.Errorf("%d processes applied migrations, want 1", appliers)
	}
	db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)")
	if out, err := program([]string{"serve"}, "DATABASE_URL="+db.URL(), "REDIS_URL=redis://", "CARACAL_MODE=dev", "ZONE_KEK="+streamKey).CombinedOutput(); err == nil || !strings.Contains(string(out), "newer caracald") {
		t.Errorf("serve on a newer schema: %v\n%s", err, out)
	}
}

// Row-level security does not apply to a superuser.
func TestServeFailsAsSuperuser(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	url := strings.Replace(db.URL(), "caracal_service", "postgres", 1)
	out, err := program([]string{"serve"}, "DATABASE_URL="+url, "REDIS_URL=redis://", "CARACAL_MODE=dev", "ZONE_KEK="+streamKey).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "row-level security does not apply to the role postgres") {
		t.Errorf("serve as superuser: %v\n%s", err, out)
	}
}

// The service trusts the authorities in SSL_CERT_FILE, and then publishes through TLS.
func TestServeTrustsCertificateFile(t *testing.T) {
	t.Parallel()
	_, addr, certFile := storetest.StartTLSRedis(t)
	db := storetest.New(t)
	lines := make(chan string, 1000)
	startReplica(t, func(_, line string) { lines <- line }, append(settingsOf(db, "rediss://"+addr), "SSL_CERT_FILE="+certFile))
	for line := range lines {
		if strings.Contains(line, `"msg":"redis `) {
			if !strings.Contains(line, `"msg":"redis available"`) {
				t.Errorf("the log has %s", line)
			}
			break
		}
	}
	event := db.Event("zone", "caracal.policy.invalidate")
	for deadline := time.Now().Add(15 * time.Second); !storetest.Value[bool](db, "SELECT dispatched_at IS NOT NULL FROM outbox WHERE id = $1", event); {
		if time.Now().After(deadline) {
			t.Fatal("the event was not published")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Two replicas are killed several times while clients make changes that publish
// events. The events of all acknowledged changes are published, in order.
func TestKilledReplicasLoseNoEvent(t *testing.T) {
	t.Parallel()
	const zones, kills = 3, 6
	db, redisURL := storetest.New(t), storetest.RedisURL(t)
	start := func() *replica { return startReplica(t, func(string, string) {}, settingsOf(db, redisURL)) }
	replicas := []*replica{start(), start()}
	var mu sync.Mutex
	pick := func(n int) *rawclient.ClientWithResponses {
		mu.Lock()
		defer mu.Unlock()
		return replicas[n%len(replicas)].client
	}
	ctx, stop := context.WithCancel(t.Context())
	var acknowledged sync.Map // session id -> true
	var load sync.WaitGroup
	for z := range zones {
		created, err := pick(0).CreateZoneWithResponse(t.Context(), client.NewZone{Name: "Zone"})
		if err != nil {
			t.Fatal(err)
		}
		zone := created.JSON201.ID
		load.Go(func() {
			for n := z; ctx.Err() == nil; n++ {
				application, err := pick(n).CreateApplicationWithResponse(ctx, zone, client.NewApplication{Name: "x", RegistrationMethod: "managed"})
				if err != nil || application.JSON201 == nil {
					continue // the replica was killed: nothing was acknowledged
				}
				session := db.ApplicationSession(zone, application.JSON201.ID)
				deleted, err := pick(n+1).DeleteApplicationWithResponse(ctx, zone, application.JSON201.ID, nil)
				if err == nil && deleted.StatusCode() == http.StatusNoContent {
					acknowledged.Store(session, true)
				}
			}
		})
	}
	for n := range kills {
		time.Sleep(time.Duration(50+40*n) * time.Millisecond) // at an arbitrary moment
		replicas[n%2].kill(t)
		replacement := start()
		mu.Lock()
		replicas[n%2] = replacement
		mu.Unlock()
	}
	stop()
	load.Wait()
	deadline := time.Now().Add(20 * time.Second)
	for storetest.Value[int](db, "SELECT count(*) FROM outbox WHERE dispatched_at IS NULL") > 0 {
		if time.Now().After(deadline) {
			t.Fatal("some events were not published within 20 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	// SIGTERM shuts the replicas down gracefully.
	for _, r := range replicas {
		if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := r.cmd.Wait(); err != nil {
			t.Errorf("SIGTERM: %v", err)
		}
	}

	options, err := redis.ParseURL(redisURL)
	if err != nil {
		t.Fatal(err)
	}
	streams := redis.NewClient(options)
	defer streams.Close()
	entries, err := streams.XRange(t.Context(), "caracal.sessions.revoke", "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	first := map[string][]string{} // zone -> outbox ids, in the order of their first delivery
	received := map[string]bool{}  // sessions
	for _, e := range entries {
		zone, id := e.Values["zone_id"].(string), e.Values["outbox_id"].(string)
		if !slices.Contains(first[zone], id) {
			first[zone] = append(first[zone], id)
		}
		received[e.Values["session_id"].(string)] = true
	}
	lost, count := 0, 0
	acknowledged.Range(func(session, _ any) bool {
		count++
		if !received[session.(string)] {
			lost++
		}
		return true
	})
	if lost > 0 || count == 0 {
		t.Errorf("%d of %d acknowledged events were not published", lost, count)
	}
	for zone, got := range first {
		want := storetest.Column[string](db, "SELECT id FROM outbox WHERE zone_id = $1 ORDER BY seq", zone)
		if !slices.Equal(got, want) {
			t.Errorf("zone %s: the %d published events are not in the order of the %d committed ones", zone, len(got), len(want))
		}
	}
	t.Logf("%d acknowledged events, %d entries in the stream, %d kills", count, len(entries), kills)
}
