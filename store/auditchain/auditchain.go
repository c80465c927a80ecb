// Package auditchain computes the hashes that link the authorization audit events of a
// zone. It needs nothing but the events and the key, so whatever holds both can verify a
// chain.
//
// An event's content hash covers what is stored of it. Its chain MAC covers its content
// hash and that of the event before it in the zone's chain.
package auditchain

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// An Event is the part of an audit event that its content hash covers. A missing text is
// empty.
type Event struct {
	ID, ZoneID, EventType, RequestID, Decision   string
	PolicySetID, PolicySetVersionID, ManifestSHA string
	EvaluationStatus                             string
	DeterminingPolicies, Diagnostics, Metadata   string    // canonical JSON (see [Parse]), or empty
	OccurredAt                                   time.Time // in microseconds
}

// unitSeparator separates the parts of a hashed text. No part contains it: the ingester
// rejects texts with control characters, and JSON escapes them.
const unitSeparator = "\x1f"

// ContentHash returns the SHA-256 of the event's content, in lower-case hexadecimal.
func (e *Event) ContentHash() string {
	orNull := func(json string) string {
		if json == "" {
			return "null"
		}
		return json
	}
	// Each part is followed by a separator, except the last one.
	hash := sha256.New()
	text := make([]byte, 0, 512+len(e.Metadata)+len(e.DeterminingPolicies)+len(e.Diagnostics))
	for _, part := range []string{
		e.ID, e.ZoneID, e.EventType, e.RequestID, e.Decision, e.PolicySetID, e.PolicySetVersionID, e.ManifestSHA, e.EvaluationStatus,
		orNull(e.DeterminingPolicies), orNull(e.Diagnostics), orNull(e.Metadata),
	} {
		text = append(append(text, part...), unitSeparator...)
	}
	text = strconv.AppendInt(text, e.OccurredAt.UnixNano(), 10)
	hash.Write(text)
	return hex.EncodeToString(hash.Sum(nil))
}

// ChainMAC returns the HMAC-SHA-256 of an event's content hash and that of the event
// before it, which is empty for the first event, in lower-case hexadecimal. Without a
// key, it is empty.
func ChainMAC(key []byte, contentHash, previous string) string {
	return mac(key, contentHash+"|"+previous)
}

// HeadMAC returns the HMAC of the last event of a zone's chain. Because no row contains
// those of earlier events, a chain whose end was removed does not match its head.
func HeadMAC(key []byte, zone string, seq int64, contentHash string) string {
	return mac(key, strings.Join([]string{"audit-chain-head", zone, strconv.FormatInt(seq, 10), contentHash}, unitSeparator))
}

// A Checkpoint stands for a run of consecutive events of a chain that retention has
// dropped.
type Checkpoint struct {
	ZoneID            string
	FirstSeq, LastSeq int64
	Previous          string // content hash of the event before the first one; empty: there is none
	Last              string // content hash of the last event
}

// MAC returns the HMAC of the checkpoint.
func (c Checkpoint) MAC(key []byte) string {
	return mac(key, strings.Join([]string{
		"audit-chain-checkpoint", c.ZoneID, strconv.FormatInt(c.FirstSeq, 10), strconv.FormatInt(c.LastSeq, 10), c.Previous, c.Last,
	}, unitSeparator))
}

func mac(key []byte, text string) string {
	if key == nil {
		return ""
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil))
}
