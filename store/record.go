package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/propagation"

	"caracal.run/management/gen/db"
)

// auditFields is what the trail may say of a row, member by member. Rows are never
// encoded whole: a column added later would leak.
type auditFields map[string]any

// redacted is a member of which the trail says that it changed, not into what.
type redacted string

// A auditChange is the difference that a write made.
type auditChange struct {
	Fields        []string               `json:"changed_fields"`
	Values        map[string]fieldChange `json:"changes,omitempty"`
	SecretRotated bool                   `json:"secret_rotated,omitempty"`
}

type fieldChange struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// diff compares what was shown with what is. Nothing before is a creation,
// nothing after a removal.
func diff(before, after auditFields) auditChange {
	c := auditChange{Fields: []string{}, Values: map[string]fieldChange{}}
	for _, member := range slices.Sorted(maps.Keys(after)) {
		from, to := before[member], after[member]
		if reflect.DeepEqual(from, to) {
			continue
		}
		if _, hidden := to.(redacted); hidden {
			c.SecretRotated = before != nil
			continue
		}
		c.Fields = append(c.Fields, member)
		c.Values[member] = fieldChange{from, to}
	}
	return c
}

// noFields is the change that ends a thing.
var noFields = diff(nil, nil)

// An entry is one line of the audit trail, to be written when the transaction
// is about to commit.
type entry struct {
	zone, action, kind, id string
	payload                any
}

// An event is what others must hear. A field without a value is left out.
type event struct {
	zone, stream string
	fields       fields
}

type fields map[string]string

// record notes that one thing changed, and what others must hear of it. Both
// are written, in the same transaction, when fn has returned.
func (tx *Tx) record(zone, kind, id string, c auditChange, events ...event) {
	tx.entries = append(tx.entries, entry{zone: zone, kind: kind, id: id, payload: c})
	tx.publish(events...)
}

// publish notes what others must hear, in this order. The transaction holds the
// events' zone alone.
func (tx *Tx) publish(events ...event) { tx.events = append(tx.events, events...) }

const traceparent = "traceparent" // W3C Trace Context §3.2

// flush writes what record noted: a piece at a time, as one change may
// end very many things.
func (tx *Tx) flush(ctx context.Context) error {
	const chunkSize = 5000
	deferred := db.New(deferredConn{tx.conn}) // goes out with the last statement
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	for entries := range slices.Chunk(tx.entries, chunkSize) {
		p, err := entriesParams(tx.cause, entries)
		if err != nil {
			return err
		}
		insert := tx.q.InsertAuditEntries
		if len(tx.events) > 0 {
			insert = deferred.InsertAuditEntries
		}
		if err := insert(ctx, p); err != nil {
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
		if err := tx.q.InsertOutbox(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func outboxParams(cause Cause, events []event) (db.InsertOutboxParams, error) {
	p := db.InsertOutboxParams{RequestID: cause.RequestID}
	for _, e := range events {
		for name, value := range e.fields {
			// What is signed is not injective in line feeds (contract: events.md §4).
			if strings.Contains(name+value, "\n") {
				return p, fmt.Errorf("event for %s: %s holds a line feed", e.stream, name)
			}
		}
		text, err := json.Marshal(e.fields)
		if err != nil {
			return p, err
		}
		p.ZoneIds = append(p.ZoneIds, e.zone)
		p.Ids = append(p.Ids, newID())
		p.Streams = append(p.Streams, e.stream)
		p.Fields = append(p.Fields, string(text))
	}
	return p, nil
}

// RecordDenied records that an authenticated caller was refused. Nothing changed, so
// there is no transaction to belong to.
func (s *Store) RecordDenied(ctx context.Context, cause Cause, zone, kind, id string) error {
	p, err := entriesParams(cause, []entry{{zone: zone, kind: kind, id: id}})
	if err != nil {
		return err
	}
	return s.For(cause.Actor).q.InsertAuditEntries(ctx, p)
}

func entriesParams(cause Cause, entries []entry) (db.InsertAuditEntriesParams, error) {
	p := db.InsertAuditEntriesParams{
		RequestID: cause.RequestID, ActorName: cause.Actor.Name, Operation: cause.Operation,
		Method: cause.Method, Path: cause.Path, StatusCode: int32(cause.Status),
	}
	scope := scopeFields{Mode: "control_plane_wildcard", Zone: AllZones}
	if cause.Actor.ID != "" {
		actorScope := "global"
		if !cause.Actor.Global() {
			actorScope = "zone"
			scope = scopeFields{Mode: "zone_scoped", Zone: cause.Actor.Zone}
		}
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
		case cause.Method == "": // nobody's request
			action = cause.Operation
		default:
			action = cause.Method + " " + cause.Path
		}
		p.ZoneIds = append(p.ZoneIds, e.zone)
		p.Ids = append(p.Ids, newID())
		p.Actions = append(p.Actions, action)
		p.EntityTypes = append(p.EntityTypes, e.kind)
		p.EntityIds = append(p.EntityIds, e.id)
		p.Payloads = append(p.Payloads, payload)
	}
	return p, nil
}

// scopeFields say, in every entry, under which row-level security the actor
// worked (contract: admin-audit.md §3.1).
type scopeFields struct {
	Mode string `json:"rls_mode"`
	Zone string `json:"rls_zone_guc"`
}

// text is the payload as it is stored and will be hashed: compact JSON, the
// scope first.
func (e entry) text(scope scopeFields) (string, error) {
	var payload any
	switch p := e.payload.(type) {
	case nil:
		payload = scope
	case auditChange:
		payload = struct {
			scopeFields
			auditChange
		}{scope, p}
	case dcrShutdown:
		payload = p // its form is the contract's (admin-audit.md §3.3)
	default:
		return "", fmt.Errorf("a %T is no payload", p)
	}
	text, err := json.Marshal(payload)
	return string(text), err
}
