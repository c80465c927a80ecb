//go:build linux

package private

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A machine is where the server programs are looked up and, if they are
// missing, installed.
type machine struct {
	postgresDirs  string   // glob of the folders with Postgres programs that are not on PATH
	redisPrograms []string // paths of redis-server that are not on PATH
	root          bool
	terminal      bool // a person can enter a password
}

// thisMachine returns the machine that the program runs on.
func thisMachine() machine {
	_, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	return machine{
		postgresDirs: "/usr/lib/postgresql/*/bin",
		// The PATH of an ordinary user often lacks the sbin folders.
		redisPrograms: []string{"/usr/sbin/redis-server", "/usr/local/bin/redis-server"},
		root:          os.Geteuid() == 0,
		terminal:      err == nil,
	}
}

// missing returns the names of the Debian packages that are not installed.
func (m machine) missing() (packages []string) {
	if m.postgres(0) == "" {
		packages = append(packages, "postgresql")
	}
	if m.redis() == "" {
		packages = append(packages, "redis-server")
	}
	return packages
}

// install installs Postgres and Redis with apt-get where they are missing. It
// does nothing if both are there. Processes that call it at the same time, as
// the test binaries of `go test ./...` do, install one after the other.
//
// Where there is no apt-get, or it fails, the error names what to install.
func (m machine) install(ctx context.Context, log func(string)) error {
	packages := m.missing()
	if len(packages) == 0 {
		return nil
	}
	names := strings.Join(packages, " and ")
	byHand := fmt.Sprintf("install Postgres %d or later and Redis 7 or later, with initdb and redis-server on PATH", minPostgresVersion)
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("%s not found, and there is no apt-get to install them with: %s", names, byHand)
	}
	sudo, err := m.sudo()
	if err != nil {
		return fmt.Errorf("%s not found, and installing them requires root or sudo: run `apt-get install %s` as root, or %s",
			names, strings.Join(packages, " "), byHand)
	}
	lock, err := lockInstallation(ctx, apt, log)
	if err != nil {
		return fmt.Errorf("waiting to install %s: %w", names, err)
	}
	defer lock.Close()
	if packages = m.missing(); len(packages) == 0 {
		return nil // another process has installed them
	}
	names = strings.Join(packages, " and ")
	log("installing " + names + " with apt-get…")
	for _, argv := range [][]string{
		{apt, "update", "-qq"},
		// sudo clears the environment: env sets the variable behind it.
		append([]string{"env", "DEBIAN_FRONTEND=noninteractive", apt, "install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"}, packages...),
	} {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		argv = slices.Concat(sudo, argv)
		// Not ended with ctx: dpkg would leave packages half configured.
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = os.Stdin
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("installing %s: %s: %w\n%s\nTo install by hand, run `apt-get install %s` as root, or %s", names,
				strings.Join(argv, " "), err, strings.TrimSpace(string(out)), strings.Join(packages, " "), byHand)
		}
	}
	if packages = m.missing(); len(packages) > 0 {
		return fmt.Errorf("%s not found after apt-get install: %s", strings.Join(packages, " and "), byHand)
	}
	return nil
}

// sudo returns the command that gives other commands root's permissions: none
// for root. It asks for a password only if a person can enter it.
func (m machine) sudo() ([]string, error) {
	if m.root {
		return nil, nil
	}
	path, err := exec.LookPath("sudo")
	if err != nil {
		return nil, err
	}
	if m.terminal {
		return []string{path}, nil
	}
	return []string{path, "-n"}, nil
}

// lockInstallation waits until no other process installs. The lock is on the
// apt-get program itself: every user may open it, whereas a new file in /tmp
// could belong to another user.
func lockInstallation(ctx context.Context, apt string, log func(string)) (*os.File, error) {
	for waiting := false; ; waiting = true {
		lock, err := lockFile(apt, os.O_RDONLY)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return lock, err
		}
		if !waiting {
			log("waiting for another process to install Postgres and Redis…")
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pollInterval):
		}
	}
}

// postgres returns the folder of the newest Postgres programs, or of those of a
// major version if it is not 0. It returns "" if there are none, or only those
// of versions that are too old.
func (m machine) postgres(major int) string {
	dirs, _ := filepath.Glob(m.postgresDirs)
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	newest, version := "", minPostgresVersion-1
	for _, dir := range dirs {
		var v int
		out, _ := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
		fmt.Sscanf(string(out), "postgres (PostgreSQL) %d", &v)
		if v > version && (major == 0 || v == major) {
			newest, version = dir, v
		}
	}
	return newest
}

// redis returns the path of redis-server, "" if there is none.
func (m machine) redis() string {
	for _, name := range append([]string{"redis-server"}, m.redisPrograms...) {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}
