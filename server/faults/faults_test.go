//go:build faults

// Package faults_test breaks what the service stands on, and holds it to its
// promises: whatever it accepted is there, once, with its record; what others
// must hear is heard at least once and in order; who is refused is told so soon
// and properly; and everything works again by itself, with nothing left over.
//
// Each test has a Postgres and a Redis of its own to hurt. The service is a
// process of its own: the test binary, started again as caracald. So it can be
// killed, and what it holds can be counted, whatever else runs here.
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

// What the service is told of time, so that a test need not wait long.
const (
	connectTimeout   = time.Second
	statementTimeout = 2 * time.Second
	idleInTxTimeout  = 2 * time.Second
	// bound is how long any request may take, whatever is broken: as long as a
	// connection and a statement, on a machine that has other things to do.
	bound = connectTimeout + statementTimeout + 3*time.Second/2
)

func TestMain(m *testing.M) {
	if os.Getenv("FAULTS_TEST_IS_CARACALD") != "" {
		os.Exit(caracald())
	}
	// Many callers at once, each on a connection that it keeps.
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 64
	// The tests wait more than they work, whatever the machine has.
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", "3")
	}
	os.Exit(m.Run())
}

// caracald is `caracald serve` with a window: on an address of its own it says
// which goroutines there are.
func caracald() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	window, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Error("no window", "error", err)
		return 1
	}
	go func() {
		_ = http.Serve(window, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = pprof.Lookup("goroutine").WriteTo(w, 1)
		}))
	}()
	log.Info("window", "url", "http://"+window.Addr().String())
	config, err := server.LoadConfig(os.Environ())
	if err == nil {
		err = server.Run(ctx, config, log)
	}
	if err != nil {
		log.Error("ended", "error", err)
		return 1
	}
	return 0
}

// A world is a Postgres, a Redis, and the owner's eyes.
type world struct {
	t       *testing.T
	servers *private.Servers
	owner   *pgxpool.Pool
}

// newWorld is a world in RAM. What Postgres commits there survives its death,
// though not that of the machine; what Redis holds dies with it.
func newWorld(t *testing.T) *world { return worldIn(t, private.Options{}) }

func worldIn(t *testing.T, o private.Options) *world {
	t.Helper()
	servers, err := private.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, servers: servers}
	t.Cleanup(func() {
		if err := servers.Stop(); err != nil {
			t.Errorf("stopping the servers: %v", err)
		}
	})
	if err := store.Migrate(t.Context(), servers.PostgresURL(private.Owner, "caracal"), func(string) {}); err != nil {
		t.Fatal(err)
	}
	// A throw-away Postgres does not wait for its log. Here a commit is a promise.
	w.superuser("ALTER DATABASE caracal SET synchronous_commit = on")
	config, err := pgxpool.ParseConfig(servers.PostgresURL(private.Owner, "caracal"))
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["caracal.zone_id"] = store.AllZones
	config.ConnConfig.ConnectTimeout = connectTimeout
	config.MaxConns = 8
	if w.owner, err = pgxpool.NewWithConfig(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.owner.Close)
	return w
}

// superuser runs statements one by one, outside any transaction.
func (w *world) superuser(statements ...string) {
	w.t.Helper()
	conn, err := pgx.Connect(context.Background(), w.servers.PostgresURL("postgres", "caracal"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, sql := range statements {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			w.t.Fatalf("%s: %v", sql, err)
		}
	}
}

// column is the values of a query, as the superuser sees it, in all zones.
func column[T any](w *world, sql string, args ...any) []T {
	w.t.Helper()
	all, err := tryColumn[T](w, sql, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return all
}

func tryColumn[T any](w *world, sql string, args ...any) ([]T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.servers.PostgresURL("postgres", "caracal"))
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

// A service is a caracald in a process of its own.
type service struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	url    string // empty if it ended before it served
	window string
	base   int // goroutines when it was idle and new
	stderr servertest.Log
	read   chan struct{} // closed when all it said was read

	mu     sync.Mutex
	logged map[string]int // request id -> status that was answered
	faults []string       // lines of its log that nobody may see
	latest []string       // of what else it said
	why    map[string]int // why it refused, and how often
}

// A line is what matters of one line of the log.
type line struct {
	Msg, URL, Level, Error, Cause string
	RequestID                     string `json:"request_id"`
	Status                        int
}

// spawn starts a service and does not wait until it serves.
func (w *world) spawn(name string, settings ...string) (s *service, serving <-chan struct{}) {
	w.t.Helper()
	s = &service{t: w.t, name: name, read: make(chan struct{}), logged: map[string]int{}, why: map[string]int{}}
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append([]string{
		"FAULTS_TEST_IS_CARACALD=1", "GORACE=atexit_sleep_ms=0", "CARACAL_MODE=dev", "PORT=0", "WORKER_ID=" + name,
		"DATABASE_URL=" + w.servers.PostgresURL(private.Service, "caracal"), "REDIS_URL=" + w.servers.RedisURL(),
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
		w.t.Fatal(err)
	}
	s.cmd.Stdout = in
	ready := make(chan struct{})
	if err := start(s.cmd); err != nil {
		w.t.Fatal(err)
	}
	_ = in.Close()
	go s.listen(out, ready)
	w.t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		<-s.read
		if w.t.Failed() {
			w.t.Logf("the last of %s:\n%s\n%s\nwhy it refused: %v", s.name, strings.Join(s.latest, "\n"), &s.stderr, s.why)
		}
	})
	return s, ready
}

// start starts a process from a thread that lasts: the kernel takes the end of
// the thread for the death of the parent.
func start(cmd *exec.Cmd) error {
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

// listen reads what the service says until it is gone.
func (s *service) listen(out io.ReadCloser, serving chan<- struct{}) {
	const latest = 20
	defer close(s.read)
	defer out.Close()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l line
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue // the last line of one that was killed
		}
		s.mu.Lock()
		switch {
		case l.Msg == "serving":
			s.url = l.URL
			close(serving)
		case l.Msg == "window":
			s.window = l.URL
		case l.Msg == "request":
			s.logged[l.RequestID] = l.Status
			if l.Status == http.StatusServiceUnavailable {
				s.why[fmt.Sprintf("%.200s", l.Cause)]++
			} else if l.Status >= 500 {
				s.faults = append(s.faults, lines.Text())
			}
		}
		if l.Msg != "request" {
			s.latest = append(s.latest, fmt.Sprintf("%.400s", lines.Text()))
			s.latest = s.latest[max(0, len(s.latest)-latest):]
		}
		s.mu.Unlock()
	}
}

// start starts a service, waits until it serves, and counts what an idle one
// holds.
func (w *world) start(name string, settings ...string) *service {
	w.t.Helper()
	s, serving := w.spawn(name, settings...)
	select {
	case <-serving:
	case <-s.read:
		w.t.Fatalf("%s ended: %s %s", name, strings.Join(s.latest, "\n"), &s.stderr)
	case <-time.After(30 * time.Second):
		w.t.Fatalf("%s does not serve", name)
	}
	if status, _ := s.get("/v1/zones"); status != http.StatusOK {
		w.t.Fatalf("%s answers %d", name, status)
	}
	s.base, _ = s.goroutines()
	return s
}

// get asks with a connection of its own.
func (s *service) get(path string) (status int, body string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
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

// goroutines is how many the service has, and which.
func (s *service) goroutines() (count int, all string) {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodGet, s.window, nil)
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

// metric is the value of a metric without labels; -1 if it is not there.
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

// terminate asks it to end, and wants it to end well.
func (s *service) terminate() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Error(err)
		return
	}
	s.ended()
}

// ended waits until it has ended well.
func (s *service) ended() {
	s.t.Helper()
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("%s ended with %v\n%s", s.name, err, &s.stderr)
	}
	<-s.read
	s.blameless()
}

// blameless fails if it answered with a fault of its own, raced or panicked.
func (s *service) blameless() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) > 0 {
		s.t.Errorf("%s answered %d times with a fault of its own, first: %s", s.name, len(s.faults), s.faults[0])
	}
	if text := s.stderr.String(); strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
		s.t.Errorf("%s says: %s", s.name, text)
	}
}

// kill ends it with no chance to say goodbye.
func (s *service) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Error(err)
	}
	_ = s.cmd.Wait()
	<-s.read
	s.blameless()
}

// eventually waits for something to be so, and says how long that took.
func eventually(t *testing.T, waitUntil time.Duration, what string, so func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !so() {
		if time.Since(began) > waitUntil {
			t.Errorf("not within %v: %s", waitUntil, what)
			break
		}
		time.Sleep(30 * time.Millisecond)
	}
	return time.Since(began)
}
