package server

import (
	"context"
	"errors"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/middleware"
)

// A request that failed before it was an invocation changed nothing if it was denied. If the
// service failed, an earlier attempt with the same idempotency key may have changed something.
func TestRecordRejected(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{code.InvalidJSON.Because(errors.New("is truncated")), outcomeDenied},
		{code.ServiceUnavailable.Because(context.DeadlineExceeded), outcomeUnknown},
		{errors.New("a bug"), outcomeUnknown},
	} {
		s := &Server{auditEvents: newAuditPublisher(nil, nil, nil)}
		s.recordRejected(&middleware.RequestInfo{Control: &middleware.ControlCaller{}}, tt.err)
		if got := (<-s.auditEvents.queue).Metadata.(controlMetadata).Outcome; got != tt.want {
			t.Errorf("%v: the outcome is %q, want %q", tt.err, got, tt.want)
		}
	}
}
