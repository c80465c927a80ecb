package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/propagation"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/db"
)

// An entry is an audit entry to insert before the commit.
type entry struct {
	zone, action string
	kind         audit.Kind
	id           string
	payload      any
}

// An event is a message to publish to a Redis stream after the commit.
type event struct {
	id           string // its outbox_id
	zone, stream string
	fields       fields
}

type fields map[string]string

func newEvent(zone, stream string, f fields) event { return event{newID(), zone, stream, f} }

// record adds an audit entry for one changed object, and the events to publish.
// They are inserted before the commit, in the same transaction.
func (tx *Tx) record(zone string, kind audit.Kind, id string, c auditChange, events ...event) {
	tx.entries = append(tx.entries, entry{zone: zone, kind: kind, id: id, payload: c})
	tx.publish(events...)
}

// publish adds events, in this order. The transaction must hold their zone's
// lock in exclusive mode.
func (tx *Tx) publish(events ...event) { tx.events = append(tx.events, events...) }

const traceparent = "traceparent" // W3C Trace Context §3.2

// flush queues the insertion of the recorded entries and events, in chunks: one
// request can change thousands of objects. The statements are sent with the commit.
func (tx *Tx) flush(ctx context.Context) error {
	const chunkSize = 5000
	deferred := db.New(deferredConn{tx.conn})
	if tx.revoked {
		if err := errors.Join(deferred.BumpAdminTokensEpoch(ctx), deferred.NotifyAdminTokensRevoked(ctx)); err != nil {
			return err
		}
	}
	if err := tx.removeOwners(ctx); err != nil {
		return err
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	for entries := range slices.Chunk(tx.entries, chunkSize) {
		p, err := entriesParams(tx.cause, entries)
		if err != nil {
			return err
		}
		if err := deferred.InsertAuditEntries(ctx, p); err != nil {
			return err
		}
	}
	for events := range slices.Chunk(tx.events, chunkSize) {
		p, err := outboxParams(tx.cause, events)
		if err != nil {
			return err
		}
		if carrier.Get(traceparent) != "" {
			p.Traceparent = new(carrier.Get(traceparent))
		}
		if err := deferred.InsertOutbox(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func outboxParams(cause Cause, events []event) (db.InsertOutboxParams, error) {
	p := db.InsertOutboxParams{RequestID: cause.RequestID}
	for _, e := range events {
		for name, value := range e.fields {
			// The signed text has one line per field: a line feed would make it ambiguous.
			if strings.Contains(name+value, "\n") {
				return p, fmt.Errorf("event for %s: field %s must not contain a line feed", e.stream, name)
			}
		}
		text, err := json.Marshal(e.fields)
		if err != nil {
			return p, err
		}
		p.ZoneIds = append(p.ZoneIds, e.zone)
		p.Ids = append(p.Ids, e.id)
		p.Streams = append(p.Streams, e.stream)
		p.Fields = append(p.Fields, string(text))
	}
	return p, nil
}

// RecordDenied inserts an audit entry for a denied request. The request changed
// nothing, so there is no transaction to add the entry to. An empty kind and id
// mean that the request named no object.
func (s *Store) RecordDenied(ctx context.Context, cause Cause, zone, kind, id string) error {
	p, err := entriesParams(cause, []entry{{zone: zone, kind: audit.Kind(kind), id: id}})
	if err != nil {
		return err
	}
	err = s.For(cause.Actor).q.InsertAuditEntries(ctx, p)
	wake(s.recorded)
	return err
}

func entriesParams(cause Cause, entries []entry) (db.InsertAuditEntriesParams, error) {
	p := db.InsertAuditEntriesParams{
		RequestID: cause.RequestID, ActorName: cause.Actor.Name, Operation: cause.Operation,
		Method: cause.Method, Path: cause.Path, StatusCode: int32(cause.Status),
	}
	scope, actorScope := scopeFields{Mode: "control_plane_wildcard", Zone: AllZones}, "global"
	if !cause.Actor.Global() {
		scope, actorScope = scopeFields{Mode: "zone_scoped", Zone: cause.Actor.Zone}, "zone"
	}
	if cause.Actor.ID != "" {
		p.ActorID, p.ActorScope = &cause.Actor.ID, &actorScope
	}
	for _, e := range entries {
		payload, err := e.text(scope)
		if err != nil {
			return p, fmt.Errorf("audit entry of %s %s: %w", e.kind, e.id, err)
		}
		action := e.action
		switch {
		case action != "":
		case cause.Method == "": // not a request
			action = cause.Operation
		default:
			action = cause.Method + " " + cause.Path
		}
		p.ZoneIds = append(p.ZoneIds, e.zone)
		p.Ids = append(p.Ids, newID())
		p.Actions = append(p.Actions, action)
		p.EntityTypes = append(p.EntityTypes, string(e.kind))
		p.EntityIds = append(p.EntityIds, e.id)
		p.Payloads = append(p.Payloads, payload)
	}
	return p, nil
}

// scopeFields are the row-level security scope of the actor, which is part of the
// payload of most entries.
type scopeFields struct {
	Mode string `json:"rls_mode"`
	Zone string `json:"rls_zone_guc"`
}

// text returns the payload as it is stored: compact JSON, the scope first. It
// returns an error for a kind or field that openapi/audit.yaml does not declare.
func (e entry) text(scope scopeFields) (string, error) {
	var payload any
	switch p := e.payload.(type) {
	case nil:
		payload = scope
	case auditChange:
		if err := checkDeclared(e.kind, p); err != nil {
			return "", err
		}
		payload = struct {
			scopeFields
			auditChange
		}{scope, p}
	case dcrShutdown, deletion: // have no scope fields
		payload = p
	default:
		return "", fmt.Errorf("%T is not an audit payload", p)
	}
	text, err := json.Marshal(payload)
	return string(text), err
}
