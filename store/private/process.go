package private

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pollInterval = 10 * time.Millisecond
	timeout      = 30 * time.Second
)

// A Process is one of the two servers with all that it forked. What is done to
// it is done to the whole family, so that connections which are already open
// feel it too.
type Process struct {
	name   string
	argv   []string
	folder *folder
	dir    string
	log    string
	quit   syscall.Signal // asks it to end cleanly
	ping   func(context.Context) error

	mu      sync.Mutex
	cmd     *exec.Cmd
	gone    chan struct{} // closed when the whole family of cmd is gone
	unpause func()        // ends a pause; nil when there is none
	closed  bool
}

// Kill ends the server the way a crash does (SIGKILL) and returns when it is
// gone. It does nothing to a server that is down.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kill()
}

// Pause freezes the server (SIGSTOP): connections stay open, the kernel still
// accepts new ones, and nothing is answered.
func (p *Process) Pause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unpause != nil {
		return nil
	}
	family, err := p.freeze()
	if err != nil {
		return fmt.Errorf("pausing %s: %w", p.name, err)
	}
	// What is frozen cannot obey when the kernel tells it to end. So the thawing
	// is left to a shell that waits for a pipe to close, as it does on our death.
	guard := exec.Command("sh", "-c", "read _; kill -CONT "+strings.Trim(fmt.Sprint(family), "[]"))
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := guard.StdinPipe()
	if err == nil {
		err = guard.Start()
	}
	if err != nil {
		signalAll(family, syscall.SIGCONT)
		return fmt.Errorf("pausing %s: %w", p.name, err)
	}
	p.unpause = func() {
		pipe.Close()
		guard.Wait()
	}
	return nil
}

// Resume ends a pause (SIGCONT). It does nothing to a server that runs.
func (p *Process) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resume()
}

// Restart shuts the server down cleanly if it is up, starts it again on the
// same data and at the same URL, and returns when it answers.
func (p *Process) Restart(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("restarting %s: it was stopped for good", p.name)
	}
	if err := p.shutDown(); err != nil {
		return err
	}
	if err := p.launch(); err != nil {
		return err
	}
	return p.ready(ctx)
}

func (p *Process) close() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return p.shutDown()
}

// launch starts the program; ready waits until it answers.
func (p *Process) launch() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// Every process of the family inherits the writing end of this pipe, so the
	// reading end tells when the last of them is gone.
	alive, held, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := p.folder.command(context.Background(), p.dir, p.quit, p.argv...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = append(cmd.ExtraFiles, held)

	started, gone := make(chan error), make(chan struct{})
	go func() {
		defer alive.Close()
		// The kernel takes the end of the thread that forked a child for the end
		// of its parent, so this thread must last as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		held.Close()
		started <- err
		if err == nil {
			cmd.Wait()
			io.Copy(io.Discard, alive)
			close(gone)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", p.name, p.folder.explain(err))
	}
	p.cmd, p.gone = cmd, gone
	return nil
}

func (p *Process) ready(ctx context.Context) error {
	for {
		err := p.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.gone:
			text, _ := os.ReadFile(p.log)
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			return fmt.Errorf("%s exited while it started; the end of %s:\n%s", p.name, p.log,
				strings.Join(lines[max(0, len(lines)-10):], "\n"))
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to answer: %w (%v)", p.name, context.Cause(ctx), err)
		case <-time.After(pollInterval):
		}
	}
}

func (p *Process) shutDown() error {
	p.resume()
	if !p.up() {
		return nil
	}
	if err := p.cmd.Process.Signal(p.quit); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", p.name, err)
	}
	if err := p.awaitGone(); err != nil {
		return errors.Join(err, p.kill())
	}
	return nil
}

func (p *Process) kill() error {
	if !p.up() {
		return nil
	}
	family, err := p.freeze()
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", p.name, err)
	}
	signalAll(family, syscall.SIGKILL)
	p.resume()
	return p.awaitGone()
}

func (p *Process) resume() {
	if p.unpause != nil {
		p.unpause()
		p.unpause = nil
	}
}

func (p *Process) up() bool {
	if p.gone == nil {
		return false
	}
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

func (p *Process) awaitGone() error {
	select {
	case <-p.gone:
		return nil
	case <-time.After(timeout):
		return fmt.Errorf("%s (pid %d) is still there after %v", p.name, p.cmd.Process.Pid, timeout)
	}
}

// freeze stops the server and then, as it can fork no more, its children, and
// returns the pids of all.
func (p *Process) freeze() ([]int, error) {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	pid := p.cmd.Process.Pid
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		return nil, os.ErrProcessDone // it was ending
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return nil, errors.Join(err, p.cmd.Process.Signal(syscall.SIGCONT))
	}
	family := []int{pid}
	for _, field := range strings.Fields(string(children)) {
		if child, err := strconv.Atoi(field); err == nil {
			family = append(family, child)
		}
	}
	signalAll(family, syscall.SIGSTOP)
	return family, nil
}

func signalAll(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		syscall.Kill(pid, sig) // fails only on one that is gone
	}
}
