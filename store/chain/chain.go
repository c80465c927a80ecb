// Package chain computes the seals that make the audit log tamper-evident. A verifier
// needs nothing but the entries, their seals and the key: no database.
//
// The seals of a zone form a chain. Their sequence numbers are 1, 2, 3, …, without gaps.
// Entries that belong to no zone form a chain of their own, with the zone "-". The hash
// of a seal is
//
//	SHA-256("caracal audit entry v1\n" ‖ previous ‖ seq ‖ columns)
//
// where previous is the hash of the seal before it, or 32 zero bytes for the first one,
// and seq is a big-endian 64-bit integer. The columns of the entry follow, each as its
// length in bytes, a big-endian 64-bit integer, and that many bytes of UTF-8. A null
// column has the length 2⁶⁴−1 and no bytes. Their order is
//
//	zone_id, id, request_id, actor_id, actor_name, actor_scope, operation, action, method,
//	path, entity_type, entity_id, status_code, payload, occurred_at
//
// The status code is a decimal number, the payload the text exactly as it is stored, and
// occurred_at a time in UTC with microseconds, such as 2026-07-01T12:00:00.123000Z.
//
// The signature (mac) of a seal is
//
//	HMAC-SHA-256(key, "caracal audit seal v1\n" ‖ hash)
//
// with the key in AUDIT_HMAC_KEY, or null if the service has none. As each hash covers
// the one before it, a signature covers the whole chain up to its seal.
//
// The head of a chain is its last seal. It has a signature of its own:
//
//	HMAC-SHA-256(key, "caracal audit head v1\n" ‖ zone ‖ seq ‖ hash ‖ sealed_at)
//
// with zone and sealed_at encoded like columns, and seq like that of a seal.
//
// A worked example, with the key 000102…1f:
//
//	entry 1      zone_id zone-1, id entry-1, request_id req-77, actor_id tok-1,
//	             actor_name bootstrap, actor_scope global, operation updateApplication,
//	             action PATCH /v1/zones/zone-1/applications/app-1, method PATCH,
//	             path /v1/zones/zone-1/applications/app-1, entity_type applications,
//	             entity_id app-1, status_code 200, payload {"changed_fields":["name"]},
//	             occurred_at 2026-07-01T12:00:00.123Z
//	hash 1       cb7672448632772f70b41dcb7423850f11a81fd89c4301cbf3e051eed2480d1d
//	mac 1        0c8a7e3909c91c7dfe227c497656d973a9c0029b56d2a1b45e922b038e2f6633
//	entry 2      zone_id zone-1, id entry-2, actor_name caracald, operation expire-sessions,
//	             action expire-sessions, payload {}, occurred_at 2026-07-01T12:00:05Z, status_code 0;
//	             actor_id, actor_scope, entity_type and entity_id are null, the others are empty
//	hash 2       e5ae2fbfc81e3a13a72b4fd686c1abbeb5f7f5bdee0c320f71a79ad2c1563180
//	mac 2        c12310ba3c58b6f2907df48951cf5e84b6127dd1139c3e403321dbc5fa6b649f
//	head         seq 2, sealed_at 2026-07-01T12:00:05.5Z
//	mac of head  fcfcf9c9f722f38190516b34d4c08945142a6d36a083780f7c893e522fe9992e
package chain

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"strconv"
	"time"
)

// A Hash is the hash of a seal. The zero Hash precedes the first seal of a chain.
type Hash [sha256.Size]byte

// An Entry is an audit entry as it is stored. A nil field is null.
type Entry struct {
	ZoneID, ID, RequestID string
	ActorID               *string
	ActorName             string
	ActorScope            *string
	Operation, Action     string
	Method, Path          string
	EntityType, EntityID  *string
	StatusCode            int32
	Payload               string
	OccurredAt            time.Time
}

const (
	entryDomain = "caracal audit entry v1\n"
	sealDomain  = "caracal audit seal v1\n"
	headDomain  = "caracal audit head v1\n"

	timeLayout = "2006-01-02T15:04:05.000000Z"
)

// Hash returns the hash of the seal of an entry.
func (e *Entry) Hash(previous Hash, seq int64) Hash {
	b := make([]byte, 0, 1024)
	b = append(b, entryDomain...)
	b = append(b, previous[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(seq))
	for _, column := range [...]*string{
		&e.ZoneID, &e.ID, &e.RequestID, e.ActorID, &e.ActorName, e.ActorScope, &e.Operation, &e.Action, &e.Method, &e.Path, e.EntityType, e.EntityID,
	} {
		b = appendColumn(b, column)
	}
	b = appendText(b, strconv.Itoa(int(e.StatusCode)))
	b = appendText(b, e.Payload)
	b = appendText(b, e.OccurredAt.UTC().Format(timeLayout))
	return sha256.Sum256(b)
}

// Sign returns the signature of a seal, or nil if there is no key.
func Sign(key []byte, hash Hash) []byte {
	if key == nil {
		return nil
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(sealDomain))
	mac.Write(hash[:])
	return mac.Sum(nil)
}

// A Head identifies the last seal of a chain. Seq is 0 if the chain is empty.
type Head struct {
	Zone     string
	Seq      int64
	Hash     Hash
	SealedAt time.Time
}

// Sign returns the signature of a head, or nil if there is no key.
func (h Head) Sign(key []byte) []byte {
	if key == nil {
		return nil
	}
	b := appendText([]byte(headDomain), h.Zone)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Seq))
	b = append(b, h.Hash[:]...)
	b = appendText(b, h.SealedAt.UTC().Format(timeLayout))
	mac := hmac.New(sha256.New, key)
	mac.Write(b)
	return mac.Sum(nil)
}

// appendColumn appends a column that may be null.
func appendColumn(b []byte, column *string) []byte {
	if column == nil {
		return binary.BigEndian.AppendUint64(b, math.MaxUint64)
	}
	return appendText(b, *column)
}

func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint64(b, uint64(len(text))), text...)
}
