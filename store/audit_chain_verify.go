package store

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/db"
	"caracal.run/management/store/auditchain"
)

// AuditLink returns the part of an audit event that its chain covers.
func AuditLink(e db.AuditEvent) auditchain.Link {
	return auditchain.Link{
		Event: auditchain.Event{
			ID: e.ID, ZoneID: e.ZoneID, EventType: valueOr(e.EventType, ""), RequestID: valueOr(e.RequestID, ""), Decision: valueOr(e.Decision, ""),
			PolicySetID: valueOr(e.PolicySetID, ""), PolicySetVersionID: valueOr(e.PolicySetVersionID, ""), ManifestSHA: valueOr(e.ManifestSha, ""),
			EvaluationStatus: valueOr(e.EvaluationStatus, ""), DeterminingPolicies: valueOr(e.DeterminingPolicies, ""), Diagnostics: valueOr(e.Diagnostics, ""),
			Metadata: valueOr(e.Metadata, ""), OccurredAt: e.OccurredAt,
		},
		Seq: e.ChainSeq, ContentHash: e.ContentSHA256, Previous: valueOr(e.PrevContentSHA256, ""), MAC: valueOr(e.ChainHmac, ""),
	}
}

func toCheckpoint(c db.AuditChainCheckpoint) auditchain.Checkpoint {
	return auditchain.Checkpoint{ZoneID: c.ZoneID, FirstSeq: c.FirstSeq, LastSeq: c.LastSeq, Previous: valueOr(c.PrevContentSHA256, ""), Last: c.LastContentSHA256}
}

// AuditChainHead returns the last event of a zone's chain. The zone need not exist.
func (s *Store) AuditChainHead(ctx context.Context, zone string) (auditchain.Head, error) {
	head, err := s.q.GetAuditChainHead(ctx, zone)
	if errors.Is(err, pgx.ErrNoRows) {
		return auditchain.Head{}, nil
	}
	return auditchain.Head{Seq: head.ChainSeq, ContentHash: head.ContentSHA256, MAC: valueOr(head.Hmac, "")}, err
}

// A ChainRange is what to verify of a zone's chain.
type ChainRange struct {
	First, Last int64            // numbers of events; Last is 0 for all to the end
	EarlierHead *auditchain.Head // not nil: a head that was read earlier, which must be in the chain
	Budget      time.Duration    // after which the verification stops
}

// An AuditVerification is the result of verifying a zone's chain.
type AuditVerification struct {
	First, Last int64              // Last is the number of the last event that fits, First-1 if none does
	Events      int64              // that were checked
	Dropped     int64              // for which checkpoints stand
	Signed      bool               // whether an event that was checked is signed
	Complete    bool               // false: the time was over, and the next event is Last+1
	Fault       *auditchain.Fault  // the first one; nil: everything fits
	Faults      []auditchain.Fault // all that were found, up to a maximum
	Head        auditchain.Head
}

// VerifyAuditChain verifies a range of a zone's chain: its events, and the checkpoints
// that stand for dropped events. A nil key leaves signatures unchecked. It sees the
// database at one moment, in constant memory. If the range begins within a checkpoint, it
// begins with that checkpoint. It returns too_many_exports if too many snapshots are open.
func (s *Store) VerifyAuditChain(ctx context.Context, key []byte, zone string, r ChainRange) (AuditVerification, error) {
	result := AuditVerification{First: max(1, r.First)}
	err := s.InSnapshot(ctx, func(s *Store) (err error) {
		if result.Head, err = s.AuditChainHead(ctx, zone); err != nil {
			return err
		}
		last := r.Last
		if last == 0 || last >= result.Head.Seq {
			last = math.MaxInt64
		}
		reader := chainReader{store: s, zone: zone, last: last, deadline: time.Now().Add(r.Budget)}
		v, err := reader.begin(ctx, key, &result.First)
		if err != nil {
			return err
		}
		if result.Complete, err = reader.read(ctx, v, result.First); err != nil {
			return err
		}
		if result.Complete {
			v.Finish(last, result.Head)
		}
		if err := reader.checkEarlierHead(ctx, v, r.EarlierHead); err != nil {
			return err
		}
		result.Last, result.Events, result.Dropped, result.Signed, result.Faults = max(v.Last(), result.First-1), v.Events, v.Dropped, v.Signed, v.Faults
		if len(v.Faults) > 0 {
			result.Fault = &v.Faults[0]
		}
		return nil
	})
	return result, err
}

// A chainReader reads the events and checkpoints of a zone's chain.
type chainReader struct {
	store    *Store
	zone     string
	last     int64
	deadline time.Time
}

// begin returns the verifier of a chain from the number first, which it moves to the
// beginning of the checkpoint that contains it.
func (r chainReader) begin(ctx context.Context, key []byte, first *int64) (*auditchain.Verifier, error) {
	previous, joined := "", *first == 1
	covering, err := r.store.q.GetAuditCheckpointBefore(ctx, db.GetAuditCheckpointBeforeParams{ZoneID: r.zone, Seq: *first})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return nil, err
	case covering.LastSeq >= *first:
		*first = covering.FirstSeq
		return auditchain.NewVerifier(key, r.zone, *first, valueOr(covering.PrevContentSHA256, ""), true), nil
	case covering.LastSeq == *first-1:
		previous, joined = covering.LastContentSHA256, true
	}
	if joined {
		return auditchain.NewVerifier(key, r.zone, *first, previous, true), nil
	}
	before, err := r.store.q.ListAuditChain(ctx, db.ListAuditChainParams{ZoneID: r.zone, FirstSeq: *first - 1, LastSeq: *first - 1, RowLimit: 1})
	if err != nil {
		return nil, err
	}
	if len(before) == 0 { // the verifier reports that it is missing
		return auditchain.NewVerifier(key, r.zone, *first-1, "", false), nil
	}
	return auditchain.NewVerifier(key, r.zone, *first, before[0].ContentSHA256, true), nil
}

const chainPageSize = 1000

// checkEarlierHead verifies that a head that was read earlier is in the chain. Of the
// events that a checkpoint stands for, only the hash of the last one is known.
func (r chainReader) checkEarlierHead(ctx context.Context, v *auditchain.Verifier, head *auditchain.Head) error {
	if head == nil {
		return nil
	}
	found := ""
	events, err := r.store.q.ListAuditChain(ctx, db.ListAuditChainParams{ZoneID: r.zone, FirstSeq: head.Seq, LastSeq: head.Seq, RowLimit: 1})
	if err != nil {
		return err
	}
	if len(events) > 0 {
		found = events[0].ContentSHA256
	} else {
		checkpoint, err := r.store.q.GetAuditCheckpointBefore(ctx, db.GetAuditCheckpointBeforeParams{ZoneID: r.zone, Seq: head.Seq})
		switch {
		case errors.Is(err, pgx.ErrNoRows):
		case err != nil:
			return err
		case checkpoint.LastSeq > head.Seq:
			return nil
		case checkpoint.LastSeq == head.Seq:
			found = checkpoint.LastContentSHA256
		}
	}
	v.CheckEarlierHead(*head, found)
	return nil
}

// read adds the events and checkpoints from a number on to a verifier. It returns false
// if the time was over.
func (r chainReader) read(ctx context.Context, v *auditchain.Verifier, first int64) (complete bool, err error) {
	checkpoints := pages[db.AuditChainCheckpoint]{next: first, seq: func(c db.AuditChainCheckpoint) int64 { return c.FirstSeq },
		page: func(from int64) ([]db.AuditChainCheckpoint, error) {
			return r.store.q.ListAuditCheckpoints(ctx, db.ListAuditCheckpointsParams{ZoneID: r.zone, FirstSeq: from, LastSeq: r.last, RowLimit: chainPageSize})
		}}
	events := pages[db.AuditEvent]{next: first, seq: func(e db.AuditEvent) int64 { return e.ChainSeq },
		page: func(from int64) ([]db.AuditEvent, error) {
			return r.store.q.ListAuditChain(ctx, db.ListAuditChainParams{ZoneID: r.zone, FirstSeq: from, LastSeq: r.last, RowLimit: chainPageSize})
		}}
	for n := 1; ; n++ {
		if n%chainPageSize == 0 && time.Now().After(r.deadline) {
			return false, nil
		}
		event, err := events.peek()
		if err != nil {
			return false, err
		}
		checkpoint, err := checkpoints.peek()
		if err != nil {
			return false, err
		}
		switch {
		case event == nil && checkpoint == nil:
			return true, nil
		case checkpoint == nil || event != nil && event.ChainSeq < checkpoint.FirstSeq:
			v.Add(AuditLink(*event))
			events.rows = events.rows[1:]
		default:
			v.AddCheckpoint(toCheckpoint(*checkpoint), valueOr(checkpoint.Hmac, ""))
			checkpoints.rows = checkpoints.rows[1:]
		}
	}
}

// pages reads rows in the order of a number, page by page.
type pages[Row any] struct {
	next int64 // the number from which the next page is read
	seq  func(Row) int64
	page func(from int64) ([]Row, error)
	rows []Row // of the current page that are left
	end  bool
}

// peek returns the next row, or nil if there is none. Numbers can be repeated, so the
// next page begins with the last number of a page.
func (p *pages[Row]) peek() (*Row, error) {
	if len(p.rows) == 0 && !p.end {
		rows, err := p.page(p.next)
		if err != nil {
			return nil, err
		}
		p.rows, p.end = rows, len(rows) < chainPageSize
		if !p.end {
			p.next = p.seq(rows[len(rows)-1])
			whole := rows
			for len(whole) > 0 && p.seq(whole[len(whole)-1]) == p.next {
				whole = whole[:len(whole)-1]
			}
			if p.rows = whole; len(whole) == 0 { // a whole page has one number
				p.rows, p.next = rows, p.next+1
			}
		}
	}
	if len(p.rows) == 0 {
		return nil, nil
	}
	return &p.rows[0], nil
}
