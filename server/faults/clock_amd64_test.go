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

// A clock is that of one process, to be stepped: what the process is told of
// the time of day changes from one moment to the next, as after a correction by
// hand, and the monotonic clock goes on. For that, the two functions of its vDSO
// that tell the time of day are replaced. (The machine's clock belongs to
// others, and libfaketime does not reach a Go program, which calls no libc.)
type clock struct {
	mem   *os.File
	cells []int64 // where the seconds that are to be added stand
}

// The functions, in machine code: they ask the kernel and add the number that
// follows the code. Only CLOCK_REALTIME, which is 0, is stepped.
var clockCode = map[string][]byte{
	"__vdso_clock_gettime": {
		0xb8, 228, 0, 0, 0, // mov eax, SYS_clock_gettime
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi
		0x75, 0x0a, // jne to the ret
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

// clockOf takes hold of a process's clock. It still shows the right time.
func clockOf(pid int) (c *clock, err error) {
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
		code, ours := clockCode[s.Name]
		if !ours {
			continue
		}
		at := from + int64(s.Value)
		if _, err := c.mem.WriteAt(append(slices.Clone(code), make([]byte, 8)...), at); err != nil {
			return nil, err
		}
		c.cells = append(c.cells, at+int64(len(code)))
	}
	if len(c.cells) != len(clockCode) {
		return nil, fmt.Errorf("the vDSO has only %d of the functions", len(c.cells))
	}
	return c, nil
}

func (c *clock) close() { _ = c.mem.Close() }

// step makes the clock show the right time and so much more. Who looks at it
// learns whether that worked.
func (c *clock) step(off time.Duration) {
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(int64(off/time.Second)))
	for _, cell := range c.cells {
		_, _ = c.mem.WriteAt(seconds, cell)
	}
}

// The clock goes forward, then back beyond where it was, then right again.
var steps = []time.Duration{time.Hour, -time.Hour, 0}

func TestNobodyNoticesThatTheClockOfTheServiceSteps(t *testing.T) {
	t.Parallel()
	const limit = 5
	w := newWorld(t)
	s := w.start("api", "API_V1_RATE_LIMIT_PER_MIN=1000000", fmt.Sprintf("READY_RATE_LIMIT_PER_MIN=%d", limit), "ADMIN_TOKEN_LAST_USED_DEBOUNCE_SEC=1")
	c, err := clockOf(s.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	l := w.on(s)
	for _, off := range steps {
		c.step(off)
		if is := s.date(); is.Sub(time.Now().Add(off)).Abs() > 10*time.Second {
			t.Fatalf("its clock shows %v", is)
		}
		if off != 0 { // a window of its own, in which nobody has been counted
			admitted, refused := 0, 0
			for range 4 * limit {
				switch status, _ := s.get("/ready"); status {
				case http.StatusOK:
					admitted++
				case http.StatusTooManyRequests:
					refused++
				}
			}
			if admitted < limit || refused == 0 { // and perhaps the minute ended
				t.Errorf("%v off, %d were admitted and %d refused, at a limit of %d", off, admitted, refused, limit)
			}
		}
		t.Logf("%v off: %v", off, l.lasts(700*time.Millisecond))
	}
	l.stop()
	w.settles(s)
	w.keeps(l)
	eventually(t, 5*time.Second, "the use of a token is noted again", func() bool {
		_, _ = s.get("/v1/zones")
		return column[bool](w, "SELECT last_used_at BETWEEN now() - interval '5 seconds' AND now() + interval '5 seconds' FROM admin_tokens WHERE created_by = 'env-bootstrap'")[0]
	})
	s.terminate()
}

// date is the time of day as the service has it.
func (s *service) date() time.Time {
	s.t.Helper()
	resp, err := http.Get(s.url + "/health")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	is, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		s.t.Fatal(err)
	}
	return is
}

func TestNothingIsLostOrMissedWhenTheClockOfPostgresSteps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.start("api")
	l := w.on(s)
	admin, err := client.New(s.url, token) // sends reads again when they are refused
	if err != nil {
		t.Fatal(err)
	}
	zone, err := admin.CreateZone(t.Context(), client.NewZone{Name: "Walked"})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for range 20 {
		made, err := admin.CreateApplication(t.Context(), zone.ID, client.NewApplication{Name: "There before", RegistrationMethod: "managed"})
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, made.ID)
	}
	slices.Reverse(want)
	// Postgres measures its time-outs by the time of day: a step may end what is
	// underway, and its caller is told to try again.
	l.breaking()
	// While the list is walked, the clock steps again and again, and each time
	// there is one more application.
	var got []string
	met, more := 0, 0
	for a, err := range admin.Applications(t.Context(), zone.ID, client.Limit(2)) {
		if err != nil {
			t.Fatal(err)
		}
		if a.Name == "There before" {
			got = append(got, a.ID)
		}
		if met++; met%5 == 0 {
			off := steps[met/5%len(steps)]
			w.stepPostgres(off)
			if is := column[time.Time](w, "SELECT now()")[0]; is.Sub(time.Now().Add(off)).Abs() > 10*time.Second {
				t.Fatalf("its clock shows %v", is)
			}
			_, err := admin.CreateApplication(t.Context(), zone.ID, client.NewApplication{Name: "New", RegistrationMethod: "managed"})
			if err == nil {
				more++
			} else if _, isResponse := errors.AsType[*client.Error](err); !isResponse {
				t.Fatal(err)
			}
			l.lasts(100 * time.Millisecond)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the walk met %d of the %d that were there before: %v", len(got), len(want), got)
	}
	if more == 0 {
		t.Error("nothing was added meanwhile")
	}
	for _, off := range steps {
		w.stepPostgres(off)
		t.Logf("%v off: %v", off, l.lasts(300*time.Millisecond))
	}
	l.recovers(2 * time.Second)
	l.lasts(300 * time.Millisecond)
	l.stop()
	w.settles(s)
	w.keeps(l)
	s.terminate()
	t.Logf("it refused: %v", s.why)
}

// stepPostgres steps the clock of every process that Postgres has, so that those
// which it forks later have it too.
func (w *world) stepPostgres(off time.Duration) {
	w.t.Helper()
	file, err := os.ReadFile(w.servers.Dir() + "/postgres/postmaster.pid")
	if err != nil {
		w.t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(file), "\n")
	step := func(text string) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			w.t.Fatal(err)
		}
		if c, err := clockOf(pid); err == nil { // it may just have ended
			w.t.Cleanup(c.close)
			c.step(off)
		}
	}
	step(first)
	children, err := os.ReadFile("/proc/" + first + "/task/" + first + "/children")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, child := range strings.Fields(string(children)) {
		step(child)
	}
}
