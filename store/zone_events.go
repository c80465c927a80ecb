package store

import (
	"context"
	"encoding/json"
	"fmt"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// A ZoneEvent is a change of an object of a zone: an audit entry that is sealed.
type ZoneEvent struct {
	Seq   int64  // of its seal
	Type  string // the kind of the object and what happened to it, such as zones.created
	Entry db.ListZoneEventsRow
	// Changes are the changed fields with their values before and after, in JSON.
	Changes       json.RawMessage
	SecretChanged bool
}

// ZoneEvents returns the next changes of a zone after a position, in the order of their
// commits, and the position of the last entry that it has read: at most limit entries,
// some of which may be no changes. It returns no event if the zone does not exist, and
// event_position_gone if the zone has never had the position, or if the entry after it is
// missing. The number of a seal is assigned after its transaction is committed, so no
// change can appear at a position that was passed.
func (s *Store) ZoneEvents(ctx context.Context, zone string, after int64, limit int32) (events []ZoneEvent, last int64, err error) {
	rows, err := s.shared.ListZoneEvents(ctx, db.ListZoneEventsParams{ZoneID: zone, After: after, RowLimit: limit})
	if err != nil {
		return nil, after, err
	}
	if len(rows) == 0 {
		heads, err := s.ZoneEventHeads(ctx, []string{zone})
		if err == nil && heads[zone] < after {
			err = code.EventPositionGone
		}
		return nil, after, err
	}
	last = after
	for _, row := range rows {
		if row.Seq != last+1 {
			if last == after {
				return nil, after, code.EventPositionGone
			}
			break // the next call returns the error
		}
		last = row.Seq
		event, err := toZoneEvent(row)
		if err != nil {
			return nil, after, err
		}
		if event.Type != "" {
			events = append(events, event)
		}
	}
	return events, last, nil
}

// toZoneEvent converts an entry. The type is "" if the entry is no change.
func toZoneEvent(row db.ListZoneEventsRow) (ZoneEvent, error) {
	const firstError = 400 // the first HTTP status of an error
	event := ZoneEvent{Seq: row.Seq, Entry: row}
	if row.Payload == nil || row.EntityType == nil || *row.StatusCode >= firstError {
		return event, nil
	}
	var change struct {
		Change        string          `json:"change"`
		Changes       json.RawMessage `json:"changes"`
		SecretRotated bool            `json:"secret_rotated"`
	}
	if err := json.Unmarshal([]byte(*row.Payload), &change); err != nil {
		return event, fmt.Errorf("payload of the audit entry with seal %d: %w", row.Seq, err)
	}
	if change.Change == "" {
		return event, nil
	}
	event.Type, event.Changes, event.SecretChanged = *row.EntityType+"."+change.Change, change.Changes, change.SecretRotated
	if event.Changes == nil {
		event.Changes = json.RawMessage("{}")
	}
	return event, nil
}

// ZoneEventHeads returns the position of the last sealed entry of each zone that has one.
func (s *Store) ZoneEventHeads(ctx context.Context, zones []string) (map[string]int64, error) {
	rows, err := s.shared.ListSealHeads(ctx, zones)
	heads := make(map[string]int64, len(rows))
	for _, row := range rows {
		heads[row.ZoneID] = row.Seq
	}
	return heads, err
}
