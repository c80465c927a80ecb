//go:build faults

package faults_test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"caracal.run/management/server/servertest"
)

// installed returns the path of a program, which it installs if it is missing. The
// Debian package must have the same name.
func installed(t *testing.T, program string) string {
	t.Helper()
	// The PATH of an ordinary user often lacks /usr/sbin.
	locate := exec.Command("sh", "-c", `../../.ci/install "$1" >&2 && command -v "$1"`, "sh", program)
	locate.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin")
	var log servertest.Log
	locate.Stderr = &log
	path, err := locate.Output()
	if err != nil {
		t.Fatalf("install %s: %v\n%s", program, err, log.String())
	}
	return strings.TrimSpace(string(path))
}

// startServer starts a server program, waits until it accepts connections at an
// address, and ends it with the test.
func startServer(t *testing.T, cmd *exec.Cmd, address string) {
	t.Helper()
	var log servertest.Log
	cmd.Stderr = &log
	if err := startProcess(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", cmd.Path, log.String())
		}
	})
	eventually(t, 10*time.Second, cmd.Path+" accepts connections", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// freePort returns a port that no process listens on.
func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
