//go:build faults

// Package faults_test injects faults into Postgres, Redis, the network, the
// clock, the process and its clients, and checks the guarantees of the service:
// acknowledged changes are durable, applied once and audited; events are
// published at least once and in order; requests that fail do so quickly and
// with a proper error; the service recovers by itself and leaks nothing.
//
// Each test has its own Postgres and Redis. The service is a separate process:
// the test binary, started as caracald. So a test can kill it, and count its
// goroutines and connections.
package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"caracal.run/management/server"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store"
	"caracal.run/management/store/private"
)

const (
	token     = "a-bootstrap-token-of-the-tests"
	streamKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	poolMax   = 8
)

// Timeouts of the service: short, so that the tests are fast.
const (
	connectTimeout   = time.Second
	statementTimeout = 2 * time.Second
	idleInTxTimeout  = 2 * time.Second
	// maxRequestTime is the maximum duration of any request, whatever fails: the
	// time to connect and to run a statement, plus a margin for a busy machine.
	maxRequestTime = connectTimeout + statementTimeout + 3*time.Second/2
)

func TestMain(m *testing.M) {
	if os.Getenv("FAULTS_TEST_IS_CARACALD") != "" {
		os.Exit(caracald())
	}
	// Many concurrent callers, each with a keep-alive connection.
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 64
	// The tests mostly wait, so more of them than there are CPUs run in parallel.
	flag.Parse()
	isSet := false
	flag.Visit(func(f *flag.Flag) { isSet = isSet || f.Name == "test.parallel" })
	if !isSet {
		_ = flag.Set("test.parallel", "3")
	}
	os.Exit(m.Run())
}

// caracald is `caracald serve` with a debug server, which returns the goroutine
// profile. It logs its URL as "debug server".
func caracald() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	debug, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Error("no debug server", "error", err)
		return 1
	}
	go func() {
		_ = http.Serve(debug, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = pprof.Lookup("goroutine").WriteTo(w, 1)
		}))
	}()
	log.Info("debug server", "url", "http://"+debug.Addr().String())
	config, err := server.LoadConfig(os.Environ())
	if err == nil {
		err = server.Run(ctx, config, log)
	}
	if err != nil {
		log.Error("exiting", "error", err)
		return 1
	}
	return 0
}

// Backends are a private Postgres and Redis, and connections of the owner role,
// which sees all zones.
type backends struct {
	t       *testing.T
	servers *private.Servers
	owner   *pgxpool.Pool
}

// newBackends starts ephemeral backends, in RAM. What Postgres has committed
// survives the end of its process. The data of Redis does not.
func newBackends(t *testing.T) *backends { return newBackendsIn(t, private.Options{}) }

// newBackendsIn starts backends with options, and migrates the database.
func newBackendsIn(t *testing.T, o private.Options) *backends {
	t.Helper()
	servers, err := private.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	b := &backends{t: t, servers: servers}
	t.Cleanup(func() {
		if err := servers.Stop(); err != nil {
			t.Errorf("stopping the servers: %v", err)
		}
	})
	if err := store.Migrate(t.Context(), servers.PostgresURL(private.Owner, "caracal"), func(string) {}); err != nil {
		t.Fatal(err)
	}
	// An ephemeral Postgres does not wait for its log. Here a commit must be durable.
	b.superuser("ALTER DATABASE caracal SET synchronous_commit = on")
	config, err := pgxpool.ParseConfig(servers.PostgresURL(private.Owner, "caracal"))
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["caracal.zone_id"] = store.AllZones
	config.ConnConfig.ConnectTimeout = connectTimeout
	config.MaxConns = 8
	if b.owner, err = pgxpool.NewWithConfig(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.owner.Close)
	return b
}

// superuser runs statements one by one, outside of a transaction.
func (b *backends) superuser(statements ...string) {
	b.t.Helper()
	conn, err := pgx.Connect(context.Background(), b.servers.PostgresURL("postgres", "caracal"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, sql := range statements {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			b.t.Fatalf("%s: %v", sql, err)
		}
	}
}

// column returns the values of a query with one column, run as superuser.
func column[T any](b *backends, sql string, args ...any) []T {
	b.t.Helper()
	all, err := tryColumn[T](b, sql, args...)
	if err != nil {
		b.t.Fatalf("%s: %v", sql, err)
	}
	return all
}

// tryColumn is column for a database that may be unavailable.
func tryColumn[T any](b *backends, sql string, args ...any) ([]T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, b.servers.PostgresURL("postgres", "caracal"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}

// A service is a caracald process.
type service struct {
	t              *testing.T
	name           string
	cmd            *exec.Cmd
	url            string // empty if it exited before it served
	debugURL       string
	idleGoroutines int // after the start
	stderr         servertest.Log
	logDone        chan struct{} // closed when all of its output was read

	mu                sync.Mutex
	statuses          map[string]int // by request id
	serverErrors      []string       // log lines of requests with status 500 and above, except 503
	recentLog         []string       // other lines
	unavailableCauses map[string]int // causes of status 503, with their number
}

// A line has the attributes of a log line that the tests use.
type line struct {
	Msg, URL, Level, Error, Cause string
	RequestID                     string `json:"request_id"`
	Status                        int
}

// spawn starts a service. It does not wait until it serves.
func (b *backends) spawn(name string, settings ...string) (s *service, serving <-chan struct{}) {
	b.t.Helper()
	s = &service{t: b.t, name: name, logDone: make(chan struct{}), statuses: map[string]int{}, unavailableCauses: map[string]int{}}
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append([]string{
		"FAULTS_TEST_IS_CARACALD=1", "GORACE=atexit_sleep_ms=0", "CARACAL_MODE=dev", "PORT=0", "WORKER_ID=" + name,
		"DATABASE_URL=" + b.servers.PostgresURL(private.Service, "caracal"), "REDIS_URL=" + b.servers.RedisURL(),
		"CARACAL_ADMIN_TOKEN=" + token, "STREAMS_HMAC_KEY=" + streamKey, "ZONE_KEK=" + streamKey,
		"API_V1_RATE_LIMIT_PER_MIN=0", "READY_RATE_LIMIT_PER_MIN=0", "OUTBOX_BATCH_SIZE=50",
		fmt.Sprintf("DB_POOL_MAX=%d", poolMax),
		fmt.Sprintf("DB_CONNECTION_TIMEOUT_MS=%d", connectTimeout.Milliseconds()),
		fmt.Sprintf("DB_STATEMENT_TIMEOUT_MS=%d", statementTimeout.Milliseconds()),
		fmt.Sprintf("DB_IDLE_IN_TX_TIMEOUT_MS=%d", idleInTxTimeout.Milliseconds()),
	}, settings...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.cmd.Stderr = &s.stderr
	out, in, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	s.cmd.Stdout = in
	ready := make(chan struct{})
	if err := startProcess(s.cmd); err != nil {
		b.t.Fatal(err)
	}
	_ = in.Close()
	go s.readLog(out, ready)
	b.t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		<-s.logDone
		if b.t.Failed() {
			b.t.Logf("log of %s:\n%s\n%s\ncauses of status 503: %v", s.name, strings.Join(s.recentLog, "\n"), &s.stderr, s.unavailableCauses)
		}
	})
	return s, ready
}

// startProcess starts a process from a thread that does not end: the kernel treats the
// end of the thread as the end of the parent.
func startProcess(cmd *exec.Cmd) error {
	done := make(chan error)
	spawner <- func() { done <- cmd.Start() }
	return <-done
}

var spawner = func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
}()

// readLog reads the output of the service until it exits.
func (s *service) readLog(out io.ReadCloser, serving chan<- struct{}) {
	const latest = 20
	defer close(s.logDone)
	defer out.Close()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l line
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue // the last line of a killed process may be incomplete
		}
		s.mu.Lock()
		switch {
		case l.Msg == "serving":
			s.url = l.URL
			close(serving)
		case l.Msg == "debug server":
			s.debugURL = l.URL
		case l.Msg == "request":
			s.statuses[l.RequestID] = l.Status
			if l.Status == http.StatusServiceUnavailable {
				s.unavailableCauses[fmt.Sprintf("%.200s", l.Cause)]++
			} else if l.Status >= 500 {
				s.serverErrors = append(s.serverErrors, lines.Text())
			}
		}
		if l.Msg != "request" {
			s.recentLog = append(s.recentLog, fmt.Sprintf("%.400s", lines.Text()))
			s.recentLog = s.recentLog[max(0, len(s.recentLog)-latest):]
		}
		s.mu.Unlock()
	}
}

// start starts a service, waits until it serves, and counts its goroutines.
func (b *backends) start(name string, settings ...string) *service {
	b.t.Helper()
	s, serving := b.spawn(name, settings...)
	select {
	case <-serving:
	case <-s.logDone:
		b.t.Fatalf("%s exited: %s %s", name, strings.Join(s.recentLog, "\n"), &s.stderr)
	case <-time.After(2 * time.Minute): // with the race detector, several processes that start at once take long
		b.t.Fatalf("%s does not serve after 2 min", name)
	}
	if status, _ := s.get("/v1/zones"); status != http.StatusOK {
		b.t.Fatalf("%s returns %d", name, status)
	}
	s.idleGoroutines, _ = s.goroutines()
	return s
}

// get sends a GET request on a new connection. It returns status 0 and the error
// if there is no response.
func (s *service) get(path string) (status int, body string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), maxRequestTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// goroutines returns the number of goroutines of the service, and its profile.
func (s *service) goroutines() (count int, profile string) {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodGet, s.debugURL, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	_, _ = fmt.Sscanf(string(text), "goroutine profile: total %d", &count)
	return count, string(text)
}

// metric returns the value of a metric without labels, -1 if it is missing.
func (s *service) metric(name string) (value float64) {
	s.t.Helper()
	_, text := s.get("/metrics")
	for l := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(l, name+" "); found {
			if _, err := fmt.Sscan(rest, &value); err == nil {
				return value
			}
		}
	}
	return -1
}

// terminate sends SIGTERM and checks that the service exits without an error.
func (s *service) terminate() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Error(err)
		return
	}
	s.waitForExit()
}

// waitForExit waits until the service exits, and checks that it does without an
// error.
func (s *service) waitForExit() {
	s.t.Helper()
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("%s exited with %v\n%s", s.name, err, &s.stderr)
	}
	<-s.logDone
	s.checkNoErrors()
}

// checkNoErrors checks that the service returned no server errors except 503,
// and had no data race and no panic.
func (s *service) checkNoErrors() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.serverErrors) > 0 {
		s.t.Errorf("%s returned %d server errors, first: %s", s.name, len(s.serverErrors), s.serverErrors[0])
	}
	if text := s.stderr.String(); strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
		s.t.Errorf("%s wrote to stderr: %s", s.name, text)
	}
}

// kill ends the process without a graceful shutdown.
func (s *service) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Error(err)
	}
	_ = s.cmd.Wait()
	<-s.logDone
	s.checkNoErrors()
}

// eventually waits until a condition is true, and returns how long that took. The
// test fails if it takes longer than the timeout.
func eventually(t *testing.T, timeout time.Duration, condition string, isTrue func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !isTrue() {
		if time.Since(began) > timeout {
			t.Errorf("not true within %v: %s", timeout, condition)
			break
		}
		time.Sleep(30 * time.Millisecond)
	}
	return time.Since(began)
}
