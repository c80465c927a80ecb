//go:build unix

package main

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkPrivate returns an error unless a file with credentials belongs to the caller, who
// alone can read or write it.
func checkPrivate(name string, info fs.FileInfo) error {
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user: it must be yours, because it contains credentials", name)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s contains credentials, and its permissions %04o let other users use it: run chmod 600 %[1]s", name, mode)
	}
	return nil
}
