package policy

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadTime returns the processor time of the current thread.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // fails only for an unknown clock
	return time.Duration(t.Nano())
}
