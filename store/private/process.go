//go:build linux

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

// A Process is one of the two servers with its child processes. Each method
// affects all of them, so that connections which are already open are affected
// too.
type Process struct {
	name   string
	argv   []string
	folder *folder
	dir    string
	log    string
	quit   syscall.Signal // shuts it down cleanly
	ping   func(context.Context) error

	mu      sync.Mutex
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd and its children have ended
	unpause func()        // ends a pause; nil if not paused
	closed  bool
}

// Kill ends the server as a crash does (SIGKILL) and returns when it has ended.
// It does nothing if the server is not running.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kill()
}

// Pause suspends the server (SIGSTOP): connections stay open and the kernel
// accepts new ones, but the server does not respond.
func (p *Process) Pause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unpause != nil {
		return nil
	}
	pids, err := p.suspend()
	if err != nil {
		return fmt.Errorf("pausing %s: %w", p.name, err)
	}
	// A suspended server does not react to the signal that the kernel sends when
	// this program ends. A shell resumes it then: the pipe to the shell closes.
	resumer := exec.Command("sh", "-c", "read _; kill -CONT "+strings.Trim(fmt.Sprint(pids), "[]"))
	resumer.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := resumer.StdinPipe()
	if err == nil {
		err = resumer.Start()
	}
	if err != nil {
		signalAll(pids, syscall.SIGCONT)
		return fmt.Errorf("pausing %s: %w", p.name, err)
	}
	p.unpause = func() {
		pipe.Close()
		resumer.Wait()
	}
	return nil
}

// Resume ends a pause (SIGCONT). It does nothing if the server is not paused.
func (p *Process) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resume()
}

// Restart shuts the server down cleanly if it is running, starts it on the same
// data and at the same URL, and returns when it accepts connections.
func (p *Process) Restart(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return fmt.Errorf("restarting %s: its servers were stopped", p.name)
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

// launch starts the program. ready waits until it accepts connections.
func (p *Process) launch() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// The server and its children inherit the writing end of this pipe, so the
	// reading end reaches EOF when the last of them has ended.
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := p.folder.command(context.Background(), p.dir, p.quit, p.argv...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = append(cmd.ExtraFiles, writer)

	started, exited := make(chan error), make(chan struct{})
	go func() {
		defer reader.Close()
		// The kernel treats the end of the thread that forked a child as the end
		// of its parent, so this thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		writer.Close()
		started <- err
		if err == nil {
			cmd.Wait()
			io.Copy(io.Discard, reader)
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", p.name, p.folder.explain(err))
	}
	p.cmd, p.exited = cmd, exited
	return nil
}

// ready waits until the server accepts connections. If the server ends before,
// the error has the end of its log.
func (p *Process) ready(ctx context.Context) error {
	for {
		err := p.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			text, _ := os.ReadFile(p.log)
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			return fmt.Errorf("%s exited during its start; the end of %s:\n%s", p.name, p.log,
				strings.Join(lines[max(0, len(lines)-10):], "\n"))
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to accept connections: %w (%v)", p.name, context.Cause(ctx), err)
		case <-time.After(pollInterval):
		}
	}
}

func (p *Process) shutDown() error {
	p.resume()
	if !p.running() {
		return nil
	}
	if err := p.cmd.Process.Signal(p.quit); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", p.name, err)
	}
	if err := p.awaitExit(); err != nil {
		return errors.Join(err, p.kill())
	}
	return nil
}

func (p *Process) kill() error {
	if !p.running() {
		return nil
	}
	pids, err := p.suspend()
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", p.name, err)
	}
	signalAll(pids, syscall.SIGKILL)
	p.resume()
	return p.awaitExit()
}

func (p *Process) resume() {
	if p.unpause != nil {
		p.unpause()
		p.unpause = nil
	}
}

func (p *Process) running() bool {
	if p.exited == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *Process) awaitExit() error {
	select {
	case <-p.exited:
		return nil
	case <-time.After(timeout):
		return fmt.Errorf("%s (pid %d) is still running after %v", p.name, p.cmd.Process.Pid, timeout)
	}
}

// suspend stops the server and then, as it cannot fork any more, its children. It
// returns all their pids.
func (p *Process) suspend() ([]int, error) {
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	pid := p.cmd.Process.Pid
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		return nil, os.ErrProcessDone // it ended before it stopped
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return nil, errors.Join(err, p.cmd.Process.Signal(syscall.SIGCONT))
	}
	pids := []int{pid}
	for _, field := range strings.Fields(string(children)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	signalAll(pids, syscall.SIGSTOP)
	return pids, nil
}

func signalAll(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		syscall.Kill(pid, sig) // fails only if the process has ended
	}
}
