package main

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"caracal.run/management/server/servertest"
)

func TestDevServes(t *testing.T) {
	t.Parallel()
	parent, err := os.MkdirTemp("", "caracald-dev-") // not t.TempDir, which the user that runs Postgres cannot enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o711); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "data")
	cmd := program([]string{"dev", "-dir", dir}, "PORT=0", "LOG_LEVEL=warn", "PATH="+os.Getenv("PATH"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var all strings.Builder
	served := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		url, found := strings.CutPrefix(strings.TrimSpace(lines.Text()), "export CARACAL_URL=")
		if !found {
			continue
		}
		served = true
		token, err := os.ReadFile(filepath.Join(dir, "admin-token"))
		if err != nil {
			t.Fatal(err)
		}
		servertest.Smoke(t, url, strings.TrimSpace(string(token)))
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil || !served {
		t.Errorf("caracald dev exited with %v, after it served: %v\n%s", err, served, &all)
	}
}
