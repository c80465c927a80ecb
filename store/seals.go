package store

import (
	"context"
	"errors"
	"time"

	"caracal.run/management/gen/db"
	"caracal.run/management/store/chain"
)

// ErrSealing is returned by [Store.SealEntries] while another replica seals entries.
var ErrSealing = errors.New("another replica is sealing audit entries")

// SealEntries seals at most limit audit entries, of all zones, in one transaction, and
// returns how many it took from the queue. The seals are signed if there is a key. It
// returns [ErrSealing] if another replica is doing the same.
func (s *Store) SealEntries(ctx context.Context, key []byte, limit int) (sealed int, err error) {
	cause := Cause{Actor: System, Operation: "seal-audit-entries"}
	err = s.InTx(ctx, cause, func(tx *Tx) (err error) {
		sealed, err = tx.sealEntries(ctx, key, limit)
		return err
	})
	return sealed, err
}

func (tx *Tx) sealEntries(ctx context.Context, key []byte, limit int) (int, error) {
	if locked, err := tx.q.TryLockSealing(ctx); err != nil || !locked {
		return 0, errors.Join(err, ErrSealing)
	}
	queue, err := tx.q.ListUnsealed(ctx, int32(limit))
	if err != nil || len(queue) == 0 {
		return 0, err
	}
	entries, err := tx.entriesToSeal(ctx, queue)
	if err != nil {
		return 0, err
	}
	heads, err := tx.chainHeads(ctx, entries)
	if err != nil {
		return 0, err
	}
	var seals db.InsertSealsParams
	for _, e := range entries {
		head := heads[e.ZoneID]
		previous := head.Hash
		head.Seq++
		head.Hash = e.Hash(previous, head.Seq)
		heads[e.ZoneID] = head
		seals.ZoneIds = append(seals.ZoneIds, e.ZoneID)
		seals.Seqs = append(seals.Seqs, head.Seq)
		seals.EntryIds = append(seals.EntryIds, e.ID)
		seals.Previous = append(seals.Previous, previous[:])
		seals.Hashes = append(seals.Hashes, head.Hash[:])
		seals.Macs = append(seals.Macs, chain.Sign(key, head.Hash))
		seals.OccurredAts = append(seals.OccurredAts, e.OccurredAt)
	}
	p := db.UpsertSealHeadsParams{SealedAt: time.Now().Truncate(time.Millisecond)}
	for zone, head := range heads {
		head.SealedAt = p.SealedAt
		p.ZoneIds, p.Seqs, p.Hashes, p.Macs = append(p.ZoneIds, zone), append(p.Seqs, head.Seq), append(p.Hashes, head.Hash[:]), append(p.Macs, head.Sign(key))
	}
	positions := make([]int64, len(queue))
	for i, q := range queue {
		positions[i] = q.Position
	}
	deferred := db.New(deferredConn{tx.conn})
	return len(queue), errors.Join(deferred.InsertSeals(ctx, seals), deferred.UpsertSealHeads(ctx, p), deferred.DeleteUnsealed(ctx, positions))
}

// entriesToSeal returns the queued entries that have no seal, in order. In place of one
// that was deleted, it returns an entry that has only an id: its seal is the evidence.
func (tx *Tx) entriesToSeal(ctx context.Context, queue []db.ListUnsealedRow) ([]chain.Entry, error) {
	var p db.GetAuditEntriesParams
	for _, q := range queue {
		p.ZoneIds, p.Ids = append(p.ZoneIds, q.ZoneID), append(p.Ids, q.EntryID)
	}
	rows, err := tx.q.GetAuditEntries(ctx, p)
	if err != nil {
		return nil, err
	}
	type key struct{ zone, id string }
	stored := make(map[key]chain.Entry, len(rows))
	for _, row := range rows {
		stored[key{row.ZoneID, row.ID}] = sealedEntry(row)
	}
	entries, queued := make([]chain.Entry, 0, len(queue)), map[key]bool{}
	for _, q := range queue {
		k := key{q.ZoneID, q.EntryID}
		if q.Sealed || queued[k] {
			continue
		}
		queued[k] = true
		e, found := stored[k]
		if !found {
			e = chain.Entry{ZoneID: q.ZoneID, ID: q.EntryID}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// chainHeads returns the heads of the chains of entries. If someone changed a head or
// deleted the last seals, the chain continues after the greater sequence number, so that
// no evidence is overwritten and other zones are sealed.
func (tx *Tx) chainHeads(ctx context.Context, entries []chain.Entry) (map[string]chain.Head, error) {
	heads := map[string]chain.Head{}
	var zones []string
	for _, e := range entries {
		if _, known := heads[e.ZoneID]; !known {
			heads[e.ZoneID] = chain.Head{Zone: e.ZoneID}
			zones = append(zones, e.ZoneID)
		}
	}
	ends, err := tx.q.ListChainEnds(ctx, zones)
	for _, end := range ends {
		head := chain.Head{Zone: end.ZoneID, Seq: end.HeadSeq}
		copy(head.Hash[:], end.HeadHash)
		if end.LastSeq > end.HeadSeq {
			head.Seq = end.LastSeq
			copy(head.Hash[:], end.LastHash)
		}
		heads[end.ZoneID] = head
	}
	return heads, err
}

func sealedEntry(e db.AuditEntry) chain.Entry {
	return chain.Entry{
		ZoneID: e.ZoneID, ID: e.ID, RequestID: e.RequestID, ActorID: e.ActorID, ActorName: e.ActorName, ActorScope: e.ActorScope,
		Operation: e.Operation, Action: e.Action, Method: e.Method, Path: e.Path, EntityType: e.EntityType, EntityID: e.EntityID,
		StatusCode: e.StatusCode, Payload: e.Payload, OccurredAt: e.OccurredAt,
	}
}

// SealStat is how many entries are not sealed yet, at most a number that
// [Store.SealStat] counts to, and the age of the oldest one.
type SealStat = db.GetUnsealedStatRow

// SealStat returns how many entries are not sealed yet. It counts to at most 10,000.
func (s *Store) SealStat(ctx context.Context) (SealStat, error) {
	const most = 10_000
	return s.For(System).q.GetUnsealedStat(ctx, most)
}

// Recorded returns a channel that receives a value after a transaction of this process
// has committed audit entries. It has one receiver.
func (s *Store) Recorded() <-chan struct{} { return s.recorded }

// wake sends a value to a channel with a buffer of one value.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // a wake-up is already pending
	}
}
