package server_test

import (
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
)

// callAuditEventOperations calls the operations on authorization audit events.
func callAuditEventOperations(t *testing.T, a *servertest.API, c *client.Client) {
	ctx := t.Context()
	ingestEvents(t, a, "zone-of-events", 3)
	if head := result(c.GetAuditEventHead(ctx, "zone-of-events"))(t); head.Seq != "3" {
		t.Errorf("got %+v", head)
	}
	if got := result(c.VerifyAuditEvents(ctx, "zone-of-events", client.VerifyAuditEventsParams{FromSeq: 2}))(t); !got.Valid || got.EventsChecked != 2 {
		t.Errorf("got %+v", got)
	}
	if got := result(c.UpdateAuditRetention(ctx, client.AuditRetentionUpdate{RetentionDays: 90}))(t); got.RetentionDays != 90 {
		t.Errorf("got %+v", got)
	}
	if got := result(c.GetAuditRetention(ctx))(t); got.RetentionDays != 90 {
		t.Errorf("got %+v", got)
	}
}
