package server

import (
	"context"
	"slices"
	"strconv"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/store"
)

// ListAuditEvents handles GET /v1/zones/{zoneId}/audit.
func (s *Server) ListAuditEvents(ctx context.Context, req api.ListAuditEventsRequestObject) (api.ListAuditEventsResponseObject, error) {
	selected, err := selectFields(req.Params.Fields, auditEventFields)
	if err != nil {
		return nil, err
	}
	since, err := parseQueryTime(req.Params.Since, "since")
	if err != nil {
		return nil, err
	}
	until, err := parseQueryTime(req.Params.Until, "until")
	if err != nil {
		return nil, err
	}
	scope := "audit events of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, new(valueOr(req.Params.Limit, defaultRowLimit)), scope)
	if err != nil {
		return nil, err
	}
	filter := store.AuditEventFilter{
		RequestID: req.Params.RequestID, SessionID: req.Params.SessionID, AgentSessionID: req.Params.AgentSessionID, Label: req.Params.Label,
		ApplicationID: req.Params.ApplicationID, EventType: req.Params.EventType, Decision: (*string)(req.Params.Decision), Since: since, Until: until,
	}
	returned := selected.page
	if isExport(req.Params.Format) {
		if returned = selected.ndjson; *req.Params.Format == api.ListFormatCSV {
			returned = selected.csv
		}
	}
	withEvidence := slices.ContainsFunc(returned, isEvidence)
	events := table[*auditEvent, selectedRow[*auditEvent]]{
		name: "audit", zone: req.ZoneID, columns: selected.columns(), convert: selected.exported,
		position: func(e *auditEvent) store.Position { return store.Position{Time: e.OccurredAt, ID: e.ID} },
		page: func(ctx context.Context, from *store.Store, p store.Page) ([]*auditEvent, error) {
			rows, err := from.AuditEvents(ctx, req.ZoneID, filter, p)
			events := make([]auditEvent, len(rows))
			for i := range rows {
				events[i].ListedAuditEvent = &rows[i]
			}
			if withEvidence && err == nil {
				var whole []db.AuditEvent
				whole, err = from.WholeAuditEvents(ctx, req.ZoneID, rows)
				for i := range whole {
					events[i].whole = &whole[i]
				}
			}
			return pointers(events), err
		},
	}
	if isExport(req.Params.Format) {
		return exportOf(ctx, s, events, *req.Params.Format, page.After), nil
	}
	return selectPage(ctx, page, scope, selected.page, events.position, func(visit func(*auditEvent)) error {
		if !withEvidence {
			var event auditEvent
			return s.storeFor(ctx).EachAuditEvent(ctx, req.ZoneID, filter, page, func(e *db.ListedAuditEvent) {
				event = auditEvent{ListedAuditEvent: e}
				visit(&event)
			})
		}
		rows, err := events.page(ctx, s.storeFor(ctx), page)
		for _, row := range rows {
			visit(row)
		}
		return err
	})
}

// An auditEvent is a row of the list of audit events.
type auditEvent struct {
	*db.ListedAuditEvent
	whole  *db.AuditEvent // nil if the request selects no evidence
	values []string       // of the metadata that can be selected, in JSON; "" for a field that it does not have
}

// metadataFields are the fields of the metadata that a request can select.
var metadataFields = []string{
	"application_id", "application_name", "resource", "requested_scopes", "agent_session_id", "agent_lifecycle", "agent_labels", "delegation_edge_id",
	"delegation_hop_count", "method", "latency_ms", "upstream_status", "result_class", "reason",
}

// evidence are the fields with which the content and the place of an event in the chain
// can be verified. They are in newline-delimited JSON by default.
var evidence = []field[*auditEvent]{
	{"occurred_at_ns", func(b []byte, e *auditEvent) []byte {
		return append(strconv.AppendInt(append(b, '"'), e.OccurredAt.UnixNano(), 10), '"')
	}},
	optionalField("policy_set_id", func(e *auditEvent) *string { return e.whole.PolicySetID }),
	optionalField("policy_set_version_id", func(e *auditEvent) *string { return e.whole.PolicySetVersionID }),
	optionalField("manifest_sha", func(e *auditEvent) *string { return e.whole.ManifestSha }),
	{"determining_policies_json", func(b []byte, e *auditEvent) []byte {
		return jsonresponse.AppendRedacted(b, valueOr(e.whole.DeterminingPolicies, ""))
	}},
	{"diagnostics_json", func(b []byte, e *auditEvent) []byte {
		return jsonresponse.AppendRedacted(b, valueOr(e.whole.Diagnostics, ""))
	}},
	{"chain_seq", func(b []byte, e *auditEvent) []byte {
		return append(strconv.AppendInt(append(b, '"'), e.whole.ChainSeq, 10), '"')
	}},
	textField("content_sha256", func(e *auditEvent) string { return e.whole.ContentSHA256 }),
	optionalField("prev_content_sha256", func(e *auditEvent) *string { return e.whole.PrevContentSHA256 }),
	optionalField("chain_hmac", func(e *auditEvent) *string { return e.whole.ChainHmac }),
}

func isEvidence(f field[*auditEvent]) bool {
	return slices.ContainsFunc(evidence, func(e field[*auditEvent]) bool { return e.name == f.name })
}

// auditEventFields are the fields of audit events that are returned by default: in pages
// those of the event, in newline-delimited JSON also the evidence, and as CSV all others
// that can be selected.
var auditEventFields = func() selection[*auditEvent] {
	id := textField("id", func(e *auditEvent) string { return e.ID })
	occurredAt := timeField("occurred_at", func(e *auditEvent) time.Time { return e.OccurredAt })
	eventType := optionalField("event_type", func(e *auditEvent) *string { return e.EventType })
	decision := optionalField("decision", func(e *auditEvent) *string { return e.Decision })
	status := optionalField("evaluation_status", func(e *auditEvent) *string { return e.EvaluationStatus })
	requestID := optionalField("request_id", func(e *auditEvent) *string { return e.RequestID })
	ingestedAt := timeField("ingested_at", func(e *auditEvent) time.Time { return e.IngestedAt })
	page := []field[*auditEvent]{
		id, textField("zone_id", func(e *auditEvent) string { return e.ZoneID }), eventType, requestID, decision, status,
		{"metadata_json", func(b []byte, e *auditEvent) []byte { return jsonresponse.AppendRedacted(b, valueOr(e.Metadata, "")) }},
		occurredAt, ingestedAt,
	}
	fields := selection[*auditEvent]{
		page: page, ndjson: slices.Concat(page, evidence), more: evidence,
		csv: []field[*auditEvent]{id, occurredAt, eventType, decision, status, requestID, ingestedAt},
	}
	for i, name := range metadataFields {
		fields.csv = append(fields.csv, field[*auditEvent]{name, func(b []byte, e *auditEvent) []byte {
			if value := e.metadataValue(i); value != "" {
				return jsonresponse.AppendRedacted(b, value)
			}
			return b
		}})
	}
	return fields
}()

// metadataValue returns the value of one of the metadataFields in JSON, or "" if the
// metadata does not have it.
func (e *auditEvent) metadataValue(i int) string {
	if e.values == nil {
		e.values = make([]string, len(metadataFields))
		jsonresponse.EachField(valueOr(e.Metadata, ""), func(name, value string) {
			if i := slices.Index(metadataFields, name); i >= 0 {
				e.values[i] = value
			}
		})
	}
	return e.values[i]
}
