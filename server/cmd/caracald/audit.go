package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/server"
	"caracal.run/management/store"
	"caracal.run/management/store/chain"
)

// auditVerify verifies an export of the audit log without the service.
func auditVerify(flags *flag.FlagSet) func(context.Context, io.Writer) error {
	filtered := flags.Bool("filtered", false, "accept that entries are missing between those in the file, because the export was filtered")
	headFile := flags.String("head", "", "`file` with the response of …/admin-audit/head, which the export must contain")
	return func(_ context.Context, out io.Writer) error {
		key, err := server.LoadAuditKey(os.Environ())
		if err != nil {
			return err
		}
		v := exportVerifier{key: key, filtered: *filtered, chains: map[string][]exportedSeal{}}
		if *headFile != "" {
			if v.head, err = readHead(*headFile); err != nil {
				return err
			}
		}
		in := os.Stdin
		if name := flags.Arg(0); name != "-" {
			if in, err = os.Open(name); err != nil {
				return err
			}
			defer in.Close()
		}
		if err := v.read(in); err != nil {
			return err
		}
		if err := v.check(); err != nil {
			return err
		}
		v.report(out)
		return nil
	}
}

// readHead returns the head in a file.
func readHead(name string) (*api.AuditHead, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	head := new(api.AuditHead)
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(head); err != nil {
		return nil, fmt.Errorf("%s: not a head: %w", name, err)
	}
	return head, nil
}

// An exportVerifier verifies the lines of an export: first each line, then the chain of
// each zone, because the lines are in the order of the times, not of the seals.
type exportVerifier struct {
	key      []byte
	filtered bool
	head     *api.AuditHead
	chains   map[string][]exportedSeal // by zone
	lines    int
}

// An exportedSeal is what the chain needs of a line.
type exportedSeal struct {
	seq            int64
	line           int
	signed         bool
	previous, hash chain.Hash
}

func lineError(line int, format string, args ...any) error {
	return fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
}

// read reads and verifies every line.
func (v *exportVerifier) read(in io.Reader) error {
	lines := bufio.NewReaderSize(in, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			v.lines++
			if err := v.readLine(line); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (v *exportVerifier) readLine(line []byte) error {
	var row api.AuditEntry
	if err := json.Unmarshal(line, &row); err != nil {
		return lineError(v.lines, "not an audit entry: %v", err)
	}
	// What a reader of the file could see and the hash does not cover, such as another
	// field or a field that occurs twice.
	if written := append(row.AppendJSON(nil), '\n'); !bytes.Equal(line, written) {
		return lineError(v.lines, "not as the service writes it: was the file changed, reformatted or truncated?")
	}
	if row.ChainSeq == nil || row.Hash == nil || row.PreviousHash == nil {
		return lineError(v.lines, "entry %s is not sealed. Entries are sealed within milliseconds: export again, or with until.", row.ID)
	}
	if row.Signed != (row.Mac != nil) {
		return lineError(v.lines, "entry %s: signed is not true", row.ID)
	}
	seq, err := strconv.ParseInt(*row.ChainSeq, 10, 64)
	if err != nil || seq < 1 {
		return lineError(v.lines, "entry %s: chain_seq is invalid", row.ID)
	}
	seal := chain.Seal{Seq: seq, EntryID: row.ID}
	for text, bytes := range map[*string]*[]byte{row.PreviousHash: &seal.Previous, row.Hash: &seal.Hash, row.Mac: &seal.MAC} {
		if text == nil {
			continue
		}
		if *bytes, err = hex.DecodeString(*text); err != nil || len(*bytes) != len(chain.Hash{}) {
			return lineError(v.lines, "entry %s: a hash is invalid", row.ID)
		}
	}
	entry := exportedEntry(row)
	if fault := chain.CheckEntry(v.key, seal, &entry); fault != nil {
		return lineError(v.lines, "entry %s, chain_seq %d: %s", row.ID, seq, faults[fault.Reason])
	}
	v.chains[entry.ZoneID] = append(v.chains[entry.ZoneID], exportedSeal{seq, v.lines, row.Signed, chain.Hash(seal.Previous), chain.Hash(seal.Hash)})
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
func (v *exportVerifier) check() error {
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
				return lineError(s.line, "chain_seq is %d, and no line has %d: entries were deleted, or the export was filtered (-filtered)", s.seq, fault.Seq)
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
func (v *exportVerifier) checkHead() error {
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

// report prints what was verified, and what an export cannot show.
func (v *exportVerifier) report(out io.Writer) {
	fmt.Fprintf(out, "%d entries are intact.\n", v.lines)
	for zone, seals := range v.chains {
		name := "zone " + zone
		if zone == store.NoZone {
			name = "no zone"
		}
		fmt.Fprintf(out, "%s: chain_seq %d to %d\n", name, seals[0].seq, seals[len(seals)-1].seq)
	}
	if v.key == nil {
		fmt.Fprintln(out, "Not verified: the signatures, because AUDIT_HMAC_KEY is not set. Without them, somebody could have computed all hashes again.")
	}
	if v.filtered {
		fmt.Fprintln(out, "Not verified: whether entries are missing between those in the file, because of -filtered.")
	}
	if v.head == nil {
		fmt.Fprintln(out, "Not verified: whether the log has entries after the last one in the file. A head that was kept shows it (-head).")
	}
}
