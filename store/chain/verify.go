package chain

import (
	"bytes"
	"crypto/hmac"
)

// A Reason says why an entry or a seal does not fit.
type Reason string

// The reasons.
const (
	EntryChanged         Reason = "entry_changed"          // the entry or its seal is not what was sealed
	EntryMissing         Reason = "entry_missing"          // there is a seal, and no entry
	EntryNotSealed       Reason = "entry_not_sealed"       // there is an entry, and no seal
	SealMissing          Reason = "seal_missing"           // no seal has the number
	SealRepeated         Reason = "seal_repeated"          // two seals have the number
	ChainBroken          Reason = "chain_broken"           // the seal does not follow the one before it
	SignatureInvalid     Reason = "signature_invalid"      // the signature is not by the key
	SignatureMissing     Reason = "signature_missing"      // the seal has no signature, nor has any after it, or one before it has
	HeadMissing          Reason = "head_missing"           // there are seals, and no head
	HeadMismatch         Reason = "head_mismatch"          // the head is not the last seal
	HeadSignatureInvalid Reason = "head_signature_invalid" // the signature of the head is not by the key
	EarlierHeadMismatch  Reason = "earlier_head_mismatch"  // a head that was read earlier is not in the chain
)

// A Fault is the first entry or seal that does not fit. ID is empty if it is not known.
type Fault struct {
	Seq    int64
	ID     string
	Reason Reason
}

// A Seal is a seal as it is stored.
type Seal struct {
	Seq            int64
	EntryID        string
	Previous, Hash []byte
	MAC            []byte // nil: not signed
}

// A Verifier checks the seals of a chain one after the other. The zero value, with a key,
// begins at the first seal.
type Verifier struct {
	Key  []byte // nil: signatures are not checked
	Gaps bool   // whether seals may be missing, which leaves the order unproven

	last   Seal
	signed bool // a seal so far was signed
}

// After makes the verifier begin after a seal.
func (v *Verifier) After(s Seal) { v.last, v.signed = s, s.MAC != nil }

// Last returns the last seal that was checked; its number is 0 if there is none.
func (v *Verifier) Last() Seal { return v.last }

// Check checks the next seal and its entry, nil if there is none. It returns nil if
// both fit.
func (v *Verifier) Check(s Seal, e *Entry) *Fault {
	if fault := v.Follow(s); fault != nil {
		return fault
	}
	return CheckEntry(v.Key, s, e)
}

// Follow checks that a seal is the next one: its number, the hash of the one before it,
// and that it is signed if one before it is. It checks neither its hash nor its signature.
func (v *Verifier) Follow(s Seal) *Fault {
	fault := func(reason Reason) *Fault { return &Fault{s.Seq, s.EntryID, reason} }
	switch next := v.last.Seq + 1; {
	case s.Seq < next:
		return fault(SealRepeated)
	case s.Seq > next && !v.Gaps:
		return &Fault{Seq: next, Reason: SealMissing}
	case s.Seq == next && !bytes.Equal(s.Previous, v.previous()):
		return fault(ChainBroken)
	case v.Key != nil && v.signed && s.MAC == nil:
		return fault(SignatureMissing)
	}
	v.signed = v.signed || s.MAC != nil
	v.last = s
	return nil
}

// CheckEntry checks that a seal is that of an entry, and its signature if there is a key
// and the seal is signed. It returns nil if both fit.
func CheckEntry(key []byte, s Seal, e *Entry) *Fault {
	fault := func(reason Reason) *Fault { return &Fault{s.Seq, s.EntryID, reason} }
	if e == nil {
		return fault(EntryMissing)
	}
	if len(s.Previous) != len(Hash{}) || e.ID != s.EntryID {
		return fault(EntryChanged)
	}
	hash := e.Hash(Hash(s.Previous), s.Seq)
	switch {
	case !bytes.Equal(s.Hash, hash[:]):
		return fault(EntryChanged)
	case key != nil && s.MAC != nil && !hmac.Equal(s.MAC, Sign(key, hash)):
		return fault(SignatureInvalid)
	}
	return nil
}

// previous returns the hash of the last seal.
func (v *Verifier) previous() []byte {
	if v.last.Seq == 0 {
		return make([]byte, len(Hash{}))
	}
	return v.last.Hash
}

// End checks that the last seal is the end of the chain: it is the head, and signed. A
// nil head means that there is none.
func (v *Verifier) End(head *Head, mac []byte) *Fault {
	fault := func(reason Reason) *Fault { return &Fault{v.last.Seq, v.last.EntryID, reason} }
	switch {
	case head == nil && v.last.Seq == 0:
		return nil
	case head == nil:
		return fault(HeadMissing)
	case head.Seq > v.last.Seq:
		return &Fault{Seq: v.last.Seq + 1, Reason: HeadMismatch}
	case head.Seq < v.last.Seq || !bytes.Equal(head.Hash[:], v.previous()):
		return fault(HeadMismatch)
	case v.Key == nil:
		return nil
	case v.last.MAC == nil:
		return fault(SignatureMissing)
	case !hmac.Equal(mac, head.Sign(v.Key)):
		return fault(HeadSignatureInvalid)
	}
	return nil
}
