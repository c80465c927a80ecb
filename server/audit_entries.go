package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ListAuditEntries handles GET /v1/zones/{zoneId}/admin-audit.
func (s *Server) ListAuditEntries(ctx context.Context, req api.ListAuditEntriesRequestObject) (api.ListAuditEntriesResponseObject, error) {
	body, link, export, err := s.auditEntries(ctx, req.ZoneID, req.Params)
	if err != nil || export != nil {
		return export, err
	}
	return api.ListAuditEntries200JSONResponse{Body: body, Headers: api.ListAuditEntries200ResponseHeaders{Link: link}}, nil
}

// ListZonelessAuditEntries handles GET /v1/admin-audit.
func (s *Server) ListZonelessAuditEntries(ctx context.Context, req api.ListZonelessAuditEntriesRequestObject) (api.ListZonelessAuditEntriesResponseObject, error) {
	body, link, export, err := s.auditEntries(ctx, store.NoZone, api.ListAuditEntriesParams(req.Params))
	if err != nil || export != nil {
		return export, err
	}
	return api.ListZonelessAuditEntries200JSONResponse{Body: body, Headers: api.ListZonelessAuditEntries200ResponseHeaders{Link: link}}, nil
}

// auditEntries returns a page of entries and the link to the next one, or an export.
func (s *Server) auditEntries(ctx context.Context, zone string, p api.ListAuditEntriesParams) (body api.AuditEntryPage, link *string, _ export, _ error) {
	scope := "audit entries of " + zone
	page, err := parsePage(ctx, p.Cursor, new(valueOr(p.Limit, defaultRowLimit)), scope)
	if err != nil {
		return body, nil, nil, err
	}
	filter := store.AuditFilter{ActorID: p.ActorID, EntityType: p.EntityType, EntityID: p.EntityID, Method: (*string)(p.Method), RequestID: p.RequestID}
	if p.StatusCode != nil {
		filter.StatusCode = new(int32(*p.StatusCode))
	}
	if filter.Since, err = parseQueryTime(p.Since, "since"); err != nil {
		return body, nil, nil, err
	}
	if filter.Until, err = parseQueryTime(p.Until, "until"); err != nil {
		return body, nil, nil, err
	}
	entries := table[db.ListedAuditEntry, api.AuditEntry]{
		name: "admin-audit", zone: zone, columns: auditEntryColumns, convert: toAuditEntry,
		position: func(e db.ListedAuditEntry) store.Position { return store.Position{Time: e.OccurredAt, ID: e.ID} },
		page: func(ctx context.Context, from *store.Store, p store.Page) ([]db.ListedAuditEntry, error) {
			return from.AuditEntries(ctx, zone, filter, p)
		},
	}
	if isExport(p.Format) {
		return body, nil, exportOf(ctx, s, entries, *p.Format, page.After), nil
	}
	rows, err := entries.page(ctx, s.storeFor(ctx), page)
	if err != nil {
		return body, nil, nil, err
	}
	rows, link, next := paginateRows(ctx, rows, page, scope, entries.position)
	return api.AuditEntryPage{Rows: mapSlice(rows, toAuditEntry), NextCursor: next}, link, nil, nil
}

var auditEntryColumns = []column[api.AuditEntry]{
	{"id", func(b []byte, e api.AuditEntry) []byte { return append(b, e.ID...) }},
	{"occurred_at", func(b []byte, e api.AuditEntry) []byte { return append(b, e.OccurredAt.String()...) }},
	{"action", func(b []byte, e api.AuditEntry) []byte { return append(b, e.Action...) }},
	{"method", func(b []byte, e api.AuditEntry) []byte { return append(b, e.Method...) }},
	{"path", func(b []byte, e api.AuditEntry) []byte { return append(b, e.Path...) }},
	{"entity_type", func(b []byte, e api.AuditEntry) []byte { return append(b, valueOr(e.EntityType, "")...) }},
	{"entity_id", func(b []byte, e api.AuditEntry) []byte { return append(b, valueOr(e.EntityID, "")...) }},
	{"status_code", func(b []byte, e api.AuditEntry) []byte { return strconv.AppendInt(b, int64(e.StatusCode), 10) }},
	{"actor_id", func(b []byte, e api.AuditEntry) []byte { return append(b, valueOr(e.ActorID, "")...) }},
	{"actor_name", func(b []byte, e api.AuditEntry) []byte { return append(b, e.ActorName...) }},
	{"actor_scope", func(b []byte, e api.AuditEntry) []byte { return append(b, valueOr(e.ActorScope, "")...) }},
	{"request_id", func(b []byte, e api.AuditEntry) []byte { return append(b, e.RequestID...) }},
	{"chain_seq", func(b []byte, e api.AuditEntry) []byte { return append(b, valueOr(e.ChainSeq, "")...) }},
	{"signed", func(b []byte, e api.AuditEntry) []byte { return strconv.AppendBool(b, e.Signed) }},
	{"changed_fields", changedFields},
}

// changedFields appends the names of the changed fields, separated by spaces. A denied
// request has none.
func changedFields(b []byte, e api.AuditEntry) []byte {
	if e.PayloadJSON == nil {
		return b
	}
	start := len(b)
	jsonresponse.EachField(string(*e.PayloadJSON), func(name, value string) {
		if name == "changed_fields" {
			b = cellOf(append(b[:start], value...), start)
		}
	})
	return b
}

func toAuditEntry(e db.ListedAuditEntry) api.AuditEntry {
	entry := api.AuditEntry{
		ID: e.ID, RequestID: e.RequestID, ActorID: e.ActorID, ActorName: e.ActorName, ActorScope: e.ActorScope, Action: e.Action, Method: e.Method,
		Path: e.Path, EntityType: e.EntityType, EntityID: e.EntityID, StatusCode: int(e.StatusCode), OccurredAt: timestamp.Time(e.OccurredAt),
		Signed: e.Mac != nil, Operation: e.Operation,
	}
	if payload := json.RawMessage(e.Payload); json.Valid(payload) { // always, unless someone has changed the row
		entry.PayloadJSON = &payload
	}
	if e.ZoneID != store.NoZone {
		entry.ZoneID = &e.ZoneID
	}
	if e.ChainSeq != nil {
		setSeal(&entry, e)
	}
	return entry
}

// setSeal sets the fields of the seal. Their texts share an allocation, because a page has
// many of them.
func setSeal(entry *api.AuditEntry, e db.ListedAuditEntry) {
	const hexHash = 2 * sha256.Size
	b := make([]byte, 0, 3*hexHash+len("9223372036854775807"))
	b = hex.AppendEncode(hex.AppendEncode(hex.AppendEncode(b, e.Previous), e.Hash), e.Mac)
	text := string(strconv.AppendInt(b, *e.ChainSeq, 10))
	seal := new(struct{ previous, hash, mac, seq string })
	for _, field := range []struct {
		text  *string
		bytes int
	}{{&seal.previous, len(e.Previous)}, {&seal.hash, len(e.Hash)}, {&seal.mac, len(e.Mac)}} {
		*field.text, text = text[:2*field.bytes], text[2*field.bytes:]
	}
	seal.seq = text
	entry.PreviousHash, entry.Hash, entry.ChainSeq = &seal.previous, &seal.hash, &seal.seq
	if e.Mac != nil {
		entry.Mac = &seal.mac
	}
}

// hexText returns bytes in hexadecimal, or nil if there are none.
func hexText(b []byte) *string {
	if b == nil {
		return nil
	}
	return new(hex.EncodeToString(b))
}
