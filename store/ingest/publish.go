package ingest

import (
	"context"
	"encoding/json"
	"time"

	"github.com/redis/go-redis/v9"
)

// An Event is an authorization audit event to publish. ID, ZoneID and OccurredAt are
// required; a retry must have the same ID.
type Event struct {
	ID                  string    `json:"id"`
	ZoneID              string    `json:"zone_id"`
	EventType           string    `json:"event_type"`
	RequestID           string    `json:"request_id"`
	Decision            string    `json:"decision"` // allow or deny
	PolicySetID         string    `json:"policy_set_id,omitempty"`
	PolicySetVersionID  string    `json:"policy_set_version_id,omitempty"`
	ManifestSHA         string    `json:"manifest_sha,omitempty"`
	EvaluationStatus    string    `json:"evaluation_status"`
	DeterminingPolicies []any     `json:"determining_policies_json"`
	Diagnostics         []any     `json:"diagnostics_json"`
	Metadata            any       `json:"metadata_json,omitempty"` // a JSON object
	OccurredAt          time.Time `json:"occurred_at"`
}

// Publish appends events to the stream, in one pipeline, each signed with the key if it
// is not nil. If it returns an error, some of the events may have been appended: they can
// be published again, because events are deduplicated by their IDs.
func Publish(ctx context.Context, client redis.UniversalClient, key []byte, events ...Event) error {
	pipe := client.Pipeline()
	for _, e := range events {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		values := []string{"id", e.ID, dataField, string(data)}
		if key != nil {
			values = append(values, signatureField, sign(key, string(data)))
		}
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: Stream, Values: values})
	}
	_, err := pipe.Exec(ctx)
	return err
}
