package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"caracal.run/management/gen/api"
	"caracal.run/management/server"
	"caracal.run/management/store/auditchain"
)

// An eventVerifier verifies an export of authorization audit events.
type eventVerifier struct {
	verifyOptions
	head        *api.AuditEventHead
	chains      map[string][]exportedEvent // by zone
	lines       int
	hidden      int // events with redacted values, whose content is not verified
	firstHidden int // line of the first of them
}

// An exportedEvent is what the chain needs of a line.
type exportedEvent struct {
	seq                   int64
	line                  int
	hash, previous, mac   [sha256.Size]byte
	hasPrevious, isSigned bool
}

func newEventVerifier(o verifyOptions) (*eventVerifier, error) {
	v := &eventVerifier{verifyOptions: o, chains: map[string][]exportedEvent{}}
	return v, readHead(o.headFile, &v.head)
}

func (v *eventVerifier) readLine(number int, line []byte) error {
	link, redacted, err := server.ParseExportedAuditEvent(line)
	if err != nil {
		return lineError(number, "not an audit event: %v", err)
	}
	v.lines++
	if redacted && link.Event.ContentHash() != link.ContentHash {
		if !v.redacted {
			return lineError(number, "event %s, chain_seq %d: values are redacted, so that the content cannot be verified (--redacted)", link.ID, link.Seq)
		}
		link.HashOnly = true
		if v.hidden++; v.firstHidden == 0 {
			v.firstHidden = number
		}
	}
	if fault := link.Check(v.key); fault.Reason != "" {
		return lineError(number, "event %s, chain_seq %d: %s", link.ID, link.Seq, fault.Detail)
	}
	e := exportedEvent{seq: link.Seq, line: number, hasPrevious: link.Previous != "", isSigned: link.MAC != ""}
	for _, hash := range []struct {
		text  string
		bytes *[sha256.Size]byte
	}{{link.ContentHash, &e.hash}, {link.Previous, &e.previous}, {link.MAC, &e.mac}} {
		if hash.text == "" {
			continue
		}
		if len(hash.text) != 2*len(hash.bytes) || hash.text != strings.ToLower(hash.text) {
			return lineError(number, "event %s, chain_seq %d: a hash is invalid", link.ID, link.Seq)
		}
		if _, err := hex.Decode(hash.bytes[:], []byte(hash.text)); err != nil {
			return lineError(number, "event %s, chain_seq %d: a hash is invalid", link.ID, link.Seq)
		}
	}
	v.chains[link.ZoneID] = append(v.chains[link.ZoneID], e)
	return nil
}

// link returns the place of an event in the chain of its zone.
func (e exportedEvent) link(zone string) auditchain.Link {
	l := auditchain.Link{Event: auditchain.Event{ZoneID: zone}, Seq: e.seq, ContentHash: hex.EncodeToString(e.hash[:]), HashOnly: true}
	if e.hasPrevious {
		l.Previous = hex.EncodeToString(e.previous[:])
	}
	if e.isSigned {
		l.MAC = hex.EncodeToString(e.mac[:])
	}
	return l
}

// check verifies the chain of each zone, and the head.
func (v *eventVerifier) check() error {
	for _, zone := range slices.Sorted(maps.Keys(v.chains)) {
		events := v.chains[zone]
		slices.SortFunc(events, func(a, b exportedEvent) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.line, b.line)) })
		verifier := auditchain.NewVerifier(v.key, zone, 1, "", true)
		next := int64(1)
		for _, e := range events {
			if v.filtered && e.seq > next {
				signed := verifier.Signed
				verifier = auditchain.NewVerifier(v.key, zone, e.seq, "", false)
				verifier.Signed = signed
			}
			verifier.Add(e.link(zone))
			if len(verifier.Faults) > 0 {
				return eventFault(e, verifier.Faults[0])
			}
			next = e.seq + 1
		}
		if last := events[len(events)-1]; v.key != nil && !last.isSigned {
			return lineError(last.line, "chain_seq %d: the signature is missing", last.seq)
		}
	}
	return v.checkHead()
}

func eventFault(e exportedEvent, f auditchain.Fault) error {
	switch f.Reason {
	case auditchain.EventMissing:
		return lineError(e.line, "chain_seq is %d, and no line has %d: events were deleted, also by retention, or the export was filtered (--filtered)", e.seq, f.Seq)
	case auditchain.SeqRepeated:
		return lineError(e.line, "chain_seq %d: another line has the same chain_seq", e.seq)
	}
	return lineError(e.line, "chain_seq %d: %s", e.seq, f.Detail)
}

// checkHead verifies that the export contains the event of the head.
func (v *eventVerifier) checkHead() error {
	if v.head == nil {
		return nil
	}
	seq, err := strconv.ParseInt(v.head.Seq, 10, 64)
	if err != nil || (seq > 0) != (v.head.Hash != nil) {
		return errors.New("the head is invalid")
	}
	if seq == 0 {
		return nil
	}
	if v.key != nil && (v.head.Mac == nil || *v.head.Mac != auditchain.HeadMAC(v.key, v.head.ZoneID, seq, *v.head.Hash)) {
		return errors.New("the signature of the head is not by this key")
	}
	events := v.chains[v.head.ZoneID]
	at, found := slices.BinarySearchFunc(events, seq, func(e exportedEvent, seq int64) int { return cmp.Compare(e.seq, seq) })
	if !found {
		return fmt.Errorf("the export does not contain the head, chain_seq %d: it ends before, or events were deleted", seq)
	}
	if hex.EncodeToString(events[at].hash[:]) != *v.head.Hash {
		return lineError(events[at].line, "chain_seq %d is not the head: the log was replaced", seq)
	}
	return nil
}

func (v *eventVerifier) report(out io.Writer) {
	fmt.Fprintf(out, "%d events are intact.\n", v.lines)
	for _, zone := range slices.Sorted(maps.Keys(v.chains)) {
		events := v.chains[zone]
		fmt.Fprintf(out, "zone %s: chain_seq %d to %d\n", zone, events[0].seq, events[len(events)-1].seq)
	}
	if v.hidden > 0 {
		fmt.Fprintf(out, "Not verified: the content of %d events with redacted values, the first one on line %d, because of --redacted.\n", v.hidden, v.firstHidden)
	}
	fmt.Fprintln(out, "Not verified: ingested_at, which no hash covers.")
}
