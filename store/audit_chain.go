package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/auditchain"
)

// An AuditEvent is an authorization audit event to append.
type AuditEvent struct {
	auditchain.Event
	Labels    []string // by which the event can be listed
	Signature string   // of the producer, or empty
}

// An AppendResult is what became of an audit event.
type AppendResult int

// The results of appending an audit event.
const (
	Appended  AppendResult = iota
	Duplicate              // the same event is stored
	Conflict               // an event with the same ID and other content is stored
)

// contentMismatch is the kind of the alert about a Conflict.
const contentMismatch = "content_mismatch_on_replay"

// AppendAuditEvents appends events to the hash chains of their zones, in their order,
// and returns what became of each. An event whose zone has an event with its ID is not
// appended, and one with other content also inserts an alert. The months of the events
// must have partitions (see [Store.CreateAuditPartitions]). A nil key leaves the chain
// without MACs.
func (tx *Tx) AppendAuditEvents(ctx context.Context, key []byte, events []AuditEvent) ([]AppendResult, error) {
	zones := map[string]bool{}
	var lookup db.ListAuditEventHashesParams
	for _, e := range events {
		zones[e.ZoneID] = true
		lookup.ZoneIds, lookup.Ids = append(lookup.ZoneIds, e.ZoneID), append(lookup.Ids, e.ID)
	}
	heads, err := tx.lockAuditChains(ctx, slices.Sorted(maps.Keys(zones)))
	if err != nil {
		return nil, err
	}
	// Not in the statement that locks: its snapshot is older than what another replica
	// has appended meanwhile.
	stored, err := tx.q.ListAuditEventHashes(ctx, lookup)
	if err != nil {
		return nil, err
	}
	type eventKey struct{ zone, id string }
	hashes := make(map[eventKey]string, len(stored)+len(events))
	for _, s := range stored {
		hashes[eventKey{s.ZoneID, s.ID}] = s.ContentSHA256
	}
	results := make([]AppendResult, len(events))
	rows := auditRows{key: key, counts: map[decisionCount]int64{}}
	changed := map[string]bool{}
	for i := range events {
		e, content := &events[i], events[i].ContentHash()
		switch known, exists := hashes[eventKey{e.ZoneID, e.ID}]; {
		case !exists:
			hashes[eventKey{e.ZoneID, e.ID}] = content
			rows.add(e, content, heads[e.ZoneID])
			changed[e.ZoneID] = true
		case known == content:
			results[i] = Duplicate
		default:
			results[i] = Conflict
			rows.addAlert(e, content, known)
		}
	}
	return results, rows.insert(ctx, tx, heads, slices.Sorted(maps.Keys(changed)))
}

// An auditHead is the last event of a chain.
type auditHead struct {
	seq  int64
	hash string // empty: the chain has no event
}

func (tx *Tx) lockAuditChains(ctx context.Context, zones []string) (map[string]*auditHead, error) {
	deferred := db.New(deferredConn{tx.conn})
	if err := errors.Join(deferred.UseIndexes(ctx), deferred.InsertMissingAuditChainHeads(ctx, zones)); err != nil {
		return nil, err
	}
	locked, err := tx.q.LockAuditChainHeads(ctx, zones)
	if err != nil {
		return nil, err
	}
	heads := make(map[string]*auditHead, len(locked))
	for _, h := range locked {
		heads[h.ZoneID] = &auditHead{h.ChainSeq, h.ContentSHA256}
	}
	if len(heads) != len(zones) {
		return nil, fmt.Errorf("locked the heads of %d of %d chains", len(heads), len(zones))
	}
	return heads, nil
}

// auditRows are the rows that appending events inserts.
type auditRows struct {
	key    []byte
	events db.InsertAuditEventsParams
	labels db.InsertAuditEventLabelsParams
	alerts db.InsertAuditIngestAlertsParams
	counts map[decisionCount]int64
}

type decisionCount struct {
	zone     string
	minute   time.Time
	decision string
}

// add adds an event to the chain that ends with head, and moves head.
func (r *auditRows) add(e *AuditEvent, content string, head *auditHead) {
	p := &r.events
	p.ZoneIds, p.Ids, p.OccurredAts = append(p.ZoneIds, e.ZoneID), append(p.Ids, e.ID), append(p.OccurredAts, e.OccurredAt)
	p.EventTypes, p.RequestIds, p.Decisions = append(p.EventTypes, e.EventType), append(p.RequestIds, e.RequestID), append(p.Decisions, e.Decision)
	p.PolicySetIds, p.PolicySetVersionIds = append(p.PolicySetIds, e.PolicySetID), append(p.PolicySetVersionIds, e.PolicySetVersionID)
	p.ManifestShas, p.EvaluationStatuses = append(p.ManifestShas, e.ManifestSHA), append(p.EvaluationStatuses, e.EvaluationStatus)
	p.DeterminingPolicies, p.Diagnostics = append(p.DeterminingPolicies, e.DeterminingPolicies), append(p.Diagnostics, e.Diagnostics)
	p.Metadata, p.IngestSignatures = append(p.Metadata, e.Metadata), append(p.IngestSignatures, e.Signature)
	p.PreviousHashes, p.ContentHashes = append(p.PreviousHashes, head.hash), append(p.ContentHashes, content)
	p.Macs = append(p.Macs, auditchain.ChainMAC(r.key, content, head.hash))
	head.seq, head.hash = head.seq+1, content
	p.ChainSeqs = append(p.ChainSeqs, head.seq)
	for _, label := range e.Labels {
		l := &r.labels
		l.ZoneIds, l.Labels = append(l.ZoneIds, e.ZoneID), append(l.Labels, label)
		l.OccurredAts, l.EventIds = append(l.OccurredAts, e.OccurredAt), append(l.EventIds, e.ID)
	}
	if e.Decision != "" {
		r.counts[decisionCount{e.ZoneID, e.OccurredAt.Truncate(time.Minute), e.Decision}]++
	}
}

// addAlert adds an alert about an event whose ID another event has. The alert has the
// hash of the event as its ID, because the event can be delivered again.
func (r *auditRows) addAlert(e *AuditEvent, content, stored string) {
	a := &r.alerts
	a.Kind = contentMismatch
	a.ZoneIds, a.Ids, a.EventIds = append(a.ZoneIds, e.ZoneID), append(a.Ids, content), append(a.EventIds, e.ID)
	a.Details = append(a.Details, "stored="+stored+" incoming="+content)
}

// insert queues the statements, which are sent with the commit.
func (r *auditRows) insert(ctx context.Context, tx *Tx, heads map[string]*auditHead, zones []string) error {
	deferred := db.New(deferredConn{tx.conn})
	var all []error
	if len(r.events.Ids) > 0 {
		h := db.UpdateAuditChainHeadsParams{ZoneIds: zones}
		for _, zone := range zones {
			head := heads[zone]
			h.ChainSeqs, h.ContentHashes = append(h.ChainSeqs, head.seq), append(h.ContentHashes, head.hash)
			h.Macs = append(h.Macs, auditchain.HeadMAC(r.key, zone, head.seq, head.hash))
		}
		all = append(all, deferred.InsertAuditEvents(ctx, r.events), deferred.UpdateAuditChainHeads(ctx, h))
	}
	if len(r.labels.Labels) > 0 {
		all = append(all, deferred.InsertAuditEventLabels(ctx, r.labels))
	}
	if len(r.counts) > 0 {
		var c db.CountAuditDecisionsParams
		for key, count := range r.counts {
			c.ZoneIds, c.Minutes = append(c.ZoneIds, key.zone), append(c.Minutes, key.minute)
			c.Decisions, c.Counts = append(c.Decisions, key.decision), append(c.Counts, count)
		}
		all = append(all, deferred.CountAuditDecisions(ctx, c))
	}
	if len(r.alerts.Ids) > 0 {
		all = append(all, deferred.InsertAuditIngestAlerts(ctx, r.alerts))
	}
	return errors.Join(all...)
}

// CreateAuditPartitions creates the partitions of audit events of each month from the
// first to the last time, unless they exist, and returns their number.
func (s *Store) CreateAuditPartitions(ctx context.Context, first, last time.Time) (int, error) {
	n, err := s.For(System).q.CreateAuditPartitions(ctx, db.CreateAuditPartitionsParams{FirstTime: first, LastTime: last})
	return int(n), err
}

// IsUnavailable reports whether an error of a method of this package means that
// Postgres cannot be used at the moment, or that a statement took too long, so that
// another attempt can succeed.
func IsUnavailable(err error) bool {
	return errors.Is(err, code.ServiceUnavailable) || isRetryable(err)
}

// IsMissingPartition reports whether an error means that a month has no partition.
func IsMissingPartition(err error) bool {
	const checkViolation = "23514"
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == checkViolation && pg.ConstraintName == ""
}
