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
		fmt.Printf("left behind by the tests:\n%s", stacks)
		code = 1
	}
	os.Exit(code)
}

// helper is a program that starts servers and is then killed by a test.
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

// startHelper returns what the helper prints, and a function that kills it.
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

// keptDir is a name for a folder that the servers can enter when we are root:
// what t.TempDir returns is in a folder closed to others.
func keptDir(t *testing.T, name string) string {
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

// mark leaves something in both servers; checkMark looks for it.
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

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there (%v)", path, err)
	}
}

func TestThrowAway(t *testing.T) {
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
	gone(t, s.Dir())
	if err := s.Postgres().Restart(t.Context()); err == nil {
		t.Error("Postgres restarts after Stop")
	}
}

func TestKeepsData(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"data", strings.Repeat("long and, \"odd\" ", 7)} {
		dir := keptDir(t, name)
		first := start(t, dir)
		mark(t, first)
		stop(t, first)
		isRetryable := start(t, dir)
		checkMark(t, isRetryable)
		stop(t, isRetryable)
	}
}

func TestInUse(t *testing.T) {
	t.Parallel()
	s := start(t, keptDir(t, "data"))
	_, err := private.Start(t.Context(), private.Options{Dir: s.Dir()})
	want := fmt.Sprintf("%s is in use by another caracald (pid %d)", s.Dir(), os.Getpid())
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	mark(t, s)
	checkMark(t, s)
}

func TestDieWithTheProgram(t *testing.T) {
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
			// Every server holds this lock, so to get it is to outlast them all.
			if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			if conn, err := pgx.Connect(t.Context(), out[1]); err == nil {
				conn.Close(t.Context())
				t.Error("Postgres still answers")
			}
			client := redisClient(t, out[2])
			if client.Ping(t.Context()).Err() == nil {
				t.Error("Redis still answers")
			}
			dir.Close()
			start(t, "")
			gone(t, out[0])
		})
	}
}

func TestStartsAfterKill(t *testing.T) {
	t.Parallel()
	dir := keptDir(t, "data")
	_, kill := startHelper(t, "running", dir)
	kill()
	s := start(t, dir)
	mark(t, s)
	stop(t, s)

	// The pid that was Postgres's may be another program's by now.
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

// TestCutShort ends a first start at each of its steps in turn; the next start
// takes up what is there.
func TestCutShort(t *testing.T) {
	t.Parallel()
	dir := keptDir(t, "data")
	cut := map[string]bool{}
	for {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := private.Start(ctx, private.Options{Dir: dir, Log: func(step string) {
			if !cut[step] {
				cut[step] = true
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
			t.Fatalf("after the steps %v: %v", cut, err)
		}
	}
	if len(cut) != 5 { // the cluster, the servers, two roles, the database
		t.Errorf("the steps were %v", cut)
	}
}

func TestExplainsExit(t *testing.T) {
	t.Parallel()
	dir := keptDir(t, "data")
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
	s := start(t, keptDir(t, "data"))
	mark(t, s)
	conn, client := connect(t, s, private.Service), redisClient(t, s.RedisURL())
	if err := errors.Join(s.Postgres().Kill(), s.Redis().Kill()); err != nil {
		t.Fatal(err)
	}
	if conn.Ping(t.Context()) == nil || client.Ping(t.Context()).Err() == nil {
		t.Error("a killed server answers")
	}
	for range 2 { // what is down comes up, and so does what is up
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
		t.Error("a paused server answers on an open connection")
	}
	s.Postgres().Resume()
	s.Redis().Resume()
	checkMark(t, s)

	// What is paused can be killed, restarted and stopped all the same.
	if err := errors.Join(s.Postgres().Pause(), s.Postgres().Restart(t.Context()), s.Redis().Pause(), s.Redis().Kill(),
		s.Redis().Restart(t.Context()), s.Postgres().Pause(), s.Redis().Pause()); err != nil {
		t.Fatal(err)
	}
}

// TestAsRoot checks what root is told of a folder the servers cannot enter, and
// runs other tests as an ordinary user. For who is one, they did run like that.
func TestAsRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return
	}
	_, err := private.Start(t.Context(), private.Options{Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "choose a folder whose parents that user may enter") {
		t.Errorf("in a folder closed to others: %v", err)
	}

	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.Atoi(nobody.Uid)
	gid, err2 := strconv.Atoi(nobody.Gid)
	home := keptDir(t, "home")
	if err := errors.Join(err1, err2, os.Mkdir(home, 0o700), os.Chown(home, uid, gid)); err != nil {
		t.Fatal(err)
	}
	// By this name the program runs even from where its user may not look.
	cmd := exec.Command("/proc/self/exe", "-test.run=TestThrowAway|TestStartsAfterKill|TestPauseAndResume")
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as %s: %v\n%s", nobody.Username, err, out)
	}
}
