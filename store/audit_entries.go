package store

import (
	"context"
	"time"

	"caracal.run/management/gen/db"
)

// An AuditFilter selects audit entries. A nil field, and a zero time, select all.
type AuditFilter struct {
	Since, Until                                     time.Time // at or after; before
	ActorID, EntityType, EntityID, Method, RequestID *string
	StatusCode                                       *int32
}

// A ListedAuditEntry is an audit entry with its seal. Its ChainSeq is 0 if it is not
// sealed yet.
type ListedAuditEntry = db.ListAuditEntriesRow

// AuditEntries returns a page of a zone's audit entries that match a filter, newest
// first, with their seals. [NoZone] has the entries that belong to no zone. If several
// fields of the filter each select many entries, and few entries match all of them, it
// returns filters_too_broad.
func (s *Store) AuditEntries(ctx context.Context, zone string, f AuditFilter, p Page) ([]ListedAuditEntry, error) {
	conn, mapTimeout := s.auditEntryReads(zone, f)
	entries, err := auditEntries(ctx, db.New(conn), zone, f, p)
	return entries, mapTimeout(err)
}

// EachAuditEntry calls visit with each entry of a page like that of AuditEntries. An entry
// is valid until visit returns: visit must copy what it keeps, such as texts.
func (s *Store) EachAuditEntry(ctx context.Context, zone string, f AuditFilter, p Page, visit func(*ListedAuditEntry)) error {
	conn, mapTimeout := s.auditEntryReads(zone, f)
	return mapTimeout(eachRow(conn, func(q *db.Queries) ([]ListedAuditEntry, error) { return auditEntries(ctx, q, zone, f, p) }, visit))
}

// auditEntryReads returns the connection for a page, and a function that maps the error of
// its query.
func (s *Store) auditEntryReads(zone string, f AuditFilter) (conn db.DBTX, mapTimeout func(error) error) {
	if f.hasSeveral() {
		return s.searchReads(zone), filtersTooBroad
	}
	return s.listReads(zone), func(err error) error { return err }
}

// hasSeveral reports whether several fields are set, other than the times.
func (f AuditFilter) hasSeveral() bool {
	n := 0
	for _, isSet := range []bool{f.ActorID != nil, f.EntityType != nil, f.EntityID != nil, f.Method != nil, f.RequestID != nil, f.StatusCode != nil} {
		if isSet {
			n++
		}
	}
	return n > 1
}

func auditEntries(ctx context.Context, q *db.Queries, zone string, f AuditFilter, p Page) ([]ListedAuditEntry, error) {
	at := p.After
	if !f.Until.IsZero() && !at.Time.Before(f.Until) {
		at = Position{Time: f.Until} // precedes every entry at that time
	}
	switch {
	case f.RequestID != nil:
		return listedEntries(q.ListAuditEntriesByRequest(ctx, db.ListAuditEntriesByRequestParams{
			ZoneID: zone, RequestID: *f.RequestID, BeforeTime: at.Time, BeforeID: at.ID, Since: f.Since, RowLimit: p.Limit + 1,
			EntityID: f.EntityID, ActorID: f.ActorID, StatusCode: f.StatusCode, EntityType: f.EntityType, Method: f.Method,
		}))
	case f.EntityID != nil:
		return listedEntries(q.ListAuditEntriesByEntity(ctx, db.ListAuditEntriesByEntityParams{
			ZoneID: zone, EntityID: f.EntityID, BeforeTime: at.Time, BeforeID: at.ID, Since: f.Since, RowLimit: p.Limit + 1,
			ActorID: f.ActorID, StatusCode: f.StatusCode, EntityType: f.EntityType, Method: f.Method,
		}))
	case f.ActorID != nil:
		return listedEntries(q.ListAuditEntriesByActor(ctx, db.ListAuditEntriesByActorParams{
			ZoneID: zone, ActorID: f.ActorID, BeforeTime: at.Time, BeforeID: at.ID, Since: f.Since, RowLimit: p.Limit + 1,
			StatusCode: f.StatusCode, EntityType: f.EntityType, Method: f.Method,
		}))
	case f.StatusCode != nil:
		return listedEntries(q.ListAuditEntriesByStatusCode(ctx, db.ListAuditEntriesByStatusCodeParams{
			ZoneID: zone, StatusCode: *f.StatusCode, BeforeTime: at.Time, BeforeID: at.ID, Since: f.Since, RowLimit: p.Limit + 1,
			EntityType: f.EntityType, Method: f.Method,
		}))
	case f.EntityType != nil:
		return listedEntries(q.ListAuditEntriesByEntityType(ctx, db.ListAuditEntriesByEntityTypeParams{
			ZoneID: zone, EntityType: f.EntityType, BeforeTime: at.Time, BeforeID: at.ID, Since: f.Since, RowLimit: p.Limit + 1, Method: f.Method,
		}))
	case f.Method != nil:
		return listedEntries(q.ListAuditEntriesByMethod(ctx, db.ListAuditEntriesByMethodParams{
			ZoneID: zone, Method: *f.Method, BeforeTime: at.Time, BeforeID: at.ID, Since: f.Since, RowLimit: p.Limit + 1,
		}))
	}
	return q.ListAuditEntries(ctx, db.ListAuditEntriesParams{ZoneID: zone, BeforeTime: at.Time, BeforeID: at.ID, Since: f.Since, RowLimit: p.Limit + 1})
}

func listedEntries(rows []db.ListedAuditEntry, err error) ([]ListedAuditEntry, error) {
	entries := make([]ListedAuditEntry, len(rows))
	for i, row := range rows {
		entries[i] = ListedAuditEntry(row)
	}
	return entries, err
}
