package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/server/timestamp"
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
	entries := table[db.ListedAuditEntry, selectedRow[api.AuditEntry]]{
		name: "admin-audit", zone: zone, columns: selected.columns(),
		convert:  func(e db.ListedAuditEntry) selectedRow[api.AuditEntry] { return selected.row(toAuditEntry(e)) },
		position: func(e db.ListedAuditEntry) store.Position { return store.Position{Time: e.OccurredAt, ID: e.ID} },
		page: func(ctx context.Context, from *store.Store, p store.Page) ([]db.ListedAuditEntry, error) {
			return from.AuditEntries(ctx, zone, filter, p)
		},
	}
	if isExport(p.Format) {
		return exportOf(ctx, s, entries, *p.Format, page.After), nil
	}
	rows, err := entries.page(ctx, s.storeFor(ctx), page)
	if err != nil {
		return nil, err
	}
	rows, link, next := paginateRows(ctx, rows, page, scope, entries.position)
	return auditEntryPage{mapSlice(rows, entries.convert), next, link}, nil
}

// An auditEntryResponse is a response of both lists: a page or an export.
type auditEntryResponse interface {
	api.ListAuditEntriesResponseObject
	api.ListZonelessAuditEntriesResponseObject
}

// An auditEntryPage is a page of entries with the fields that the request selects.
type auditEntryPage struct {
	rows       []selectedRow[api.AuditEntry]
	next, link *string
}

// VisitListAuditEntriesResponse writes the response.
func (p auditEntryPage) VisitListAuditEntriesResponse(w http.ResponseWriter) error {
	if p.link != nil {
		w.Header().Set("Link", *p.link)
	}
	return jsonresponse.Write(w, http.StatusOK, p)
}

// VisitListZonelessAuditEntriesResponse writes the response.
func (p auditEntryPage) VisitListZonelessAuditEntriesResponse(w http.ResponseWriter) error {
	return p.VisitListAuditEntriesResponse(w)
}

// AppendJSON appends the page as an object.
func (p auditEntryPage) AppendJSON(b []byte) []byte {
	b = append(b, `{"rows":[`...)
	for i, row := range p.rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = row.AppendJSON(b)
	}
	b = append(b, `],"next_cursor":`...)
	if p.next == nil {
		return append(b, "null}"...)
	}
	return append(jsonresponse.AppendString(b, *p.next), '}')
}

// auditEntryFields are the fields that a request can select, the first ones of which are
// the columns of CSV by default.
var auditEntryFields = selection[api.AuditEntry]{csv: []field[api.AuditEntry]{
	textField("id", func(e api.AuditEntry) string { return e.ID }),
	timeField("occurred_at", func(e api.AuditEntry) time.Time { return time.Time(e.OccurredAt) }),
	textField("action", func(e api.AuditEntry) string { return e.Action }),
	textField("method", func(e api.AuditEntry) string { return e.Method }),
	textField("path", func(e api.AuditEntry) string { return e.Path }),
	optionalField("entity_type", func(e api.AuditEntry) *string { return e.EntityType }),
	optionalField("entity_id", func(e api.AuditEntry) *string { return e.EntityID }),
	{"status_code", func(b []byte, e api.AuditEntry) []byte { return strconv.AppendInt(b, int64(e.StatusCode), 10) }},
	optionalField("actor_id", func(e api.AuditEntry) *string { return e.ActorID }),
	textField("actor_name", func(e api.AuditEntry) string { return e.ActorName }),
	optionalField("actor_scope", func(e api.AuditEntry) *string { return e.ActorScope }),
	textField("request_id", func(e api.AuditEntry) string { return e.RequestID }),
	optionalField("chain_seq", func(e api.AuditEntry) *string { return e.ChainSeq }),
	{"signed", func(b []byte, e api.AuditEntry) []byte { return strconv.AppendBool(b, e.Signed) }},
	{"changed_fields", changedFields},
}, more: []field[api.AuditEntry]{
	optionalField("zone_id", func(e api.AuditEntry) *string { return e.ZoneID }),
	textField("operation", func(e api.AuditEntry) string { return e.Operation }),
	optionalField("previous_hash", func(e api.AuditEntry) *string { return e.PreviousHash }),
	optionalField("hash", func(e api.AuditEntry) *string { return e.Hash }),
	optionalField("mac", func(e api.AuditEntry) *string { return e.Mac }),
}}

// changedFields appends the names of the changed fields, or null for a denied request.
func changedFields(b []byte, e api.AuditEntry) []byte {
	start := len(b)
	if e.PayloadJSON != nil {
		jsonresponse.EachField(string(*e.PayloadJSON), func(name, value string) {
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
