package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"caracal.run/management/gen/db"
	"caracal.run/management/store"
	"caracal.run/management/store/auditchain"
)

// exportedAuditEvent is a line of an export of audit events.
type exportedAuditEvent struct {
	ID                 string          `json:"id"`
	ZoneID             string          `json:"zone_id"`
	EventType          *string         `json:"event_type"`
	RequestID          *string         `json:"request_id"`
	Decision           *string         `json:"decision"`
	EvaluationStatus   *string         `json:"evaluation_status"`
	Metadata           json.RawMessage `json:"metadata_json"`
	IngestedAt         time.Time       `json:"ingested_at"`
	OccurredAtNS       string          `json:"occurred_at_ns"`
	PolicySetID        *string         `json:"policy_set_id"`
	PolicySetVersionID *string         `json:"policy_set_version_id"`
	ManifestSHA        *string         `json:"manifest_sha"`
	Policies           json.RawMessage `json:"determining_policies_json"`
	Diagnostics        json.RawMessage `json:"diagnostics_json"`
	ChainSeq           string          `json:"chain_seq"`
	ContentSHA256      string          `json:"content_sha256"`
	PrevContentSHA256  *string         `json:"prev_content_sha256"`
	ChainHMAC          *string         `json:"chain_hmac"`
}

// ParseExportedAuditEvent returns the event in a line of an export of audit events, and
// whether values in it are redacted: then its content hash is that of other content. It
// returns an error if the line is not as the service writes it, so that a reader of the
// line sees nothing but the event.
func ParseExportedAuditEvent(line []byte) (link auditchain.Link, redacted bool, err error) {
	var e exportedAuditEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return link, false, err
	}
	ns, err := strconv.ParseInt(e.OccurredAtNS, 10, 64)
	if err != nil {
		return link, false, errors.New("occurred_at_ns is invalid")
	}
	seq, err := strconv.ParseInt(e.ChainSeq, 10, 64)
	if err != nil || seq < 1 {
		return link, false, errors.New("chain_seq is invalid")
	}
	row := db.AuditEvent{
		ID: e.ID, ZoneID: e.ZoneID, EventType: e.EventType, RequestID: e.RequestID, Decision: e.Decision, EvaluationStatus: e.EvaluationStatus,
		OccurredAt: time.Unix(0, ns), IngestedAt: e.IngestedAt, PolicySetID: e.PolicySetID, PolicySetVersionID: e.PolicySetVersionID,
		ManifestSha: e.ManifestSHA, ChainSeq: seq, ContentSHA256: e.ContentSHA256, PrevContentSHA256: e.PrevContentSHA256, ChainHmac: e.ChainHMAC,
	}
	for _, text := range []struct {
		exported json.RawMessage
		stored   **string
	}{{e.Metadata, &row.Metadata}, {e.Policies, &row.DeterminingPolicies}, {e.Diagnostics, &row.Diagnostics}} {
		value, err := auditchain.Parse(text.exported)
		if err != nil {
			return link, false, err
		}
		if !value.IsNull() {
			*text.stored = new(value.Canonical())
		}
		redacted = redacted || bytes.Contains(text.exported, []byte(`:"[redacted]"`))
	}
	listed := auditEvent{ListedAuditEvent: &db.ListedAuditEvent{
		ID: row.ID, ZoneID: row.ZoneID, EventType: row.EventType, RequestID: row.RequestID, Decision: row.Decision, EvaluationStatus: row.EvaluationStatus,
		OccurredAt: row.OccurredAt, IngestedAt: row.IngestedAt, Metadata: row.Metadata,
	}, whole: &row}
	if written := append(auditEventFields.exported(&listed).AppendJSON(nil), '\n'); !bytes.Equal(line, written) {
		return link, false, errors.New("not as the service writes it: was the file changed, reformatted or truncated?")
	}
	return store.AuditLink(row), redacted, nil
}
