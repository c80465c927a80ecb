//go:build linux

package private

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	ephemeralPrefix = "caracal-private-"
	maxSocketPath   = 107 // bytes, by the kernel's sockaddr_un
)

// A folder belongs to this program while its lock is held. The servers inherit
// the lock, so it is held until the last of them has ended, even if this program
// is killed.
type folder struct {
	dir       string
	ephemeral bool
	lock      *os.File

	account      *syscall.Credential // of the user that the servers run as; nil for the current user
	sockets      string
	socketFolder *folder // has the sockets if dir cannot have them
}

func openFolder(ctx context.Context, o Options) (f *folder, err error) {
	if o.Dir == "" {
		f, err = makeEphemeral(scratchDir())
	} else {
		f, err = claim(ctx, o.Dir, o.Log)
	}
	if err != nil {
		return nil, err
	}
	if err := f.prepare(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// prepare determines the servers' user and creates the folder of the sockets.
func (f *folder) prepare() (err error) {
	if f.account, err = serverAccount(f.path("postgres"), f.dir); err != nil {
		return err
	}
	if !f.ephemeral {
		if err := os.WriteFile(f.lock.Name(), fmt.Appendln(nil, os.Getpid()), 0o600); err != nil {
			return err
		}
		if f.account != nil {
			// The owner of the data may use the folder later without being root.
			if err := f.lock.Chown(int(f.account.Uid), int(f.account.Gid)); err != nil {
				return err
			}
		}
	}
	f.sockets = f.path("run")
	// Postgres parses this setting as a list of folders, with commas and quotes.
	if len(f.sockets+"/.s.PGSQL.5432") > maxSocketPath || strings.ContainsAny(f.sockets, `,"`) {
		if f.socketFolder, err = makeEphemeral("/tmp"); err != nil {
			return err
		}
		f.sockets = f.socketFolder.path("run")
	}
	return f.mkdirOwned(f.sockets)
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

// mkdirOwned creates an empty folder that only the servers' user may enter. It
// removes an existing one first.
func (f *folder) mkdirOwned(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o700)
	if err == nil && f.account != nil {
		err = os.Chown(dir, int(f.account.Uid), int(f.account.Gid))
	}
	return err
}

// command returns a command that runs in dir, as the servers' user, and inherits
// the lock. The kernel sends it the signal orphaned when the thread that started
// it ends.
func (f *folder) command(ctx context.Context, dir string, orphaned syscall.Signal, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	// Without PGDATA and without this program's secrets; with messages in English.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	cmd.ExtraFiles = []*os.File{f.lock}
	// In its own process group, it does not receive the Ctrl-C of this program.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: f.account, Setpgid: true, Pdeathsig: orphaned}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// explain adds to an error of a command's start what a person can do about it.
func (f *folder) explain(err error) error {
	if f.account == nil || !errors.Is(err, syscall.EACCES) {
		return err
	}
	name := strconv.Itoa(int(f.account.Uid))
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return fmt.Errorf("%w: Postgres cannot run as root, and user %s cannot enter %s: "+
		"choose a folder whose parents that user may enter, or start as an ordinary user", err, name, f.dir)
}

// close releases the lock and removes an ephemeral folder.
func (f *folder) close() error {
	var errs []error
	if f.socketFolder != nil {
		errs = append(errs, f.socketFolder.close())
	}
	if f.ephemeral {
		errs = append(errs, os.RemoveAll(f.dir))
	}
	if !f.ephemeral {
		// Processes that still hold the lock are ending. Without a pid in the
		// file, the next start waits for them instead of failing.
		errs = append(errs, f.lock.Truncate(0))
	}
	return errors.Join(append(errs, f.lock.Close())...)
}

// serverAccount returns the user that the servers run as if this program is
// root, because Postgres cannot run as root: the owner of the first of the paths
// that does not belong to root, so that data keeps its owner; otherwise Debian's
// user for Postgres. It returns nil if this program is not root.
func serverAccount(paths ...string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, path := range paths {
		var stat syscall.Stat_t
		if syscall.Stat(path, &stat) == nil && stat.Uid != 0 {
			return &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
			gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
		}
	}
	return nil, errors.New("Postgres cannot run as root, and no user named \"postgres\" or \"nobody\" exists to run it as: " +
		"create one, or start as an ordinary user")
}

// claim locks a persistent folder. If the servers of a killed program are still
// shutting down, it waits for them. It fails if another program uses the folder.
func claim(ctx context.Context, dir string, log func(string)) (*folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	path := filepath.Join(dir, "lock")
	for waiting := false; ; waiting = true {
		lock, err := lockFile(path, os.O_RDWR|os.O_CREATE)
		if err == nil {
			return &folder{dir: dir, lock: lock}, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		text, _ := os.ReadFile(path)
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return nil, fmt.Errorf("%s is in use by another caracald (pid %d)", dir, pid)
		}
		if !waiting {
			log("waiting for the servers of an earlier run to shut down…")
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the servers of an earlier run, which hold %s (see: fuser -v %[1]s): %w",
				path, context.Cause(ctx))
		case <-time.After(pollInterval):
		}
	}
}

// makeEphemeral creates a folder with the lock on the folder itself, and removes
// ephemeral folders whose lock is free: their programs have ended.
func makeEphemeral(parent string) (*folder, error) {
	// Other users can create files there: follow no link, and wait for no FIFO.
	const flags = os.O_RDONLY | syscall.O_DIRECTORY | syscall.O_NOFOLLOW
	leftovers, _ := filepath.Glob(filepath.Join(parent, ephemeralPrefix+"*"))
	for _, dir := range leftovers {
		if lock, err := lockFile(dir, flags); err == nil {
			os.RemoveAll(dir) // fails on a folder of another user
			lock.Close()
		}
	}
	for {
		dir, err := os.MkdirTemp(parent, ephemeralPrefix)
		if err != nil {
			return nil, err
		}
		lock, err := lockFile(dir, flags)
		if err == nil {
			// The servers' user must be able to enter subfolders, but not to list them.
			if err = os.Chmod(dir, 0o711); err == nil {
				return &folder{dir: dir, ephemeral: true, lock: lock}, nil
			}
			lock.Close()
		}
		// Before it was locked, another process may have removed it as a leftover.
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
	}
}

// lockFile opens a file and locks it. It returns EWOULDBLOCK if another process
// holds the lock.
func lockFile(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil
}

// scratchDir returns the fastest parent for an ephemeral folder: one in RAM, if
// more than a gigabyte is free there.
func scratchDir() string {
	const ram, writable = "/dev/shm", 2
	var stat syscall.Statfs_t
	if syscall.Statfs(ram, &stat) == nil && uint64(stat.Bavail)*uint64(stat.Bsize) > 1<<30 &&
		syscall.Access(ram, writable) == nil {
		return ram
	}
	return os.TempDir()
}
