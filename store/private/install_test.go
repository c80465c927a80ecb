//go:build linux

package private_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/store/private"
)

// installHelper is a process that installs what its PATH lacks. It prints each
// step, and the error if there is one.
func installHelper() {
	step := func(s string) { fmt.Println("step:", s) }
	err := private.Install(context.Background(), os.Getenv("PRIVATE_TEST_ROOT") != "", os.Getenv("PRIVATE_TEST_TERMINAL") != "", step)
	if err != nil {
		fmt.Println("error:", err)
	}
}

// Stubs of programs. They append their command lines to a file named calls.
const (
	postgresStub = "echo 'postgres (PostgreSQL) 17.2'"
	oldPostgres  = "echo 'postgres (PostgreSQL) 13.20'"
	redisStub    = "exit 0"
	sudoStub     = `echo "sudo $*" >>"$dir/calls"; [ "$1" != -n ] || shift; exec "$@"`
	sudoPassword = `echo "sudo: a password is required" >&2; exit 1`
	aptStub      = `echo "apt-get $* ($DEBIAN_FRONTEND)" >>"$dir/calls"
case "$*" in
*" postgresql"*) /bin/sleep 0.2; /bin/mv "$dir/later/initdb" "$dir/later/postgres" "$dir" ;;
esac
case "$*" in
*" redis-server"*) /bin/mv "$dir/later/redis-server" "$dir" ;;
esac`
	aptFails   = `[ "$1" = update ] || { echo "E: Unable to locate package" >&2; exit 100; }`
	aptDoesNot = "exit 0"
)

// newPATH returns a folder with only these programs. The folder later in it has
// those that aptStub installs.
func newPATH(t *testing.T, programs map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, script string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\ndir='"+dir+"'\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "later"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{"initdb": "exit 0", "postgres": postgresStub, "redis-server": redisStub} {
		write(filepath.Join("later", name), script)
	}
	write("env", `exec /usr/bin/env "$@"`)
	for name, script := range programs {
		write(name, script)
	}
	return dir
}

// install runs installHelper on a PATH and returns what it prints.
func install(t *testing.T, path string, environ ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(environ, "PATH="+path, "PRIVATE_TEST_HELPER=install")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return string(out)
}

func calls(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path, "calls"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.FieldsFunc(strings.ReplaceAll(string(text), path+"/", ""), func(r rune) bool { return r == '\n' })
}

func TestInstall(t *testing.T) {
	t.Parallel()
	const (
		update  = "apt-get update -qq ()"
		options = "-y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "
		both    = "step: installing postgresql and redis-server with apt-get…\n"
	)
	for _, tt := range []struct {
		name     string
		programs map[string]string
		environ  []string
		want     string // all that is printed
		calls    []string
	}{
		{
			"nothing is missing", map[string]string{"initdb": "", "postgres": postgresStub, "redis-server": redisStub, "apt-get": aptStub, "sudo": sudoStub},
			nil, "", nil,
		},
		{
			"as root", map[string]string{"apt-get": aptStub}, []string{"PRIVATE_TEST_ROOT=1"}, both,
			[]string{update, "apt-get install " + options + "postgresql redis-server (noninteractive)"},
		},
		{
			"only Redis", map[string]string{"initdb": "", "postgres": postgresStub, "apt-get": aptStub}, []string{"PRIVATE_TEST_ROOT=1"},
			"step: installing redis-server with apt-get…\n",
			[]string{update, "apt-get install " + options + "redis-server (noninteractive)"},
		},
		{
			"only Postgres", map[string]string{"redis-server": redisStub, "apt-get": aptStub}, []string{"PRIVATE_TEST_ROOT=1"},
			"step: installing postgresql with apt-get…\n",
			[]string{update, "apt-get install " + options + "postgresql (noninteractive)"},
		},
		{
			"a Postgres that is too old", map[string]string{"initdb": "", "postgres": oldPostgres, "redis-server": redisStub, "apt-get": aptStub},
			[]string{"PRIVATE_TEST_ROOT=1"}, "step: installing postgresql with apt-get…\n",
			[]string{update, "apt-get install " + options + "postgresql (noninteractive)"},
		},
		{
			"through sudo", map[string]string{"apt-get": aptStub, "sudo": sudoStub}, nil, both,
			[]string{
				"sudo -n apt-get update -qq", update,
				"sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install " + options + "postgresql redis-server",
				"apt-get install " + options + "postgresql redis-server (noninteractive)",
			},
		},
		{
			"through sudo in a terminal", map[string]string{"apt-get": aptStub, "sudo": sudoStub}, []string{"PRIVATE_TEST_TERMINAL=1"}, both,
			[]string{
				"sudo apt-get update -qq", update,
				"sudo env DEBIAN_FRONTEND=noninteractive apt-get install " + options + "postgresql redis-server",
				"apt-get install " + options + "postgresql redis-server (noninteractive)",
			},
		},
		{
			"sudo requires a password", map[string]string{"apt-get": aptStub, "sudo": sudoPassword}, nil,
			both + "error: installing postgresql and redis-server: sudo -n apt-get update -qq: exit status 1\nsudo: a password is required\n" +
				"To install by hand, run `apt-get install postgresql redis-server` as root, or install Postgres 15 or later and Redis 7 or later, with initdb and redis-server on PATH\n",
			nil,
		},
		{
			"neither root nor sudo", map[string]string{"apt-get": aptStub}, nil,
			"error: postgresql and redis-server not found, and installing them requires root or sudo: run `apt-get install postgresql redis-server` as root, " +
				"or install Postgres 15 or later and Redis 7 or later, with initdb and redis-server on PATH\n",
			nil,
		},
		{
			"no apt-get", map[string]string{"sudo": sudoStub}, []string{"PRIVATE_TEST_ROOT=1"},
			"error: postgresql and redis-server not found, and there is no apt-get to install them with: " +
				"install Postgres 15 or later and Redis 7 or later, with initdb and redis-server on PATH\n",
			nil,
		},
		{
			"apt-get fails", map[string]string{"apt-get": aptFails}, []string{"PRIVATE_TEST_ROOT=1"},
			both + "error: installing postgresql and redis-server: env DEBIAN_FRONTEND=noninteractive apt-get install " + options + "postgresql redis-server: exit status 100\n" +
				"E: Unable to locate package\n" +
				"To install by hand, run `apt-get install postgresql redis-server` as root, or install Postgres 15 or later and Redis 7 or later, with initdb and redis-server on PATH\n",
			nil,
		},
		{
			"apt-get installs something else", map[string]string{"apt-get": aptDoesNot, "redis-server": redisStub}, []string{"PRIVATE_TEST_ROOT=1"},
			"step: installing postgresql with apt-get…\nerror: postgresql not found after apt-get install: " +
				"install Postgres 15 or later and Redis 7 or later, with initdb and redis-server on PATH\n",
			nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := newPATH(t, tt.programs)
			if got := strings.ReplaceAll(install(t, path, tt.environ...), path+"/", ""); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if got := calls(t, path); !slices.Equal(got, tt.calls) {
				t.Errorf("called %q\n want   %q", got, tt.calls)
			}
		})
	}
}

// The test binaries of go test ./... start at the same time.
func TestInstallRunsOnceForConcurrentProcesses(t *testing.T) {
	t.Parallel()
	path := newPATH(t, map[string]string{"apt-get": aptStub})
	const processes = 4
	var all sync.WaitGroup
	out := make([]string, processes)
	for i := range out {
		all.Go(func() { out[i] = install(t, path, "PRIVATE_TEST_ROOT=1") })
	}
	all.Wait()
	printed := strings.Join(out, "")
	if n := strings.Count(printed, "step: installing "); n != 1 || strings.Contains(printed, "error:") {
		t.Errorf("%d processes installed:\n%s", n, printed)
	}
	if got := calls(t, path); len(got) != 2 {
		t.Errorf("apt-get ran %d times, want an update and an install: %q", len(got), got)
	}
}
