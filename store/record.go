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

// shown is what the trail may say of a row, member by member. Rows are never
// encoded whole: a column added later would leak.
type shown map[string]any

// secret is a member of which the trail says that it changed, not into what.
type secret string

// A change is the difference that a write made.
type change struct {
	Fields        []string          `json:"changed_fields"`
	Values        map[string]fromTo `json:"changes,omitempty"`
	SecretRotated bool              `json:"secret_rotated,omitempty"`
}

type fromTo struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// diff compares what was shown with what is. Nothing before is a creation,
// nothing after a removal.
func diff(before, after shown) change {
	c := change{Fields: []string{}, Values: map[string]fromTo{}}
	for _, member := range slices.Sorted(maps.Keys(after)) {
		from, to := before[member], after[member]
		if reflect.DeepEqual(from, to) {
			continue
		}
		if _, hidden := to.(secret); hidden {
			c.SecretRotated = before != nil
			continue
		}
		c.Fields = append(c.Fields, member)
		c.Values[member] = fromTo{from, to}
	}
	return c
}

// removed is the change that ends a thing.
var removed = diff(nil, nil)

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
func (tx *Tx) record(zone, kind, id string, c change, events ...event) {
	tx.entries = append(tx.entries, entry{zone: zone, kind: kind, id: id, payload: c})
	tx.emit(events...)
}

// emit notes what others must hear, in this order. The transaction holds the
// events' zone alone.
func (tx *Tx) emit(events ...event) { tx.events = append(tx.events, events...) }

const traceparent = "traceparent" // W3C Trace Context §3.2

// writeRecords writes what record noted: a piece at a time, as one change may
// end very many things.
func (tx *Tx) writeRecords(ctx context.Context) error {
	const piece = 5000
	later := db.New(queued{tx.first}) // goes out with the last statement
	here := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, here)
	for entries := range slices.Chunk(tx.entries, piece) {
		p, err := entriesParams(tx.cause, entries)
		if err != nil {
			return err
		}
		insert := tx.q.InsertAuditEntries
		if len(tx.events) > 0 {
			insert = later.InsertAuditEntries
		}
		if err := insert(ctx, p); err != nil {
			return err
		}
	}
	for events := range slices.Chunk(tx.events, piece) {
		p, err := outboxParams(tx.cause, events)
		if err != nil {
			return err
		}
		if here.Get(traceparent) != "" {
			p.Traceparent = new(here.Get(traceparent))
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

// Refuse records that an authenticated caller was refused. Nothing changed, so
// there is no transaction to belong to.
func (s *Store) Refuse(ctx context.Context, cause Cause, zone, kind, id string) error {
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
	scope := scopeMembers{Mode: "control_plane_wildcard", Zone: AllZones}
	if cause.Actor.ID != "" {
		actorScope := "global"
		if !cause.Actor.Global() {
			actorScope = "zone"
			scope = scopeMembers{Mode: "zone_scoped", Zone: cause.Actor.Zone}
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

// scopeMembers say, in every entry, under which row-level security the actor
// worked (contract: admin-audit.md §3.1).
type scopeMembers struct {
	Mode string `json:"rls_mode"`
	Zone string `json:"rls_zone_guc"`
}

// text is the payload as it is stored and will be hashed: compact JSON, the
// scope first.
func (e entry) text(scope scopeMembers) (string, error) {
	var payload any
	switch p := e.payload.(type) {
	case nil:
		payload = scope
	case change:
		payload = struct {
			scopeMembers
			change
		}{scope, p}
	case dcrShutdown:
		payload = p // its form is the contract's (admin-audit.md §3.3)
	default:
		return "", fmt.Errorf("a %T is no payload", p)
	}
	text, err := json.Marshal(payload)
	return string(text), err
}
