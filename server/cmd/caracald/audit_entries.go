package main

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/store"
	"caracal.run/management/store/chain"
)

// An entryVerifier verifies an export of audit entries.
type entryVerifier struct {
	verifyOptions
	head   *api.AuditHead
	chains map[string][]exportedSeal // by zone
	lines  int
}

func newEntryVerifier(o verifyOptions) (*entryVerifier, error) {
	v := &entryVerifier{verifyOptions: o, chains: map[string][]exportedSeal{}}
	return v, readHead(o.headFile, &v.head)
}

// An exportedSeal is what the chain needs of a line.
type exportedSeal struct {
	seq            int64
	line           int
	signed         bool
	previous, hash chain.Hash
}

func (v *entryVerifier) readLine(number int, line []byte) error {
	v.lines++
	var row api.AuditEntry
	if err := json.Unmarshal(line, &row); err != nil {
		return lineError(number, "not an audit entry: %v", err)
	}
	// What a reader of the file could see and the hash does not cover, such as another
	// field or a field that occurs twice.
	if written := append(row.AppendJSON(nil), '\n'); !bytes.Equal(line, written) {
		return lineError(number, "not as the service writes it: was the file changed, reformatted or truncated?")
	}
	if row.ChainSeq == nil || row.Hash == nil || row.PreviousHash == nil {
		return lineError(number, "entry %s is not sealed. Entries are sealed within milliseconds: export again, or with until.", row.ID)
	}
	if row.Signed != (row.Mac != nil) {
		return lineError(number, "entry %s: signed is not true", row.ID)
	}
	seq, err := strconv.ParseInt(*row.ChainSeq, 10, 64)
	if err != nil || seq < 1 {
		return lineError(number, "entry %s: chain_seq is invalid", row.ID)
	}
	seal := chain.Seal{Seq: seq, EntryID: row.ID}
	for text, bytes := range map[*string]*[]byte{row.PreviousHash: &seal.Previous, row.Hash: &seal.Hash, row.Mac: &seal.MAC} {
		if text == nil {
			continue
		}
		if *bytes, err = hex.DecodeString(*text); err != nil || len(*bytes) != len(chain.Hash{}) {
			return lineError(number, "entry %s: a hash is invalid", row.ID)
		}
	}
	entry := exportedEntry(row)
	if fault := chain.CheckEntry(v.key, seal, &entry); fault != nil {
		return lineError(number, "entry %s, chain_seq %d: %s", row.ID, seq, faults[fault.Reason])
	}
	v.chains[entry.ZoneID] = append(v.chains[entry.ZoneID], exportedSeal{seq, number, row.Signed, chain.Hash(seal.Previous), chain.Hash(seal.Hash)})
	return nil
}

// faults are the reasons in words.
var faults = map[chain.Reason]string{
	chain.EntryChanged:     "the entry or its seal was changed",
	chain.SignatureInvalid: "the signature is not by this key",
	chain.SignatureMissing: "the signature is missing",
	chain.SealRepeated:     "another line has the same chain_seq",
	chain.ChainBroken:      "the seal does not follow the one before it",
}

func exportedEntry(row api.AuditEntry) chain.Entry {
	e := chain.Entry{
		ZoneID: store.NoZone, ID: row.ID, RequestID: row.RequestID, ActorID: row.ActorID, ActorName: row.ActorName, ActorScope: row.ActorScope,
		Operation: row.Operation, Action: row.Action, Method: row.Method, Path: row.Path, EntityType: row.EntityType, EntityID: row.EntityID,
		StatusCode: int32(row.StatusCode), OccurredAt: time.Time(row.OccurredAt),
	}
	if row.ZoneID != nil {
		e.ZoneID = *row.ZoneID
	}
	if row.PayloadJSON != nil {
		e.Payload = string(*row.PayloadJSON)
	}
	return e
}

// check verifies the chain of each zone, and the head.
func (v *entryVerifier) check() error {
	for _, seals := range v.chains {
		slices.SortFunc(seals, func(a, b exportedSeal) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.line, b.line)) })
		verifier := chain.Verifier{Key: v.key, Gaps: v.filtered}
		for _, s := range seals {
			next := chain.Seal{Seq: s.seq, Previous: s.previous[:], Hash: s.hash[:]}
			if s.signed {
				next.MAC = s.hash[:] // that it is correct was checked
			}
			switch fault := verifier.Follow(next); {
			case fault == nil:
			case fault.Reason == chain.SealMissing:
				return lineError(s.line, "chain_seq is %d, and no line has %d: entries were deleted, or the export was filtered (--filtered)", s.seq, fault.Seq)
			default:
				return lineError(s.line, "chain_seq %d: %s", s.seq, faults[fault.Reason])
			}
		}
		if last := seals[len(seals)-1]; v.key != nil && !last.signed {
			return lineError(last.line, "chain_seq %d: %s", last.seq, faults[chain.SignatureMissing])
		}
	}
	return v.checkHead()
}

// checkHead verifies that the export contains the seal of the head.
func (v *entryVerifier) checkHead() error {
	if v.head == nil {
		return nil
	}
	head := chain.Head{Zone: store.NoZone}
	if v.head.ZoneID != nil {
		head.Zone = *v.head.ZoneID
	}
	hash, hashErr := hex.DecodeString(v.head.Hash)
	seq, err := strconv.ParseInt(v.head.Seq, 10, 64)
	if err != nil || hashErr != nil || len(hash) != len(head.Hash) {
		return errors.New("the head is invalid")
	}
	head.Seq, head.Hash = seq, chain.Hash(hash)
	if seq == 0 {
		return nil
	}
	if v.head.SealedAt != nil {
		head.SealedAt = time.Time(*v.head.SealedAt)
	}
	if v.key != nil && (v.head.Mac == nil || *v.head.Mac != hex.EncodeToString(head.Sign(v.key))) {
		return errors.New("the signature of the head is not by this key")
	}
	seals := v.chains[head.Zone]
	at, found := slices.BinarySearchFunc(seals, seq, func(s exportedSeal, seq int64) int { return cmp.Compare(s.seq, seq) })
	if !found {
		return fmt.Errorf("the export does not contain the head, chain_seq %d: it ends before, or entries were deleted", seq)
	}
	if seals[at].hash != head.Hash {
		return lineError(seals[at].line, "chain_seq %d is not the head: the log was replaced", seq)
	}
	return nil
}

func (v *entryVerifier) report(out io.Writer) {
	fmt.Fprintf(out, "%d entries are intact.\n", v.lines)
	for zone, seals := range v.chains {
		name := "zone " + zone
		if zone == store.NoZone {
			name = "no zone"
		}
		fmt.Fprintf(out, "%s: chain_seq %d to %d\n", name, seals[0].seq, seals[len(seals)-1].seq)
	}
}
