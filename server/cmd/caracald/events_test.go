package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// waitForSeals waits until all audit entries are sealed, because events are read after that.
func waitForSeals(t *testing.T, db *storetest.DB) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); storetest.Value[int](db, "SELECT count(*)::int FROM audit_unsealed") > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the audit entries were not sealed")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	s := newShell(t, a, zone)
	s.ok("application", "create", "--set", "name=First", "--set", "registration_method=managed")
	waitForSeals(t, a.DB)

	position := filepath.Join(t.TempDir(), "position")
	types := func(args ...string) (types []string) {
		for line := range strings.Lines(s.ok(append([]string{"events", "--once", "-o", "json"}, args...)...)) {
			var event client.ZoneEvent
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			types = append(types, event.Type)
		}
		return types
	}
	if got := types("--after", "0", "--resume", position); strings.Join(got, " ") != "zones.created applications.created" {
		t.Errorf("the events are %v", got)
	}
	s.ok("provider", "create", "--set", "name=Mandates", "--set", "kind=caracal_mandate")
	waitForSeals(t, a.DB)
	if got := types("--after", "0", "--resume", position); strings.Join(got, " ") != "providers.created" {
		t.Errorf("after the position in the file, the events are %v", got)
	}
	if got := types(); got != nil {
		t.Errorf("after now, the events are %v", got)
	}
	var page struct{ Rows []json.RawMessage }
	if err := json.Unmarshal(a.Do("GET", "/v1/zones/"+zone+"/events?after=0", "", "Authorization", "Bearer "+servertest.Bootstrap).Body, &page); err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(s.ok("events", "--once", "--after", "0", "-o", "json")), "\n") {
		if line != string(page.Rows[i]) {
			t.Errorf("the event is %s, want that of the API, %s", line, page.Rows[i])
		}
	}
	table := s.ok("events", "--once", "--after", "0")
	if lines := strings.Split(strings.TrimSpace(table), "\n"); len(lines) != 3 || !strings.Contains(lines[2], "providers.created") || !strings.Contains(lines[2], "createProvider by bootstrap") {
		t.Errorf("the table is\n%s", table)
	}
	if got := s.ok("events", "--once", "--after", "0", "-o", "yaml"); strings.Count(got, "---\n") != 3 || !strings.Contains(got, "type: providers.created\n") {
		t.Errorf("YAML is\n%s", got)
	}
	if got := s.ok("events", "--once", "--after", "0", "-o", "name"); len(strings.Fields(got)) != 3 {
		t.Errorf("names are\n%s", got)
	}

	// Following prints new events, and ends without an error when the context ends, as with Ctrl-C.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in, out := io.Pipe()
	ended := make(chan int)
	var stderr bytes.Buffer
	go func() { ended <- s.start(ctx, nil, out, &stderr, "events", "--resume", position, "-o", "json") }()
	s.ok("zone", "update", zone, "--set", "name=Renamed")
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || !json.Valid([]byte(line)) || !strings.Contains(line, `"type":"zones.updated"`) {
		t.Errorf("followed %q, %v", line, err)
	}
	cancel()
	if code := <-ended; code != 0 || stderr.String() != "" {
		t.Errorf("exit code %d, %s", code, &stderr)
	}
	for args, want := range map[string]string{"--after x": "caracald: ", "--resume /does/not/exist/x --after 0": "no such file", "-o xml": "--output must be"} {
		if _, stderr, code := s.run("", append([]string{"events", "--once"}, strings.Fields(args)...)...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d, %s", args, code, stderr)
		}
	}
}

// What audit export writes, audit verify verifies.
func TestAuditExport(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	s := newShell(t, a, zone)
	for _, name := range []string{"One", "Two"} {
		s.ok("zone", "update", zone, "--set", "name="+name)
	}
	a.DB.AuditEvent(zone, nil)
	waitForSeals(t, a.DB)
	file := filepath.Join(t.TempDir(), "audit.ndjson")
	for _, tt := range []struct {
		log, want string
		rows      string
	}{
		{"entries", "3 entries are intact", "3 rows, complete and unchanged.\n"},
		{"events", "1 events are intact", "1 rows, complete and unchanged.\n"},
		{"global", "3 entries are intact", "3 rows, complete and unchanged.\n"}, // of the tokens that are created at the start
	} {
		stdout, stderr, code := s.run("", "audit", "export", "--log", tt.log, "--file", file)
		if code != 0 || stdout != "" || stderr != tt.rows {
			t.Errorf("%s: exit code %d, %q, %q", tt.log, code, stdout, stderr)
			continue
		}
		if got := s.ok("audit", "verify", file); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s", tt.log, got)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		head := s.file("head.json", s.ok("audit", "head", "--log", tt.log))
		if got := s.ok("audit", "verify", file, "--head", head); strings.Contains(got, "after the last one") {
			t.Errorf("%s: with its head: %s", tt.log, got)
		}
		if piped := s.ok("audit", "export", "--log", tt.log); piped != string(text) {
			t.Errorf("%s: the standard output is %q, the file %q", tt.log, piped, text)
		}
	}
	if got := s.ok("audit", "export", "--format", "csv", "--since", "2100-01-01T00:00:00Z"); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "id,") {
		t.Errorf("CSV of nothing is %q", got)
	}
	if _, stderr, code := s.run("", "audit", "head", "--log", "nix"); code != exitInvalid || !strings.Contains(stderr, "--log must be") {
		t.Errorf("an unknown log: %d, %s", code, stderr)
	}
	for args, want := range map[string]string{
		"--log nix": "--log must be", "--format xml": "--format must be", "--file /does/not/exist/x": "no such file", "--since yesterday": "since: ",
	} {
		if _, stderr, code := s.run("", append([]string{"audit", "export"}, strings.Fields(args)...)...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d, %s", args, code, stderr)
		}
	}
}

func TestAuditExplain(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	s := newShell(t, a, zone)
	a.DB.AuditEvent(zone, map[string]any{"request_id": "req-1", "decision": "deny"})
	if got := s.ok("audit", "explain", "req-1"); !strings.Contains(got, "final_decision  deny\n") || !strings.Contains(got, "\n  - id: ") {
		t.Errorf("explained as\n%s", got)
	}
	if got := s.ok("audit", "explain", "req-1", "-o", "json"); !json.Valid([]byte(got)) {
		t.Errorf("JSON is %s", got)
	}
	if _, stderr, code := s.run("", "audit", "explain", "nix"); code != exitFailed || !strings.Contains(stderr, "not_found: ") {
		t.Errorf("unknown request: %d, %s", code, stderr)
	}
}
