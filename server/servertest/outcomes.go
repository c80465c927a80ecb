package servertest

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/store/storetest"
)

// outcomesDir is the environment variable that names the directory in which
// each process records the outcomes that it has seen.
const outcomesDir = "SERVERTEST_OUTCOMES"

// Main runs the tests of a binary on its own Postgres and Redis, and exits. If
// all tests ran, it fails unless every outcome that the spec declares was seen.
// See the package comment for how to run the tests in shards.
func Main(m *testing.M) {
	flag.Parse()
	dir := os.Getenv(outcomesDir)
	if dir != "" && flagValue("test.run") == "^$" && flagValue("test.bench") == "" {
		recorded, err := readOutcomes(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(reportMissing(recorded))
	}
	if err := seen.recordIn(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	raiseParallelism()
	os.Exit(storetest.Run(func() int {
		status := m.Run()
		if err := seen.close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if status != 0 || isPartialRun() {
			return status
		}
		return reportMissing(seen.names)
	}))
}

// raiseParallelism runs two tests at once for each CPU, unless -parallel is given:
// a test spends much of its time waiting for Postgres.
func raiseParallelism() {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))) // the flag takes every positive number
	}
}

// isPartialRun reports whether flags select some of the tests only.
func isPartialRun() bool {
	return slices.ContainsFunc([]string{"test.run", "test.skip", "test.list", "test.bench", "test.fuzz"},
		func(name string) bool { return flagValue(name) != "" })
}

func flagValue(name string) string {
	f := flag.Lookup(name)
	if f == nil {
		return ""
	}
	return f.Value.String()
}

// reportMissing prints the declared outcomes that were not recorded and returns
// the exit code.
func reportMissing(recorded map[string]bool) int {
	missing := missingOutcomes(declaredOutcomes(), recorded)
	if len(missing) == 0 {
		return 0
	}
	fmt.Fprintf(os.Stderr, "the spec declares outcomes that no test has seen:\n  %s\n", strings.Join(missing, "\n  "))
	return 1
}

// sharedCodes are returned by middleware before the operation is known, or in the same way
// for all operations: it is enough to see each once, in any operation.
var sharedCodes = []code.Code{code.RateLimited, code.InternalError, code.ServiceUnavailable, code.IdempotencyKeyInUse, code.IdempotencyKeyReused}

// An outcome is named by an operation and what it returned or did: a status and
// an error code, the stream of an event, or the kind of an audit entry.
func responseOutcome(operation, status, errorCode string) string {
	if slices.Contains(sharedCodes, code.Code(errorCode)) {
		return "any operation: " + errorCode
	}
	return strings.TrimSpace(operation + ": " + status + " " + errorCode)
}

func eventOutcome(operation, stream string) string { return operation + ": event on " + stream }

func auditOutcome(operation, kind string) string { return operation + ": audit entry of " + kind }

// declaredOutcomes returns the outcomes that the spec declares.
var declaredOutcomes = sync.OnceValue(func() map[string]bool {
	all := map[string]bool{}
	for _, op := range Operations() {
		for status := range op.Responses.Map() {
			codes := op.Codes(status)
			if codes == nil {
				codes = []string{""}
			}
			for _, c := range codes {
				all[responseOutcome(op.OperationID, status, c)] = true
			}
		}
		for _, stream := range op.Streams() {
			all[eventOutcome(op.OperationID, stream)] = true
		}
		for _, kind := range op.AuditKinds() {
			all[auditOutcome(op.OperationID, kind)] = true
		}
	}
	return all
})

// missingOutcomes returns what is declared but was not recorded, sorted.
func missingOutcomes(declared, recorded map[string]bool) []string {
	missing := maps.Clone(declared)
	maps.DeleteFunc(missing, func(name string, _ bool) bool { return recorded[name] })
	return slices.Sorted(maps.Keys(missing))
}

// A recorder collects the outcomes that this process has seen, and appends each
// to a file when it is first seen.
type recorder struct {
	mu    sync.Mutex
	names map[string]bool
	file  *os.File // nil: not recorded
	err   error    // the first failed write
}

var seen = &recorder{names: map[string]bool{}}

// recordIn creates the recorder's file in a directory. "" creates none.
func (r *recorder) recordIn(dir string) error {
	if dir == "" {
		return nil
	}
	if !filepath.IsAbs(dir) { // go test runs each package's tests in the package's own directory
		return fmt.Errorf("%s: must be an absolute path", outcomesDir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var err error
	r.file, err = os.CreateTemp(dir, "*.outcomes")
	return err
}

func (r *recorder) record(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names[name] {
		return
	}
	r.names[name] = true
	if r.file != nil && r.err == nil {
		_, r.err = fmt.Fprintln(r.file, name)
	}
}

// close closes the file. It returns the error of the first write that failed.
func (r *recorder) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	return errors.Join(r.err, r.file.Close())
}

// readOutcomes returns the outcomes that the processes recorded in a directory.
// It returns an error if there is no record.
func readOutcomes(dir string) (map[string]bool, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.outcomes"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no outcomes are recorded in %s", outcomesDir, dir)
	}
	all := map[string]bool{}
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			all[lines.Text()] = true
		}
		if err := errors.Join(lines.Err(), file.Close()); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// recordWrites records the events and audit entries of the operations that
// changed the database. It fails the test if the spec does not declare one.
// An event belongs to the operation of the audit entries with the same request
// ID and transaction time, or is a dead letter that the operation retried. It
// counts once it is published.
func (a *API) recordWrites() {
	a.TB.Helper()
	if _, benchmark := a.TB.(*testing.B); benchmark {
		return
	}
	declared := declaredOutcomes()
	known := map[string]bool{}
	for _, op := range Operations() {
		known[op.OperationID] = true
	}
	for _, row := range storetest.Column[string](a.DB, `
		SELECT DISTINCT operation || ' audit ' || entity_type FROM audit_entries WHERE status_code < 400 AND entity_type IS NOT NULL
		UNION
		SELECT a.operation || ' event ' || o.stream FROM audit_entries AS a JOIN outbox AS o ON o.zone_id = a.zone_id
		WHERE a.status_code < 400 AND o.dispatched_at IS NOT NULL
		AND (o.request_id = a.request_id AND date_trunc('milliseconds', o.created_at) = a.occurred_at
			OR a.operation = 'rearmDeadLetter' AND o.id = a.entity_id)`) {
		parts := strings.Fields(row)
		name := auditOutcome(parts[0], parts[2])
		if parts[1] == "event" {
			name = eventOutcome(parts[0], parts[2])
		}
		switch {
		case !known[parts[0]]: // a command's or a fixture's
		case !declared[name]:
			a.TB.Errorf("the spec does not declare %s", name)
		default:
			seen.record(name)
		}
	}
}
