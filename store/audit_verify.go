package store

import (
	"bytes"
	"context"
	"errors"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/db"
	"caracal.run/management/store/chain"
)

// A SealHead is the head of a zone's chain, with its signature.
type SealHead struct {
	chain.Head
	MAC []byte // nil: not signed
}

// AuditHead returns the head of a zone's chain, or nil if nothing is sealed.
func (s *Store) AuditHead(ctx context.Context, zone string) (*SealHead, error) {
	q := s.shared
	row, err := q.GetSealHead(ctx, zone)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	head := &SealHead{Head: chain.Head{Zone: zone, Seq: row.Seq, SealedAt: row.SealedAt}, MAC: row.Mac}
	copy(head.Hash[:], row.Hash)
	return head, err
}

// A SealRange is a range of seals to verify. To is 0 for all up to the end of the chain.
type SealRange struct{ From, To int64 }

// A Verification is the result of [Store.VerifyAudit].
type Verification struct {
	Checked  int64        // number of seals
	Last     int64        // number of the last seal that fits; From-1 if none does
	Complete bool         // false: the time was over, and the next seal is Last+1
	Signed   bool         // whether the last seal is signed
	Fault    *chain.Fault // nil: everything fits
	Head     *SealHead    // nil: nothing is sealed
}

const verifyPageSize = 1000

// VerifyAudit verifies a range of a zone's chain and, if the range has no end, that
// nothing follows its head and that every entry is sealed. If a head is given that was
// read earlier, it must be in the chain. It sees the database at one moment, needs the
// memory of one page, and stops at the end of the page when its time is over. It returns
// too_many_exports if too many snapshots are open.
func (s *Store) VerifyAudit(ctx context.Context, zone string, key []byte, r SealRange, earlier *chain.Head, budget time.Duration) (v Verification, err error) {
	err = s.InSnapshot(ctx, func(snapshot *Store) error {
		v, err = snapshot.verifyAudit(ctx, zone, key, r, time.Now().Add(budget))
		if err != nil || v.Fault != nil || earlier == nil || earlier.Seq == 0 {
			return err
		}
		seal, err := snapshot.q.GetSeal(ctx, db.GetSealParams{ZoneID: zone, Seq: earlier.Seq})
		if errors.Is(err, pgx.ErrNoRows) || err == nil && !bytes.Equal(seal.Hash, earlier.Hash[:]) {
			v.Fault = &chain.Fault{Seq: earlier.Seq, ID: seal.EntryID, Reason: chain.EarlierHeadMismatch}
			return nil
		}
		return err
	})
	return v, err
}

func (s *Store) verifyAudit(ctx context.Context, zone string, key []byte, r SealRange, deadline time.Time) (v Verification, err error) {
	v = Verification{Last: r.From - 1}
	if v.Head, err = s.AuditHead(ctx, zone); err != nil {
		return v, err
	}
	verifier := chain.Verifier{Key: key}
	if r.From > 1 {
		seal, err := s.q.GetSeal(ctx, db.GetSealParams{ZoneID: zone, Seq: r.From - 1})
		if errors.Is(err, pgx.ErrNoRows) {
			v.Fault = &chain.Fault{Seq: r.From - 1, Reason: chain.SealMissing}
			return v, nil
		}
		if err != nil {
			return v, err
		}
		verifier.After(toSeal(db.ListSealsRow(seal)))
	}
	to := r.To
	if to == 0 {
		to = math.MaxInt64
	}
	for {
		seals, err := s.q.ListSeals(ctx, db.ListSealsParams{ZoneID: zone, AfterSeq: v.Last, ToSeq: to, RowLimit: verifyPageSize})
		if err != nil {
			return v, err
		}
		if err := s.verifySeals(ctx, zone, &verifier, seals, &v); err != nil || v.Fault != nil {
			return v, err
		}
		if len(seals) < verifyPageSize {
			break
		}
		if time.Now().After(deadline) {
			return v, nil
		}
	}
	v.Complete = true
	if r.To > 0 {
		if v.Last < r.To {
			v.Fault = &chain.Fault{Seq: v.Last + 1, Reason: chain.SealMissing}
		}
		return v, nil
	}
	var head *chain.Head
	var mac []byte
	if v.Head != nil {
		head, mac = &v.Head.Head, v.Head.MAC
	}
	if v.Fault = verifier.End(head, mac); v.Fault != nil {
		return v, nil
	}
	v.Fault, err = s.findNotSealed(ctx, zone)
	return v, err
}

// verifySeals checks a page of seals with their entries.
func (s *Store) verifySeals(ctx context.Context, zone string, verifier *chain.Verifier, seals []db.ListSealsRow, v *Verification) error {
	var p db.GetAuditEntriesParams
	for _, seal := range seals {
		p.ZoneIds, p.Ids = append(p.ZoneIds, zone), append(p.Ids, seal.EntryID)
	}
	rows, err := s.q.GetAuditEntries(ctx, p)
	if err != nil {
		return err
	}
	entries := make(map[string]*chain.Entry, len(rows))
	for _, row := range rows {
		entries[row.ID] = new(sealedEntry(row))
	}
	for _, seal := range seals {
		entry := entries[seal.EntryID]
		if v.Fault = verifier.Check(toSeal(seal), entry); v.Fault != nil {
			return nil
		}
		if !seal.OccurredAt.Equal(entry.OccurredAt) { // lists find the seal by this time, which no hash covers
			v.Fault = &chain.Fault{Seq: seal.Seq, ID: seal.EntryID, Reason: chain.EntryChanged}
			return nil
		}
		v.Checked++
		v.Last, v.Signed = seal.Seq, seal.Mac != nil
	}
	return nil
}

// findNotSealed returns the first entry that is neither sealed nor queued, or nil.
func (s *Store) findNotSealed(ctx context.Context, zone string) (*chain.Fault, error) {
	for after := ""; ; {
		page, err := s.q.CheckSealed(ctx, db.CheckSealedParams{ZoneID: zone, AfterID: after, RowLimit: 10 * verifyPageSize})
		if err != nil || page.Entries == 0 {
			return nil, err
		}
		if page.NotSealed != "" {
			return &chain.Fault{ID: page.NotSealed, Reason: chain.EntryNotSealed}, nil
		}
		after = page.LastID
	}
}

func toSeal(s db.ListSealsRow) chain.Seal {
	return chain.Seal{Seq: s.Seq, EntryID: s.EntryID, Previous: s.Previous, Hash: s.Hash, MAC: s.Mac}
}
