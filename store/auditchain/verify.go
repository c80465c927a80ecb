package auditchain

import "fmt"

// A Link is a stored event with its place in the chain of its zone.
type Link struct {
	Event
	Seq         int64
	ContentHash string
	Previous    string // content hash of the event before; empty for the first event
	MAC         string // empty: no key was configured
	HashOnly    bool   // the content is not known, so that its hash is not verified
}

// A Head is the last event of a zone's chain.
type Head struct {
	Seq         int64 // 0: the chain has no event
	ContentHash string
	MAC         string // empty: no key was configured
}

// A Reason is why an event or a checkpoint does not fit.
type Reason string

// The reasons.
const (
	ContentChanged      Reason = "content_changed"       // the event does not have its content hash
	ChainBroken         Reason = "chain_broken"          // it does not follow what is before it
	SignatureInvalid    Reason = "signature_invalid"     // not by the key, or for another event
	SignatureMissing    Reason = "signature_missing"     // what is before it has one
	EventMissing        Reason = "event_missing"         // nothing has the number
	SeqRepeated         Reason = "seq_repeated"          // something else has the number
	CheckpointInvalid   Reason = "checkpoint_invalid"    // the signature of a checkpoint is invalid
	HeadMismatch        Reason = "head_mismatch"         // the head is not the last event, or is not signed by the key
	EarlierHeadMismatch Reason = "earlier_head_mismatch" // a head that was read earlier is not in the chain
)

// A Fault is what does not fit in a chain.
type Fault struct {
	Seq     int64
	EventID string // empty: not an event
	Reason  Reason
	Detail  string
}

// Check verifies an event by itself. The fault has no reason if there is none.
func (l *Link) Check(key []byte) Fault {
	fault := Fault{Seq: l.Seq, EventID: l.ID}
	switch content := l.Event.ContentHash(); {
	case !l.HashOnly && content != l.ContentHash:
		fault.Reason, fault.Detail = ContentChanged, "the content has the hash "+content+", not "+l.ContentHash
	case key != nil && l.MAC != "" && l.MAC != ChainMAC(key, l.ContentHash, l.Previous):
		fault.Reason, fault.Detail = SignatureInvalid, "the signature is not that of the key, the content hash and the previous hash"
	}
	return fault
}

// A Verifier verifies the chain of a zone, whose events and checkpoints are added in the
// order of their numbers. It needs constant memory.
type Verifier struct {
	Events  int64   // that were added
	Dropped int64   // events for which the added checkpoints stand
	Signed  bool    // an event or a checkpoint with a signature was added
	Faults  []Fault // the first ones

	key      []byte
	zone     string
	next     int64
	previous string // content hash of the event before next
	joined   bool   // previous is known
}

// maxFaults limits the number of faults that are kept.
const maxFaults = 100

// NewVerifier returns a verifier that begins with the event of a number. Previous is the
// content hash of the event before it; it is empty for the first event of the chain. If
// it is not known, joined is false. With a nil key, MACs are not verified.
func NewVerifier(key []byte, zone string, first int64, previous string, joined bool) *Verifier {
	return &Verifier{key: key, zone: zone, next: first, previous: previous, joined: joined}
}

func (v *Verifier) report(seq int64, id string, reason Reason, detail string) {
	if len(v.Faults) < maxFaults {
		v.Faults = append(v.Faults, Fault{seq, id, reason, detail})
	}
}

// Add verifies the next event.
func (v *Verifier) Add(l Link) {
	v.Events++
	if f := l.Check(v.key); f.Reason != "" {
		v.report(f.Seq, f.EventID, f.Reason, f.Detail)
	}
	if l.ZoneID != v.zone {
		v.report(l.Seq, l.ID, ContentChanged, "the event is of another zone")
	}
	// Events from before a key was configured have no signature. That of the first signed
	// event covers their hashes.
	if v.key != nil && l.MAC == "" && v.Signed {
		v.report(l.Seq, l.ID, SignatureMissing, "events before this one have a signature")
	}
	v.Signed = v.Signed || l.MAC != ""
	v.follow(l.Seq, l.Seq, l.ID, l.Previous, l.ContentHash)
}

// AddCheckpoint verifies the next checkpoint.
func (v *Verifier) AddCheckpoint(c Checkpoint, mac string) {
	v.Dropped += c.LastSeq - c.FirstSeq + 1
	switch {
	case v.key == nil:
	case mac != "" && mac != c.MAC(v.key):
		v.report(c.FirstSeq, "", CheckpointInvalid, fmt.Sprintf("the signature of the checkpoint for %d to %d is not that of the key", c.FirstSeq, c.LastSeq))
	case mac == "" && v.Signed:
		v.report(c.FirstSeq, "", SignatureMissing, "events before this checkpoint have a signature")
	}
	v.Signed = v.Signed || mac != ""
	v.follow(c.FirstSeq, c.LastSeq, "", c.Previous, c.Last)
}

// follow verifies that what has the numbers from first to last follows what was added
// before.
func (v *Verifier) follow(first, last int64, id, previous, hash string) {
	switch {
	case first < v.next:
		v.report(first, id, SeqRepeated, fmt.Sprintf("the next number is %d", v.next))
	case first > v.next:
		v.report(v.next, "", EventMissing, fmt.Sprintf("%d to %d are missing", v.next, first-1))
	case v.joined && previous != v.previous:
		v.report(first, id, ChainBroken, "the previous hash is "+orNone(previous)+", and that of the event before is "+orNone(v.previous))
	}
	v.next, v.previous, v.joined = max(v.next, last+1), hash, true
}

func orNone(hash string) string {
	if hash == "" {
		return "empty"
	}
	return hash
}

// Last returns the highest number before the first fault.
func (v *Verifier) Last() int64 {
	last := v.next - 1
	if len(v.Faults) > 0 {
		last = min(last, v.Faults[0].Seq-1)
	}
	return last
}

// CheckEarlierHead verifies a head that was read earlier. The hash is that of the event
// with its number, or empty if there is none.
func (v *Verifier) CheckEarlierHead(head Head, hash string) {
	if hash != head.ContentHash {
		v.report(head.Seq, "", EarlierHeadMismatch, "the event has the hash "+orNone(hash)+", not "+head.ContentHash)
	}
}

// Finish verifies that the events to the number to were added or, if the head has no
// higher one, that the head is the last event.
func (v *Verifier) Finish(to int64, head Head) {
	last := v.next - 1
	if to < head.Seq {
		if last < to {
			v.report(v.next, "", EventMissing, fmt.Sprintf("%d to %d are missing", v.next, to))
		}
		return
	}
	switch {
	case last < head.Seq:
		v.report(v.next, "", EventMissing, fmt.Sprintf("%d to %d are missing", v.next, head.Seq))
	case last > head.Seq:
		v.report(head.Seq, "", HeadMismatch, fmt.Sprintf("the head is %d, and the last event %d", head.Seq, last))
	case v.joined && v.previous != head.ContentHash:
		v.report(head.Seq, "", HeadMismatch, "the head has the hash "+orNone(head.ContentHash)+", and the last event "+orNone(v.previous))
	}
	switch {
	case v.key == nil || head.Seq == 0:
	case head.MAC != "" && head.MAC != HeadMAC(v.key, v.zone, head.Seq, head.ContentHash):
		v.report(head.Seq, "", HeadMismatch, "the signature of the head is not that of the key")
	case head.MAC == "" && v.Signed:
		v.report(head.Seq, "", HeadMismatch, "the head has no signature, and events have")
	}
}
