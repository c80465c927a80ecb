package server_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
)

// callAuditOperations calls the operations on audit entries.
func callAuditOperations(t *testing.T, c *client.Client) {
	ctx := t.Context()
	zone := result(c.CreateZone(ctx, client.NewZone{Name: "Zone"}))(t)
	app := result(c.CreateApplication(ctx, zone.ID, client.NewApplication{Name: "App", RegistrationMethod: "managed"}))(t)
	result(c.CreateAdminToken(ctx, client.NewAdminToken{Name: "token", Scope: client.AdminTokenScopeGlobal}))(t)
	if page := result(c.ListAuditEntries(ctx, zone.ID, client.Limit(1)))(t); len(page.Items) != 1 || *page.Items[0].EntityID != app.ID || page.Next == "" {
		t.Errorf("got %+v", page)
	}
	for entry, err := range c.AuditEntries(ctx, zone.ID, client.ListAuditEntriesParams{Method: client.AuditMethodPOST, EntityType: "zones"}) {
		if got := result(entry, err)(t); *got.EntityID != zone.ID || got.Operation != "createZone" || *got.ZoneID != zone.ID {
			t.Errorf("got %+v", got)
		}
	}
	for entry, err := range c.ZonelessAuditEntries(ctx, client.ListZonelessAuditEntriesParams{EntityType: "admin-tokens"}) {
		if got := result(entry, err)(t); got.ZoneID != nil {
			t.Errorf("got %+v", got)
		}
	}
	if page := result(c.ListZonelessAuditEntries(ctx, client.Limit(1)))(t); len(page.Items) != 1 {
		t.Errorf("got %+v", page)
	}
	if head, zoneless := result(c.GetAuditHead(ctx, zone.ID))(t), result(c.GetZonelessAuditHead(ctx))(t); *head.ZoneID != zone.ID || zoneless.ZoneID != nil {
		t.Errorf("the heads are %+v and %+v", head, zoneless)
	}
	if got, zoneless := result(c.VerifyAuditEntries(ctx, zone.ID, client.VerifyAuditEntriesParams{}))(t), result(c.VerifyZonelessAuditEntries(ctx, client.VerifyZonelessAuditEntriesParams{}))(t); !got.Valid || !zoneless.Valid || !got.Complete || !got.SignaturesChecked {
		t.Errorf("got %+v and %+v", got, zoneless)
	}
	eventually(t, "the changes are events", func() bool {
		events := result(c.ListZoneEvents(ctx, zone.ID))(t).Items
		return len(events) == 2 && events[1].Type == "applications.created" && events[1].EntityID == app.ID
	})
	for _, export := range []*client.Export{
		result(c.ExportAuditEntries(ctx, zone.ID, client.ListFormatNDJSON))(t),
		result(c.ExportZonelessAuditEntries(ctx, client.ListFormatCSV, client.ListZonelessAuditEntriesParams{EntityType: "admin-tokens"}))(t),
	} {
		text, err := io.ReadAll(export)
		if err := errors.Join(err, export.Close()); err != nil || export.Rows() == 0 || !strings.Contains(string(text), "POST /v1/") {
			t.Errorf("exported %d rows: %s, %v", export.Rows(), text, err)
		}
	}
}
