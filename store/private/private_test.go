//go:build linux

package private_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"caracal.run/management/store/private"
)

func TestMain(m *testing.M) {
	switch os.Getenv("PRIVATE_TEST_HELPER") {
	case "":
	case "install":
		installHelper()
		return
	default:
		helper()
		return
	}
	code := m.Run()
	stacks := make([]byte, 1<<20)
	if stacks = stacks[:runtime.Stack(stacks, true)]; strings.Contains(string(stacks), "private.(*Process)") {
		fmt.Printf("goroutines left by the tests:\n%s", stacks)
		code = 1
	}
	os.Exit(code)
}

// helper starts servers and then waits until a test kills it.
func helper() {
	s, err := private.Start(context.Background(), private.Options{Dir: os.Getenv("PRIVATE_TEST_DIR")})
	if err == nil && os.Getenv("PRIVATE_TEST_HELPER") == "paused" {
		err = errors.Join(s.Postgres().Pause(), s.Redis().Pause())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("%s\n%s\n%s\n", s.Dir(), s.PostgresURL(private.Owner, "caracal"), s.RedisURL())
	io.Copy(io.Discard, os.Stdin)
}

// startHelper returns the lines that the helper prints, and a function that kills
// it.
func startHelper(t *testing.T, mode, dir string) (out [3]string, kill func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "PRIVATE_TEST_HELPER="+mode, "PRIVATE_TEST_DIR="+dir)
	cmd.Stderr = os.Stderr
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		cmd.Process.Kill()
		cmd.Wait()
		stdin.Close()
	}
	t.Cleanup(kill)
	lines := bufio.NewScanner(stdout)
	for i := range out {
		if !lines.Scan() {
			t.Fatalf("the helper did not start: %q", out)
		}
		out[i] = lines.Text()
	}
	return out, kill
}

func start(t *testing.T, dir string) *private.Servers {
	t.Helper()
	s, err := private.Start(t.Context(), private.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *private.Servers) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

// dataDir returns a path for a data folder that the servers can enter also if the
// test runs as root. Other users cannot enter the parent of t.TempDir.
func dataDir(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

func connect(t *testing.T, s *private.Servers, role string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.PostgresURL(role, "caracal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func query(t *testing.T, conn *pgx.Conn, sql string) (out string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql).Scan(&out); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

func redisClient(t *testing.T, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	options.MaxRetries, options.DialerRetries, options.ContextTimeoutEnabled = -1, 1, true
	client := redis.NewClient(options)
	t.Cleanup(func() { client.Close() })
	return client
}

// mark writes a value to both servers; checkMark reads it.
func mark(t *testing.T, s *private.Servers) {
	t.Helper()
	if _, err := connect(t, s, private.Owner).Exec(t.Context(), "CREATE TABLE mark AS SELECT 'kept' AS word"); err != nil {
		t.Fatal(err)
	}
	if err := redisClient(t, s.RedisURL()).Set(t.Context(), "mark", "kept", 0).Err(); err != nil {
		t.Fatal(err)
	}
}

func checkMark(t *testing.T, s *private.Servers) {
	t.Helper()
	if got := query(t, connect(t, s, private.Owner), "SELECT word FROM mark"); got != "kept" {
		t.Errorf("Postgres has %q", got)
	}
	if got, err := redisClient(t, s.RedisURL()).Get(t.Context(), "mark").Result(); err != nil || got != "kept" {
		t.Errorf("Redis has %q, %v", got, err)
	}
}

func checkRemoved(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s was not removed (%v)", path, err)
	}
}

func TestEphemeralFolder(t *testing.T) {
	t.Parallel()
	s := start(t, "")
	roles := map[string]string{
		private.Owner:   "login createdb createrole owner",
		private.Service: "login",
	}
	for role, want := range roles {
		got := query(t, connect(t, s, role), `SELECT concat_ws(' ',
			CASE WHEN rolsuper THEN 'super' END, CASE WHEN rolcanlogin THEN 'login' END,
			CASE WHEN rolcreatedb THEN 'createdb' END, CASE WHEN rolcreaterole THEN 'createrole' END,
			(SELECT 'owner' FROM pg_database WHERE datname = current_database() AND datdba = r.oid))
			FROM pg_roles r WHERE rolname = current_user`)
		if got != want {
			t.Errorf("%s is %q, want %q", role, got, want)
		}
	}
	if err := redisClient(t, s.RedisURL()).Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
	stop(t, s)
	stop(t, s)
	checkRemoved(t, s.Dir())
	if err := s.Postgres().Restart(t.Context()); err == nil {
		t.Error("Postgres restarted after Stop")
	}
}

func TestStopKeepsDataInPersistentFolder(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"data", strings.Repeat("long and, \"odd\" ", 7)} {
		dir := dataDir(t, name)
		first := start(t, dir)
		mark(t, first)
		stop(t, first)
		second := start(t, dir)
		checkMark(t, second)
		stop(t, second)
	}
}

func TestStartFailsIfTheFolderIsInUse(t *testing.T) {
	t.Parallel()
	s := start(t, dataDir(t, "data"))
	_, err := private.Start(t.Context(), private.Options{Dir: s.Dir()})
	want := fmt.Sprintf("%s is in use by another caracald (pid %d)", s.Dir(), os.Getpid())
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	mark(t, s)
	checkMark(t, s)
}

func TestServersStopWhenProgramIsKilled(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"running", "paused"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			out, kill := startHelper(t, mode, "")
			dir, err := os.Open(out[0])
			if err != nil {
				t.Fatal(err)
			}
			kill()
			// Every server holds this lock: it is free when all have ended.
			if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			if conn, err := pgx.Connect(t.Context(), out[1]); err == nil {
				conn.Close(t.Context())
				t.Error("Postgres still accepts connections")
			}
			client := redisClient(t, out[2])
			if client.Ping(t.Context()).Err() == nil {
				t.Error("Redis still replies")
			}
			dir.Close()
			start(t, "")
			checkRemoved(t, out[0])
		})
	}
}

func TestStartAfterTheProgramWasKilled(t *testing.T) {
	t.Parallel()
	dir := dataDir(t, "data")
	_, kill := startHelper(t, "running", dir)
	kill()
	s := start(t, dir)
	mark(t, s)
	stop(t, s)

	// The pid of the killed Postgres may belong to another program by now.
	other := exec.Command("cat")
	stdin, err := other.StdinPipe()
	if err := errors.Join(err, other.Start()); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer stdin.Close()
	pidFile := filepath.Join(dir, "postgres", "postmaster.pid")
	if err := os.WriteFile(pidFile, fmt.Appendln(nil, other.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	checkMark(t, start(t, dir))
}

// Each start is canceled at a step that no start before it has reached. The next
// start continues from there.
func TestStartContinuesAfterCanceledStart(t *testing.T) {
	t.Parallel()
	dir := dataDir(t, "data")
	canceled := map[string]bool{} // steps
	for {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := private.Start(ctx, private.Options{Dir: dir, Log: func(step string) {
			if !canceled[step] {
				canceled[step] = true
				cancel()
			}
		}})
		cancel()
		if err == nil {
			mark(t, s)
			stop(t, s)
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("after the steps %v: %v", canceled, err)
		}
	}
	if len(canceled) != 5 { // the cluster, the servers, two roles, the database
		t.Errorf("the steps were %v", canceled)
	}
}

func TestStartQuotesTheLogOfAServerThatExits(t *testing.T) {
	t.Parallel()
	dir := dataDir(t, "data")
	stop(t, start(t, dir))
	if err := os.WriteFile(filepath.Join(dir, "postgres", "postgresql.auto.conf"), []byte("no_such_setting = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := private.Start(t.Context(), private.Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), `unrecognized configuration parameter "no_such_setting"`) {
		t.Errorf("got %v, want the end of Postgres's log", err)
	}
}

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	s := start(t, dataDir(t, "data"))
	mark(t, s)
	conn, client := connect(t, s, private.Service), redisClient(t, s.RedisURL())
	if err := errors.Join(s.Postgres().Kill(), s.Redis().Kill()); err != nil {
		t.Fatal(err)
	}
	if conn.Ping(t.Context()) == nil || client.Ping(t.Context()).Err() == nil {
		t.Error("a killed server replied")
	}
	for range 2 { // killed servers, then running ones
		if err := errors.Join(s.Postgres().Restart(t.Context()), s.Redis().Restart(t.Context())); err != nil {
			t.Fatal(err)
		}
		checkMark(t, s)
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	s := start(t, "")
	mark(t, s)
	conn, client := connect(t, s, private.Service), redisClient(t, s.RedisURL())
	if err := errors.Join(conn.Ping(t.Context()), client.Ping(t.Context()).Err()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Postgres().Pause(), s.Redis().Pause()); err != nil {
		t.Fatal(err)
	}
	brief, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if conn.Ping(brief) == nil || client.Ping(brief).Err() == nil {
		t.Error("a paused server replied on an open connection")
	}
	s.Postgres().Resume()
	s.Redis().Resume()
	checkMark(t, s)

	// A paused server can be killed, restarted and stopped too.
	if err := errors.Join(s.Postgres().Pause(), s.Postgres().Restart(t.Context()), s.Redis().Pause(), s.Redis().Kill(),
		s.Redis().Restart(t.Context()), s.Postgres().Pause(), s.Redis().Pause()); err != nil {
		t.Fatal(err)
	}
}

// If the tests run as root, TestAsRoot checks the error for a folder that the
// servers cannot enter, and runs some of the other tests as an ordinary user.
func TestAsRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return
	}
	_, err := private.Start(t.Context(), private.Options{Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "choose a folder whose parents that user may enter") {
		t.Errorf("in a folder that other users cannot enter: %v", err)
	}

	account, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.Atoi(account.Uid)
	gid, err2 := strconv.Atoi(account.Gid)
	home := dataDir(t, "home")
	if err := errors.Join(err1, err2, os.Mkdir(home, 0o700), os.Chown(home, uid, gid)); err != nil {
		t.Fatal(err)
	}
	tests := []string{"TestEphemeralFolder", "TestStartAfterTheProgramWasKilled", "TestPauseAndResume"}
	// This path works even if the user cannot enter the binary's folder.
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^("+strings.Join(tests, "|")+")$")
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	out, err := cmd.CombinedOutput()
	for _, name := range tests {
		if err != nil || !strings.Contains(string(out), "--- PASS: "+name) {
			t.Errorf("%s as %s: %v\n%s", name, account.Username, err, out)
		}
	}
}
