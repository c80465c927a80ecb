package server

import (
	"context"
	"encoding/hex"
	"slices"
	"strconv"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/store"
)

// ListAuditEntries handles GET /v1/zones/{zoneId}/admin-audit.
func (s *Server) ListAuditEntries(ctx context.Context, req api.ListAuditEntriesRequestObject) (api.ListAuditEntriesResponseObject, error) {
	return s.auditEntries(ctx, req.ZoneID, req.Params)
}

// ListZonelessAuditEntries handles GET /v1/admin-audit.
func (s *Server) ListZonelessAuditEntries(ctx context.Context, req api.ListZonelessAuditEntriesRequestObject) (api.ListZonelessAuditEntriesResponseObject, error) {
	return s.auditEntries(ctx, store.NoZone, api.ListAuditEntriesParams(req.Params))
}

// auditEntries returns a page of entries or an export.
func (s *Server) auditEntries(ctx context.Context, zone string, p api.ListAuditEntriesParams) (auditEntryResponse, error) {
	selected, err := selectFields(p.Fields, auditEntryFields)
	if err != nil {
		return nil, err
	}
	scope := "audit entries of " + zone
	page, err := parsePage(ctx, p.Cursor, new(valueOr(p.Limit, defaultRowLimit)), scope)
	if err != nil {
		return nil, err
	}
	filter := store.AuditFilter{ActorID: p.ActorID, EntityType: p.EntityType, EntityID: p.EntityID, Method: (*string)(p.Method), RequestID: p.RequestID}
	if p.StatusCode != nil {
		filter.StatusCode = new(int32(*p.StatusCode))
	}
	if filter.Since, err = parseQueryTime(p.Since, "since"); err != nil {
		return nil, err
	}
	if filter.Until, err = parseQueryTime(p.Until, "until"); err != nil {
		return nil, err
	}
	entries := table[*store.ListedAuditEntry, selectedRow[*store.ListedAuditEntry]]{
		name: "admin-audit", zone: zone, columns: selected.columns(), convert: selected.exported,
		position: func(e *store.ListedAuditEntry) store.Position { return store.Position{Time: e.OccurredAt, ID: e.ID} },
		page: func(ctx context.Context, from *store.Store, p store.Page) ([]*store.ListedAuditEntry, error) {
			rows, err := from.AuditEntries(ctx, zone, filter, p)
			return pointers(rows), err
		},
	}
	if isExport(p.Format) {
		return exportOf(ctx, s, entries, *p.Format, page.After), nil
	}
	return selectPage(ctx, page, scope, selected.page, entries.position, func(visit func(*store.ListedAuditEntry)) error {
		return s.storeFor(ctx).EachAuditEntry(ctx, zone, filter, page, visit)
	})
}

// An auditEntryResponse is a response of both lists: a page or an export.
type auditEntryResponse interface {
	api.ListAuditEntriesResponseObject
	api.ListZonelessAuditEntriesResponseObject
}

// auditEntryFields are the fields of audit entries that are returned by default: in pages
// those of the entry and whether it is sealed, in newline-delimited JSON also those with
// which the seal can be verified.
var auditEntryFields = func() selection[*store.ListedAuditEntry] {
	type entry = *store.ListedAuditEntry
	id := textField("id", func(e entry) string { return e.ID })
	occurredAt := timeField("occurred_at", func(e entry) time.Time { return e.OccurredAt })
	action := textField("action", func(e entry) string { return e.Action })
	method := textField("method", func(e entry) string { return e.Method })
	path := textField("path", func(e entry) string { return e.Path })
	entityType := optionalField("entity_type", func(e entry) *string { return e.EntityType })
	entityID := optionalField("entity_id", func(e entry) *string { return e.EntityID })
	statusCode := field[entry]{"status_code", func(b []byte, e entry) []byte { return strconv.AppendInt(b, int64(e.StatusCode), 10) }}
	actorID := optionalField("actor_id", func(e entry) *string { return e.ActorID })
	actorName := textField("actor_name", func(e entry) string { return e.ActorName })
	actorScope := optionalField("actor_scope", func(e entry) *string { return e.ActorScope })
	requestID := textField("request_id", func(e entry) string { return e.RequestID })
	chainSeq := field[entry]{"chain_seq", func(b []byte, e entry) []byte {
		if e.ChainSeq == 0 {
			return append(b, "null"...)
		}
		return append(strconv.AppendInt(append(b, '"'), e.ChainSeq, 10), '"')
	}}
	signed := field[entry]{"signed", func(b []byte, e entry) []byte { return strconv.AppendBool(b, e.Mac != nil) }}
	payload := field[entry]{"payload_json", func(b []byte, e entry) []byte {
		if !jsonresponse.Valid(e.Payload) { // someone has changed the row
			return append(b, "null"...)
		}
		return jsonresponse.AppendRaw(b, e.Payload)
	}}
	zoneID := field[entry]{"zone_id", func(b []byte, e entry) []byte {
		if e.ZoneID == store.NoZone {
			return append(b, "null"...)
		}
		return jsonresponse.AppendString(b, e.ZoneID)
	}}
	operation := textField("operation", func(e entry) string { return e.Operation })
	seal := []field[entry]{
		hexField("previous_hash", func(e entry) []byte { return e.Previous }),
		hexField("hash", func(e entry) []byte { return e.Hash }),
		hexField("mac", func(e entry) []byte { return e.Mac }),
	}
	page := []field[entry]{id, requestID, actorID, actorName, actorScope, action, method, path, entityType, entityID, statusCode, payload, occurredAt, chainSeq, signed, zoneID, operation}
	return selection[entry]{
		page: page, ndjson: slices.Concat(page, seal),
		csv: []field[entry]{
			id, occurredAt, action, method, path, entityType, entityID, statusCode, actorID, actorName, actorScope, requestID, chainSeq, signed,
			{"changed_fields", changedFields},
		},
		more: slices.Concat([]field[entry]{zoneID, operation}, seal),
	}
}()

// changedFields appends the names of the changed fields, or null for a denied request.
func changedFields(b []byte, e *store.ListedAuditEntry) []byte {
	start := len(b)
	if jsonresponse.Valid(e.Payload) {
		jsonresponse.EachField(e.Payload, func(name, value string) {
			if name == "changed_fields" {
				b = append(b[:start], value...)
			}
		})
	}
	if len(b) == start {
		return append(b, "null"...)
	}
	return b
}

// hexText returns bytes in hexadecimal, or nil if there are none.
func hexText(b []byte) *string {
	if b == nil {
		return nil
	}
	return new(hex.EncodeToString(b))
}
