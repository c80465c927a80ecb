package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// An AuditEventFilter selects authorization audit events. A nil field and a zero time
// select all.
type AuditEventFilter struct {
	RequestID, SessionID, AgentSessionID, Label, ApplicationID, EventType, Decision *string
	Since, Until                                                                    time.Time // since is inclusive, until exclusive
}

// AuditEvents returns a page of a zone's authorization audit events that match a filter,
// newest first. The zone need not exist.
//
// It scans the index of the field of the filter that selects the fewest events. If several
// fields each select many events, and few events match all of them, it returns
// filters_too_broad.
func (s *Store) AuditEvents(ctx context.Context, zone string, f AuditEventFilter, p Page) ([]db.ListedAuditEvent, error) {
	list, err := s.auditEventList(ctx, zone, f, p)
	if err != nil {
		return nil, err
	}
	events, err := list.page(ctx, db.New(list.conn))
	return events, list.mapTimeout(err)
}

// EachAuditEvent calls visit with each event of a page like that of AuditEvents. An event
// is valid until visit returns: visit must copy what it keeps, such as texts.
func (s *Store) EachAuditEvent(ctx context.Context, zone string, f AuditEventFilter, p Page, visit func(*db.ListedAuditEvent)) error {
	list, err := s.auditEventList(ctx, zone, f, p)
	if err != nil {
		return err
	}
	return list.mapTimeout(eachRow(list.conn, func(q *db.Queries) ([]db.ListedAuditEvent, error) { return list.page(ctx, q) }, visit))
}

// An auditEventList is a page of audit events that is to be read.
type auditEventList struct {
	zone   string
	filter AuditEventFilter
	after  Position
	limit  int32
	by     string // the field of the filter whose index is scanned; "" for none
	conn   db.DBTX
}

func (s *Store) auditEventList(ctx context.Context, zone string, f AuditEventFilter, p Page) (auditEventList, error) {
	list := auditEventList{zone: zone, filter: f, after: p.After, limit: p.Limit + 1, conn: s.listReads(zone)}
	if !f.Until.IsZero() && !list.after.Time.Before(f.Until) {
		list.after = Position{Time: f.Until} // precedes all rows of this time
	}
	by, selectsMany, err := f.mostSelective(ctx, s.inOrder(), zone, list.after.Time, f.Since)
	list.by = by
	if selectsMany {
		list.conn = s.searchReads(zone)
	}
	return list, list.mapTimeout(err)
}

// mapTimeout returns filters_too_broad in place of a timeout if the filter has several
// fields.
func (l auditEventList) mapTimeout(err error) error {
	if len(l.filter.fields()) > 1 {
		return filtersTooBroad(err)
	}
	return err
}

// page returns the page from the index of its field.
func (l auditEventList) page(ctx context.Context, q *db.Queries) ([]db.ListedAuditEvent, error) {
	zone, f, before, since, limit := l.zone, l.filter, l.after, l.filter.Since, l.limit
	switch l.by {
	case "request_id":
		return q.ListAuditEventsByRequest(ctx, db.ListAuditEventsByRequestParams{
			ZoneID: zone, RequestID: *f.RequestID, SessionID: f.SessionID, AgentSessionID: f.AgentSessionID, Label: f.Label, ApplicationID: f.ApplicationID,
			EventType: f.EventType, Decision: f.Decision, BeforeTime: before.Time, BeforeID: before.ID, Since: since, RowLimit: limit,
		})
	case "session_id":
		return q.ListAuditEventsBySession(ctx, db.ListAuditEventsBySessionParams{
			ZoneID: zone, SessionID: *f.SessionID, RequestID: f.RequestID, AgentSessionID: f.AgentSessionID, Label: f.Label, ApplicationID: f.ApplicationID,
			EventType: f.EventType, Decision: f.Decision, BeforeTime: before.Time, BeforeID: before.ID, Since: since, RowLimit: limit,
		})
	case "agent_session_id":
		return q.ListAuditEventsByAgentSession(ctx, db.ListAuditEventsByAgentSessionParams{
			ZoneID: zone, AgentSessionID: *f.AgentSessionID, RequestID: f.RequestID, SessionID: f.SessionID, Label: f.Label, ApplicationID: f.ApplicationID,
			EventType: f.EventType, Decision: f.Decision, BeforeTime: before.Time, BeforeID: before.ID, Since: since, RowLimit: limit,
		})
	case "label":
		return q.ListAuditEventsByLabel(ctx, db.ListAuditEventsByLabelParams{
			ZoneID: zone, Label: *f.Label, RequestID: f.RequestID, SessionID: f.SessionID, AgentSessionID: f.AgentSessionID, ApplicationID: f.ApplicationID,
			EventType: f.EventType, Decision: f.Decision, BeforeTime: before.Time, BeforeID: before.ID, Since: since, RowLimit: limit,
		})
	case "application_id":
		return q.ListAuditEventsByApplication(ctx, db.ListAuditEventsByApplicationParams{
			ZoneID: zone, ApplicationID: *f.ApplicationID, RequestID: f.RequestID, SessionID: f.SessionID, AgentSessionID: f.AgentSessionID, Label: f.Label,
			EventType: f.EventType, Decision: f.Decision, BeforeTime: before.Time, BeforeID: before.ID, Since: since, RowLimit: limit,
		})
	case "event_type":
		return q.ListAuditEventsByType(ctx, db.ListAuditEventsByTypeParams{
			ZoneID: zone, EventType: *f.EventType, RequestID: f.RequestID, SessionID: f.SessionID, AgentSessionID: f.AgentSessionID, Label: f.Label,
			ApplicationID: f.ApplicationID, Decision: f.Decision, BeforeTime: before.Time, BeforeID: before.ID, Since: since, RowLimit: limit,
		})
	case "decision":
		return q.ListAuditEventsByDecision(ctx, db.ListAuditEventsByDecisionParams{
			ZoneID: zone, Decision: *f.Decision, RequestID: f.RequestID, SessionID: f.SessionID, AgentSessionID: f.AgentSessionID, Label: f.Label,
			ApplicationID: f.ApplicationID, EventType: f.EventType, BeforeTime: before.Time, BeforeID: before.ID, Since: since, RowLimit: limit,
		})
	}
	return q.ListAuditEvents(ctx, db.ListAuditEventsParams{ZoneID: zone, BeforeTime: before.Time, BeforeID: before.ID, Since: since, RowLimit: limit})
}

// WholeAuditEvents returns listed audit events of a zone with all columns, in their order.
// In place of one that retention has dropped meanwhile, it returns one without columns.
func (s *Store) WholeAuditEvents(ctx context.Context, zone string, listed []db.ListedAuditEvent) ([]db.AuditEvent, error) {
	type key struct {
		id         string
		occurredAt int64
	}
	p := db.GetAuditEventsParams{ZoneID: zone, Ids: make([]string, len(listed)), OccurredAts: make([]time.Time, len(listed))}
	places := make(map[key]int, len(listed))
	for i, e := range listed {
		p.Ids[i], p.OccurredAts[i] = e.ID, e.OccurredAt
		places[key{e.ID, e.OccurredAt.UnixMicro()}] = i
	}
	rows, err := s.inOrder().GetAuditEvents(ctx, p)
	whole := make([]db.AuditEvent, len(listed))
	for _, e := range rows {
		whole[places[key{e.ID, e.OccurredAt.UnixMicro()}]] = e
	}
	return whole, err
}

// fields returns the names of the fields of a filter that are set, other than the times.
func (f AuditEventFilter) fields() []string {
	var fields []string // in case of a tie, the first counts
	for _, one := range []struct {
		name  string
		value *string
	}{
		{"request_id", f.RequestID}, {"session_id", f.SessionID}, {"agent_session_id", f.AgentSessionID}, {"label", f.Label}, {"application_id", f.ApplicationID},
		{"event_type", f.EventType}, {"decision", f.Decision},
	} {
		if one.value != nil {
			fields = append(fields, one.name)
		}
	}
	return fields
}

// mostSelective returns the field of a filter, other than the times, that selects the
// fewest events between two times, or "" for a filter without such fields. If there is a
// choice, it counts up to a few hundred events for each field, and reports whether each
// selects at least as many.
func (f AuditEventFilter) mostSelective(ctx context.Context, q *db.Queries, zone string, before, since time.Time) (field string, selectsMany bool, err error) {
	const maxCount = 500
	fields := f.fields()
	switch len(fields) {
	case 0:
		return "", false, nil
	case 1:
		return fields[0], false, nil
	}
	rows, err := q.CountAuditEventsByFilter(ctx, db.CountAuditEventsByFilterParams{
		ZoneID: zone, RequestID: f.RequestID, SessionID: f.SessionID, AgentSessionID: f.AgentSessionID, Label: f.Label, ApplicationID: f.ApplicationID,
		EventType: f.EventType, Decision: f.Decision, BeforeTime: before, Since: since, RowLimit: maxCount,
	})
	if err != nil {
		return "", false, err
	}
	counts := map[string]int64{}
	for _, r := range rows {
		counts[r.Filter] = r.Count
	}
	field = slices.MinFunc(fields, func(a, b string) int { return cmp.Compare(counts[a], counts[b]) })
	return field, counts[field] == maxCount, nil
}

// AuditEventsOfRequest returns a page of the authorization audit events of a request,
// oldest first: all, or those with a decision. The zone need not exist.
func (s *Store) AuditEventsOfRequest(ctx context.Context, zone, request string, decision *string, p Page) ([]db.AuditEvent, error) {
	after := p.After
	if after == FirstPosition {
		after = Position{} // precedes every row in this order
	}
	return s.inOrder().ListAuditEventsOfRequest(ctx, db.ListAuditEventsOfRequestParams{
		ZoneID: zone, RequestID: request, Decision: decision, AfterTime: after.Time, AfterID: after.ID, RowLimit: p.Limit + 1,
	})
}

// A RequestDecision is the decision about a request, with its authorization audit events
// and those of them that deny it, oldest first.
type RequestDecision struct {
	Decision       string // of the request; "unknown" if its last event has none
	Events, Denied []db.AuditEvent
	Truncated      bool // there are more events
}

// RequestDecision returns the decision about a request, with at most so many events and
// denied events. It returns request_not_found if the request has no events.
func (s *Store) RequestDecision(ctx context.Context, zone, request string, limit int32) (RequestDecision, error) {
	const unknown, deny = "unknown", "deny"
	var d RequestDecision
	page := Page{After: FirstPosition, Limit: limit}
	events, err := s.AuditEventsOfRequest(ctx, zone, request, nil, page)
	switch {
	case err != nil:
		return d, err
	case len(events) == 0:
		return d, code.RequestNotFound
	case len(events) <= int(limit):
		d.Events, d.Decision = events, unknown
		if last := events[len(events)-1].Decision; last != nil {
			d.Decision = *last
		}
		for _, e := range events {
			if e.Decision != nil && *e.Decision == deny {
				d.Denied, d.Decision = append(d.Denied, e), deny
			}
		}
		return d, nil
	}
	d.Events, d.Truncated = events[:limit], true
	if d.Denied, err = s.AuditEventsOfRequest(ctx, zone, request, new(deny), page); err != nil {
		return d, err
	}
	if len(d.Denied) > 0 {
		d.Denied, d.Decision = d.Denied[:min(len(d.Denied), int(limit))], deny
		return d, nil
	}
	newest, err := s.AuditEvents(ctx, zone, AuditEventFilter{RequestID: &request}, Page{After: FirstPosition, Limit: 1})
	d.Decision = unknown
	if len(newest) > 0 && newest[0].Decision != nil {
		d.Decision = *newest[0].Decision
	}
	return d, err
}
