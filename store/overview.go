package store

import (
	"context"
	"encoding/json"
	"time"

	"caracal.run/management/gen/db"
)

// An Overview is what a zone has at one moment.
type Overview struct {
	db.GetOverviewRow
	Events []OverviewEvent // the latest, newest first
}

// An OverviewEvent is an authorization audit event of an overview.
type OverviewEvent struct {
	ID         string    `json:"id"`
	EventType  *string   `json:"event_type"`
	RequestID  *string   `json:"request_id"`
	Decision   *string   `json:"decision"`
	Metadata   *string   `json:"metadata"` // JSON
	OccurredAt time.Time `json:"occurred_at"`
}

// Overview returns an overview of a zone, which need not exist.
func (s *Store) Overview(ctx context.Context, zone string) (Overview, error) {
	const events = 10
	row, err := s.inOrder().GetOverview(ctx, db.GetOverviewParams{ZoneID: zone, EventLimit: events})
	overview := Overview{GetOverviewRow: row}
	if err != nil {
		return overview, err
	}
	return overview, json.Unmarshal([]byte(row.RecentEvents), &overview.Events)
}
