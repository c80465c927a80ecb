//go:build faults

package faults_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store"
	"caracal.run/management/store/private"
)

// startPgBouncer starts a PgBouncer in front of the Postgres of the backends, and
// returns the URL of the database through it. Its settings are the defaults of the
// package, but for the pool mode and the size of the pool.
func (b *backends) startPgBouncer(mode string, poolSize int) string {
	b.t.Helper()
	direct, err := url.Parse(b.servers.PostgresURL(private.Service, "caracal"))
	if err != nil {
		b.t.Fatal(err)
	}
	sockets := direct.Query().Get("host")
	dir, err := os.MkdirTemp("", "pgbouncer")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	port := freePort(b.t)
	users, config := filepath.Join(dir, "users.txt"), filepath.Join(dir, "pgbouncer.ini")
	for file, text := range map[string]string{
		users: fmt.Sprintf("%q \"\"\n%q \"\"\n", private.Service, private.Owner),
		config: fmt.Sprintf(`[databases]
caracal = host=%s port=5432
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = %s
default_pool_size = %d
`, sockets, port, users, mode, poolSize),
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(installed(b.t, "pgbouncer"), config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 { // it does not run as root: run it as the user that Postgres runs as
		info, err := os.Stat(sockets)
		if err != nil {
			b.t.Fatal(err)
		}
		owner := info.Sys().(*syscall.Stat_t)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	startServer(b.t, cmd, address)
	return "postgres://" + private.Service + "@" + address + "/caracal?sslmode=disable"
}

// Behind PgBouncer, two replicas work as without it: one of them publishes, the other
// takes over when it is killed, a revoked token is refused by both, and no caller sees
// another zone although callers share server connections.
func TestServesBehindPgBouncer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode     string
		poolSize int // in transaction mode fewer than the replicas have connections
	}{
		{"transaction", 6},
		{"session", 3 * (poolMax + 2)},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			t.Parallel()
			b := newBackends(t)
			database := "DATABASE_URL=" + b.startPgBouncer(tt.mode, tt.poolSize)
			one, two := b.start("one", database), b.start("two", database)
			servertest.Smoke(t, one.url, token)
			servertest.Smoke(t, two.url, token)
			var replicas replicaSet
			replicas.add(one.url)
			replicas.add(two.url)
			l := b.startLoad(steadyInterval, replicas.next)
			checkOneLeader(t, one, two)
			checkRevocation(t, one, two)
			checkIsolation(t, one, two)

			leader, other := one, two
			if two.metric("caracal_api_outbox_leader") == 1 {
				leader, other = two, one
			}
			l.allowKills()
			leader.kill()
			replicas.remove(leader.url)
			takeover := eventually(t, 5*time.Second, "the other replica leads", func() bool { return other.metric("caracal_api_outbox_leader") == 1 })
			third := b.start("third", database)
			replicas.add(third.url)
			l.waitRecovered(5 * time.Second)
			l.runFor(300 * time.Millisecond)
			other.terminate()
			replicas.remove(other.url)
			handover := eventually(t, 5*time.Second, "the third replica leads", func() bool { return third.metric("caracal_api_outbox_leader") == 1 })
			l.waitRecovered(5 * time.Second)
			l.runFor(300 * time.Millisecond)
			l.stop()
			if status, body := third.get("/ready"); status != http.StatusOK || !strings.Contains(body, `"outbox":"ok"`) {
				t.Errorf("/ready returned %d %s", status, body)
			}
			b.waitIdle(third)
			b.checkInvariants(l)
			third.terminate()
			t.Logf("taken over after %v, handed over after %v", takeover.Round(time.Millisecond), handover.Round(time.Millisecond))
		})
	}
}

func checkOneLeader(t *testing.T, services ...*service) {
	t.Helper()
	for range 20 {
		sum := 0.
		for _, s := range services {
			sum += s.metric("caracal_api_outbox_leader")
		}
		if sum != 1 {
			t.Errorf("%v leaders, want 1", sum)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// checkRevocation checks that a token is refused by the replica that revokes it at
// once, and by the other one within a second.
func checkRevocation(t *testing.T, one, other *service) {
	t.Helper()
	ctx := context.Background()
	admin := newClient(t, one.url, token)
	created, err := admin.CreateAdminToken(ctx, client.NewAdminToken{Name: "to be revoked", Scope: client.AdminTokenScopeGlobal})
	if err != nil {
		t.Fatal(err)
	}
	at := func(s *service) error {
		_, err := newClient(t, s.url, created.Token).ListZones(ctx)
		return err
	}
	for range 10 { // cached by both
		for _, s := range []*service{one, other} {
			if err := at(s); err != nil {
				t.Fatalf("%s refuses an active token: %v", s.name, err)
			}
		}
	}
	if err := admin.DeleteAdminToken(ctx, created.ID); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	if at(one) == nil {
		t.Errorf("%s accepts the token that it has revoked", one.name)
	}
	eventually(t, time.Second+time.Second/2, other.name+" refuses the token", func() bool { return at(other) != nil })
	t.Logf("the other replica refuses a revoked token after %v", time.Since(revoked).Round(time.Millisecond))
}

// checkIsolation reads with the tokens of several zones at the same time: each sees
// its own zone only.
func checkIsolation(t *testing.T, services ...*service) {
	t.Helper()
	const zones, reads = 4, 60
	ctx := context.Background()
	admin := newClient(t, services[0].url, token)
	ids, tokens := make([]string, zones), make([]string, zones)
	for i := range zones {
		zone, err := admin.CreateZone(ctx, client.NewZone{Name: fmt.Sprint("Zone ", i)})
		if err != nil {
			t.Fatal(err)
		}
		created, err := admin.CreateAdminToken(ctx, client.NewAdminToken{Name: "reader", Scope: client.AdminTokenScopeZone, ZoneID: &zone.ID})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := admin.CreateApplication(ctx, zone.ID, client.NewApplication{Name: zone.ID, RegistrationMethod: "managed"}); err != nil {
			t.Fatal(err)
		}
		ids[i], tokens[i] = zone.ID, created.Token
	}
	var readers sync.WaitGroup
	for i := range zones {
		for _, s := range services {
			readers.Go(func() {
				c := newClient(t, s.url, tokens[i])
				for range reads {
					page, err := c.ListApplications(ctx, ids[i])
					if err != nil || len(page.Items) != 1 || page.Items[0].Name != ids[i] {
						t.Errorf("the token of zone %s sees %v, %v", ids[i], page, err)
						return
					}
					if _, err := c.GetZone(ctx, ids[(i+1)%zones]); err == nil {
						t.Errorf("the token of zone %s reads another zone", ids[i])
						return
					}
				}
			})
		}
	}
	readers.Wait()
}

func newClient(t *testing.T, url, token string) *client.Client {
	t.Helper()
	c, err := client.New(url, token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Every way in which pgx can execute statements works, or the service does not start
// and says what to change.
func TestQueryExecModesWorkOrAreRefused(t *testing.T) {
	t.Parallel()
	b := newBackends(t)
	direct, pooled := b.servers.PostgresURL(private.Service, "caracal"), b.startPgBouncer("transaction", 4)
	for _, tt := range []struct {
		url, mode  string
		startError string
	}{
		{direct, "cache_statement", ""},
		{direct, "cache_describe", ""},
		{direct, "describe_exec", ""},
		{direct, "exec", "must be cache_statement, cache_describe or describe_exec"},
		{direct, "simple_protocol", "must be cache_statement, cache_describe or describe_exec"},
		{pooled, "cache_statement", "does not keep prepared statements"},
		{pooled, "cache_describe", ""},
		{pooled, "describe_exec", ""},
		{pooled, "exec", "must be cache_statement, cache_describe or describe_exec"},
	} {
		name := "direct"
		if tt.url == pooled {
			name = "PgBouncer"
		}
		t.Run(name+"/"+tt.mode, func(t *testing.T) {
			s, serving := b.spawn("api", "DATABASE_URL="+tt.url+"&default_query_exec_mode="+tt.mode)
			select {
			case <-serving:
				if tt.startError != "" {
					t.Fatalf("it serves, want a start error with %q", tt.startError)
				}
				servertest.Smoke(t, s.url, token)
				s.terminate()
			case <-s.logDone:
				s.mu.Lock()
				defer s.mu.Unlock()
				if log := strings.Join(s.recentLog, "\n"); tt.startError == "" || !strings.Contains(log, tt.startError) {
					t.Fatalf("it exits with %s, want %q", log, tt.startError)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("it neither serves nor exits")
			}
		})
	}
}

// Migrations hold a lock of the session, so they need a direct connection.
func TestMigrateRefusesPooler(t *testing.T) {
	t.Parallel()
	b := newBackends(t)
	for _, mode := range []string{"transaction", "session"} {
		pooled := strings.Replace(b.startPgBouncer(mode, 4), private.Service, private.Owner, 1)
		err := store.Migrate(t.Context(), pooled, func(string) {})
		if err == nil || !strings.Contains(err.Error(), "must connect to Postgres directly") {
			t.Errorf("through a pool in %s mode: %v", mode, err)
		}
	}
}
