//go:build faults

package faults_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"caracal.run/management/gen/client"
)

// A clock steps the wall clock of one process, as if the time of the machine were
// set. It does not change the monotonic clock. To do so, it replaces the two
// functions of the process's vDSO that return the time of day. (To set the clock
// of the machine would affect other processes. libfaketime has no effect on a Go
// program, which does not call libc.)
type clock struct {
	mem     *os.File
	offsets []int64 // addresses of the numbers of seconds that the functions add
}

// clockCode has the machine code that replaces each function. The code makes the
// system call and adds the number of seconds that is stored after the code. It
// steps only CLOCK_REALTIME, which is 0.
var clockCode = map[string][]byte{
	"__vdso_clock_gettime": {
		0xb8, 228, 0, 0, 0, // mov eax, SYS_clock_gettime
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi
		0x75, 0x0a, // jne to ret
		0x48, 0x8b, 0x0d, 4, 0, 0, 0, // mov rcx, [rip+4]
		0x48, 0x01, 0x0e, // add [rsi], rcx
		0xc3, // ret
	},
	"__vdso_gettimeofday": {
		0xb8, 96, 0, 0, 0, // mov eax, SYS_gettimeofday
		0x0f, 0x05, // syscall
		0x48, 0x8b, 0x0d, 4, 0, 0, 0, // mov rcx, [rip+4]
		0x48, 0x01, 0x0f, // add [rdi], rcx
		0xc3, // ret
	},
}

// openClock replaces the functions of a process. Until step is called, they return
// the correct time.
func openClock(pid int) (c *clock, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	var from, to int64
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "[vdso]") {
			if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
				return nil, err
			}
		}
	}
	c = &clock{}
	if c.mem, err = os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	image := make([]byte, to-from)
	if _, err := c.mem.ReadAt(image, from); err != nil {
		return nil, err
	}
	vdso, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	symbols, err := vdso.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	for _, s := range symbols {
		code, found := clockCode[s.Name]
		if !found {
			continue
		}
		addr := from + int64(s.Value)
		if _, err := c.mem.WriteAt(append(slices.Clone(code), make([]byte, 8)...), addr); err != nil {
			return nil, err
		}
		c.offsets = append(c.offsets, addr+int64(len(code)))
	}
	if len(c.offsets) != len(clockCode) {
		return nil, fmt.Errorf("the vDSO has %d of the %d functions", len(c.offsets), len(clockCode))
	}
	return c, nil
}

func (c *clock) close() { _ = c.mem.Close() }

// step sets the clock to the correct time plus an offset. It returns no error: the
// tests read the clock afterwards.
func (c *clock) step(offset time.Duration) {
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(int64(offset/time.Second)))
	for _, addr := range c.offsets {
		_, _ = c.mem.WriteAt(seconds, addr)
	}
}

// steps are offsets: the clock steps forward, then back to before the correct
// time, then to the correct time.
var steps = []time.Duration{time.Hour, -time.Hour, 0}

func TestClockStepsOfTheServiceAffectNoRequest(t *testing.T) {
	t.Parallel()
	const limit = 5
	b := newBackends(t)
	s := b.start("api", "API_V1_RATE_LIMIT_PER_MIN=1000000", fmt.Sprintf("READY_RATE_LIMIT_PER_MIN=%d", limit), "ADMIN_TOKEN_LAST_USED_DEBOUNCE_SEC=1")
	c, err := openClock(s.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	l := b.startLoadOn(s)
	for _, offset := range steps {
		c.step(offset)
		if got := s.date(); got.Sub(time.Now().Add(offset)).Abs() > 10*time.Second {
			t.Fatalf("the clock of the service is at %v, want an offset of %v", got, offset)
		}
		if offset != 0 { // a new window of the rate limit, without requests
			allowed, limited := 0, 0
			for range 4 * limit {
				switch status, _ := s.get("/ready"); status {
				case http.StatusOK:
					allowed++
				case http.StatusTooManyRequests:
					limited++
				}
			}
			if allowed < limit || limited == 0 { // more are allowed if the minute ends meanwhile
				t.Errorf("offset %v: got %d requests allowed and %d limited, want at least %d and 1", offset, allowed, limited, limit)
			}
		}
		t.Logf("offset %v: %v", offset, l.runFor(700*time.Millisecond))
	}
	l.stop()
	b.waitIdle(s)
	b.checkInvariants(l)
	eventually(t, 5*time.Second, "the last use of a token is stored with the correct time", func() bool {
		_, _ = s.get("/v1/zones")
		return column[bool](b, "SELECT last_used_at BETWEEN now() - interval '5 seconds' AND now() + interval '5 seconds' FROM admin_tokens WHERE created_by = 'env-bootstrap'")[0]
	})
	s.terminate()
}

// date returns the wall clock of the service, from the header Date of a response.
func (s *service) date() time.Time {
	s.t.Helper()
	resp, err := http.Get(s.url + "/health")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		s.t.Fatal(err)
	}
	return date
}

func TestClockStepsOfPostgresLoseNoChangeAndNoListedRow(t *testing.T) {
	t.Parallel()
	b := newBackends(t)
	s := b.start("api")
	l := b.startLoadOn(s)
	admin, err := client.New(s.url, token) // retries reads that fail
	if err != nil {
		t.Fatal(err)
	}
	zone, err := admin.CreateZone(t.Context(), client.NewZone{Name: "Listed"})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for range 20 {
		created, err := admin.CreateApplication(t.Context(), zone.ID, client.NewApplication{Name: "Old", RegistrationMethod: "managed"})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, created.ID)
	}
	slices.Reverse(want)
	// Postgres uses the wall clock for timeouts, so a step may cancel statements.
	// Their requests return 503.
	l.allowFailures()
	// While the client reads the pages of the list, the clock steps repeatedly. At
	// each step, one more application is created.
	var got []string
	listed, created := 0, 0
	for a, err := range admin.Applications(t.Context(), zone.ID, client.Limit(2)) {
		if err != nil {
			t.Fatal(err)
		}
		if a.Name == "Old" {
			got = append(got, a.ID)
		}
		if listed++; listed%5 == 0 {
			offset := steps[listed/5%len(steps)]
			b.stepPostgres(offset)
			if got := column[time.Time](b, "SELECT now()")[0]; got.Sub(time.Now().Add(offset)).Abs() > 10*time.Second {
				t.Fatalf("the clock of Postgres is at %v, want an offset of %v", got, offset)
			}
			_, err := admin.CreateApplication(t.Context(), zone.ID, client.NewApplication{Name: "New", RegistrationMethod: "managed"})
			if err == nil {
				created++
			} else if _, isResponse := errors.AsType[*client.Error](err); !isResponse {
				t.Fatal(err)
			}
			l.runFor(100 * time.Millisecond)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the list has %d of the applications that existed before, want %d in order: got %v, want %v", len(got), len(want), got, want)
	}
	if created == 0 {
		t.Error("no application was created while the list was read")
	}
	for _, offset := range steps {
		b.stepPostgres(offset)
		t.Logf("offset %v: %v", offset, l.runFor(300*time.Millisecond))
	}
	l.waitRecovered(2 * time.Second)
	l.runFor(300 * time.Millisecond)
	l.stop()
	b.waitIdle(s)
	b.checkInvariants(l)
	s.terminate()
	t.Logf("causes of status 503: %v", s.unavailableCauses)
}

// stepPostgres steps the clock of every process of Postgres. Processes that it
// forks later inherit the clock.
func (b *backends) stepPostgres(offset time.Duration) {
	b.t.Helper()
	file, err := os.ReadFile(b.servers.Dir() + "/postgres/postmaster.pid")
	if err != nil {
		b.t.Fatal(err)
	}
	postmaster, _, _ := strings.Cut(string(file), "\n")
	step := func(process string) {
		pid, err := strconv.Atoi(process)
		if err != nil {
			b.t.Fatal(err)
		}
		if c, err := openClock(pid); err == nil { // the process may have exited
			b.t.Cleanup(c.close)
			c.step(offset)
		}
	}
	step(postmaster)
	children, err := os.ReadFile("/proc/" + postmaster + "/task/" + postmaster + "/children")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, child := range strings.Fields(string(children)) {
		step(child)
	}
}
