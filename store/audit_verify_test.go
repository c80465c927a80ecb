package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/store"
	"caracal.run/management/store/chain"
	"caracal.run/management/store/storetest"
)

// sealedZone creates a zone whose chain has a number of seals, and returns its id.
func sealedZone(t *testing.T, s *store.Store, seals int, key []byte) string {
	t.Helper()
	zone := newZone(t, s).ID
	for n := range seals - 1 {
		if err := renameZone(t.Context(), s, zone, fmt.Sprint("name ", n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.SealEntries(t.Context(), key, 1000); err != nil {
		t.Fatal(err)
	}
	return zone
}

func verify(t *testing.T, s *store.Store, zone string, key []byte, r store.SealRange, earlier *chain.Head) store.Verification {
	t.Helper()
	v, err := s.For(store.System).VerifyAudit(t.Context(), zone, key, r, earlier, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var wholeChain = store.SealRange{From: 1}

// Whatever someone with access to the database changes, the verification finds the first
// entry that does not fit.
func TestVerifyAuditFindsTampering(t *testing.T) {
	t.Parallel()
	const seals = 8
	type attack struct {
		name, sql string
		seq       int64
		reason    chain.Reason
	}
	entry := "zone_id = $1 AND id = (SELECT entry_id FROM audit_seals WHERE zone_id = $1 AND seq = 4)"
	attacks := []attack{
		{"nothing", "SELECT $1::text", 0, ""},
		{"delete the first entry", "DELETE FROM audit_entries WHERE zone_id = $1 AND id = (SELECT entry_id FROM audit_seals WHERE zone_id = $1 AND seq = 1)", 1, chain.EntryMissing},
		{"delete an entry", "DELETE FROM audit_entries WHERE " + entry, 4, chain.EntryMissing},
		{"delete the last entry", "DELETE FROM audit_entries WHERE zone_id = $1 AND id = (SELECT entry_id FROM audit_seals WHERE zone_id = $1 AND seq = 8)", 8, chain.EntryMissing},
		{"delete the first seal", "DELETE FROM audit_seals WHERE zone_id = $1 AND seq = 1", 1, chain.SealMissing},
		{"delete a seal", "DELETE FROM audit_seals WHERE zone_id = $1 AND seq = 4", 4, chain.SealMissing},
		{"delete the last seal", "DELETE FROM audit_seals WHERE zone_id = $1 AND seq = 8", 8, chain.HeadMismatch},
		{"delete the first entry with its seal", "WITH s AS (DELETE FROM audit_seals WHERE zone_id = $1 AND seq = 1 RETURNING entry_id) DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM s)", 1, chain.SealMissing},
		{"delete an entry with its seal", "WITH s AS (DELETE FROM audit_seals WHERE zone_id = $1 AND seq = 4 RETURNING entry_id) DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM s)", 4, chain.SealMissing},
		{"delete the last entry with its seal", "WITH s AS (DELETE FROM audit_seals WHERE zone_id = $1 AND seq = 8 RETURNING entry_id) DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM s)", 8, chain.HeadMismatch},
		{"delete an entry with its seal and renumber", `WITH s AS (DELETE FROM audit_seals WHERE zone_id = $1 AND seq = 4 RETURNING entry_id), e AS (DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM s)),
			h AS (UPDATE audit_seal_heads SET seq = 7 WHERE zone_id = $1) UPDATE audit_seals SET seq = seq - 1 WHERE zone_id = $1 AND seq > 4`, 4, chain.ChainBroken},
		{"delete an entry with its seal, renumber and link", `WITH s AS (DELETE FROM audit_seals WHERE zone_id = $1 AND seq = 4 RETURNING entry_id), e AS (DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM s))
			UPDATE audit_seals SET seq = seq - 1, previous = CASE WHEN seq = 5 THEN (SELECT hash FROM audit_seals WHERE zone_id = $1 AND seq = 3) ELSE previous END WHERE zone_id = $1 AND seq > 4`, 4, chain.EntryChanged},
		{"delete everything", "WITH s AS (DELETE FROM audit_seals WHERE zone_id = $1) DELETE FROM audit_entries WHERE zone_id = $1", 1, chain.HeadMismatch},
		{"delete all seals and the head", "WITH s AS (DELETE FROM audit_seals WHERE zone_id = $1) DELETE FROM audit_seal_heads WHERE zone_id = $1", 0, chain.EntryNotSealed},
		{"insert an entry", "INSERT INTO audit_entries SELECT zone_id, 'inserted', request_id, actor_id, actor_name, actor_scope, operation, action, method, path, entity_type, entity_id, status_code, payload FROM audit_entries WHERE " + entry, 0, chain.EntryNotSealed},
		{"insert an entry with a seal at the end", `WITH e AS (INSERT INTO audit_entries SELECT zone_id, 'inserted', request_id, actor_id, actor_name, actor_scope, operation, action, method, path, entity_type, entity_id, status_code, payload FROM audit_entries WHERE ` + entry + `)
			INSERT INTO audit_seals SELECT zone_id, 9, 'inserted', hash, sha256('x'), sha256('y') FROM audit_seals WHERE zone_id = $1 AND seq = 8`, 9, chain.EntryChanged},
		{"reorder two seals", `UPDATE audit_seals AS s SET entry_id = o.entry_id || '', previous = o.previous, hash = o.hash, mac = o.mac FROM audit_seals AS o
			WHERE s.zone_id = $1 AND o.zone_id = $1 AND (s.seq, o.seq) IN ((4, 5), (5, 4))`, 4, chain.ChainBroken},
		{"reorder two seals and link them", `UPDATE audit_seals AS s SET entry_id = o.entry_id, hash = o.hash, mac = o.mac FROM audit_seals AS o
			WHERE s.zone_id = $1 AND o.zone_id = $1 AND (s.seq, o.seq) IN ((4, 5), (5, 4))`, 4, chain.EntryChanged},
		{"swap two entries", `UPDATE audit_entries AS e SET payload = o.payload, occurred_at = o.occurred_at FROM audit_entries AS o, audit_seals AS a, audit_seals AS b
			WHERE e.zone_id = $1 AND o.zone_id = $1 AND a.zone_id = $1 AND b.zone_id = $1 AND e.id = a.entry_id AND o.id = b.entry_id AND (a.seq, b.seq) IN ((4, 5), (5, 4))`, 4, chain.EntryChanged},
		{"swap the zones of the entries", "UPDATE audit_entries SET zone_id = CASE zone_id WHEN $1 THEN $2 ELSE $1 END WHERE zone_id IN ($1, $2)", 1, chain.EntryMissing},
		{"swap the zones of everything", `WITH e AS (UPDATE audit_entries SET zone_id = CASE zone_id WHEN $1 THEN $2 ELSE $1 END WHERE zone_id IN ($1, $2)),
			h AS (UPDATE audit_seal_heads AS h SET hash = o.hash, mac = o.mac FROM audit_seal_heads AS o WHERE (h.zone_id, o.zone_id) IN (($1, $2), ($2, $1)))
			UPDATE audit_seals SET zone_id = CASE zone_id WHEN $1 THEN $2 ELSE $1 END WHERE zone_id IN ($1, $2)`, 1, chain.EntryChanged},
		{"delete the signatures", "WITH h AS (UPDATE audit_seal_heads SET mac = NULL WHERE zone_id = $1) UPDATE audit_seals SET mac = NULL WHERE zone_id = $1", 8, chain.SignatureMissing},
		{"delete the head", "DELETE FROM audit_seal_heads WHERE zone_id = $1", 8, chain.HeadMissing},
		{"set the head back", "UPDATE audit_seal_heads AS h SET seq = s.seq, hash = s.hash FROM audit_seals AS s WHERE h.zone_id = $1 AND s.zone_id = $1 AND s.seq = 7", 8, chain.HeadMismatch},
		{"set the head forward", "UPDATE audit_seal_heads SET seq = 9 WHERE zone_id = $1", 9, chain.HeadMismatch},
		{"change the hash of the head", "UPDATE audit_seal_heads SET hash = sha256('x') WHERE zone_id = $1", 8, chain.HeadMismatch},
		{"change the time of the head", "UPDATE audit_seal_heads SET sealed_at = sealed_at + interval '1 microsecond' WHERE zone_id = $1", 8, chain.HeadSignatureInvalid},
		{"change the signature of the head", "UPDATE audit_seal_heads SET mac = sha256('x') WHERE zone_id = $1", 8, chain.HeadSignatureInvalid},
		{"move the seals to another zone", "UPDATE audit_seals SET zone_id = 'elsewhere' WHERE zone_id = $1", 1, chain.HeadMismatch},
		{"renumber a seal", "UPDATE audit_seals SET seq = 40 WHERE zone_id = $1 AND seq = 4", 4, chain.SealMissing},
		{"give a seal to another entry", "UPDATE audit_seals SET entry_id = 'x' WHERE zone_id = $1 AND seq = 4", 4, chain.EntryMissing},
		{"change a previous hash", "UPDATE audit_seals SET previous = sha256('x') WHERE zone_id = $1 AND seq = 4", 4, chain.ChainBroken},
		{"shorten a previous hash", "UPDATE audit_seals SET previous = '' WHERE zone_id = $1 AND seq = 4", 4, chain.ChainBroken},
		{"change a hash", "UPDATE audit_seals SET hash = sha256('x') WHERE zone_id = $1 AND seq = 4", 4, chain.EntryChanged},
		{"change a time", "UPDATE audit_seals SET occurred_at = occurred_at + interval '1 microsecond' WHERE zone_id = $1 AND seq = 4", 4, chain.EntryChanged},
		{"change a signature", "UPDATE audit_seals SET mac = sha256('x') WHERE zone_id = $1 AND seq = 4", 4, chain.SignatureInvalid},
		{"delete a signature", "UPDATE audit_seals SET mac = NULL WHERE zone_id = $1 AND seq = 4", 4, chain.SignatureMissing},
	}
	for column, value := range map[string]string{
		"request_id": "request_id || 'x'", "actor_id": "'x'", "actor_name": "''", "actor_scope": "'zone'", "operation": "'x'", "action": "'x'", "method": "method || 'x'", "path": "path || '/'",
		"entity_type": "NULL", "entity_id": "NULL", "status_code": "status_code + 1", "payload": "payload || ' '", "occurred_at": "occurred_at - interval '1 microsecond'",
	} {
		attacks = append(attacks, attack{"change " + column, "UPDATE audit_entries SET " + column + " = " + value + " WHERE " + entry, 4, chain.EntryChanged})
	}
	for _, column := range []string{"zone_id", "id"} {
		attacks = append(attacks, attack{"change " + column, "UPDATE audit_entries SET " + column + " = 'x' WHERE " + entry, 4, chain.EntryMissing})
	}
	for _, column := range columns(storetest.New(t), "audit_entries") {
		if !slices.ContainsFunc(attacks, func(a attack) bool { return a.name == "change "+column }) {
			t.Errorf("there is no attack on %s", column)
		}
	}
	for _, tt := range attacks {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := storetest.New(t)
			s := d.Store()
			zone, other := sealedZone(t, s, seals, auditKey), sealedZone(t, s, seals, auditKey)
			d.Exec("ALTER TABLE audit_seals DROP CONSTRAINT audit_seals_by_entry")
			d.Exec("ALTER TABLE audit_seals DROP CONSTRAINT audit_seals_pkey")
			exec(d, tt.sql, zone, other)
			v := verify(t, s, zone, auditKey, wholeChain, nil)
			if tt.reason == "" {
				if v.Fault != nil || !v.Complete || !v.Signed || v.Checked != seals || v.Last != seals || v.Head.Seq != seals {
					t.Errorf("got %+v, want no fault", v)
				}
				return
			}
			if v.Fault == nil || v.Fault.Seq != tt.seq || v.Fault.Reason != tt.reason {
				t.Errorf("got %+v, want %s at %d", v.Fault, tt.reason, tt.seq)
			}
		})
	}
}

// exec executes a statement that uses one or two of the arguments.
func exec(d *storetest.DB, sql string, one, two string) {
	if strings.Contains(sql, "$2") {
		d.Exec(sql, one, two)
	} else {
		d.Exec(sql, one)
	}
}

// Who has the database, but not the key, can compute other hashes. The signatures show
// it, also if they are made with another key or left out.
func TestVerifyAuditFindsOtherKey(t *testing.T) {
	t.Parallel()
	other := []byte("another key with 32 bytes or more")
	for _, tt := range []struct {
		name            string
		sealedWith, key []byte
		fault           chain.Reason
		signed          bool
	}{
		{"same key", auditKey, auditKey, "", true},
		{"another key", other, auditKey, chain.SignatureInvalid, false},
		{"no key to seal", nil, auditKey, chain.SignatureMissing, false},
		{"no key to verify", auditKey, nil, "", true},
		{"no key at all", nil, nil, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := storetest.New(t).Store()
			v := verify(t, s, sealedZone(t, s, 3, tt.sealedWith), tt.key, wholeChain, nil)
			if got := v.Fault; (got == nil) != (tt.fault == "") || got != nil && got.Reason != tt.fault || got == nil && v.Signed != tt.signed {
				t.Errorf("got %+v, %+v, want %s", v, got, tt.fault)
			}
		})
	}
}

// A signature covers the seals that were made before the service had a key.
func TestVerifyAuditAcceptsKeyAddedLater(t *testing.T) {
	t.Parallel()
	s := storetest.New(t).Store()
	zone := sealedZone(t, s, 3, nil)
	if err := renameZone(t.Context(), s, zone, "signed"); err != nil {
		t.Fatal(err)
	}
	sealAll(t, s)
	if v := verify(t, s, zone, auditKey, wholeChain, nil); v.Fault != nil || !v.Signed || v.Checked != 4 {
		t.Errorf("got %+v, %+v", v, v.Fault)
	}
	if v := verify(t, s, zone, auditKey, store.SealRange{From: 1, To: 2}, nil); v.Fault != nil || v.Signed || v.Checked != 2 {
		t.Errorf("got %+v, %+v for the part without signatures", v, v.Fault)
	}
}

// Only a head that was kept elsewhere shows that the end of the log was deleted together
// with everything that refers to it, even by somebody who has an old backup of the head.
func TestVerifyAuditFindsRollbackWithEarlierHead(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store()
	zone := sealedZone(t, s, 5, auditKey)
	old := verify(t, s, zone, auditKey, wholeChain, nil).Head
	backup := storetest.Value[string](d, "SELECT to_jsonb(h)::text FROM audit_seal_heads AS h")
	for _, name := range []string{"a", "b"} {
		if err := renameZone(t.Context(), s, zone, name); err != nil {
			t.Fatal(err)
		}
	}
	sealAll(t, s)
	kept := verify(t, s, zone, auditKey, wholeChain, &old.Head).Head
	if v := verify(t, s, zone, auditKey, wholeChain, &kept.Head); v.Fault != nil || kept.Seq != 7 {
		t.Fatalf("before: %+v", v.Fault)
	}
	d.Exec("DELETE FROM audit_entries WHERE id IN (SELECT entry_id FROM audit_seals WHERE seq > 5)")
	d.Exec("DELETE FROM audit_seals WHERE seq > 5")
	d.Exec("DELETE FROM audit_seal_heads")
	d.Exec("INSERT INTO audit_seal_heads SELECT * FROM jsonb_populate_record(NULL::audit_seal_heads, $1::jsonb)", backup)
	if v := verify(t, s, zone, auditKey, wholeChain, nil); v.Fault != nil {
		t.Errorf("without a head: %+v", v.Fault)
	}
	if v := verify(t, s, zone, auditKey, wholeChain, &old.Head); v.Fault != nil {
		t.Errorf("with the old head: %+v", v.Fault)
	}
	if v := verify(t, s, zone, auditKey, wholeChain, &kept.Head); v.Fault == nil || *v.Fault != (chain.Fault{Seq: 7, Reason: chain.EarlierHeadMismatch}) {
		t.Errorf("with the head that was kept: %+v", v.Fault)
	}
	// Even if the log has grown again.
	for _, name := range []string{"c", "d", "e"} {
		if err := renameZone(t.Context(), s, zone, name); err != nil {
			t.Fatal(err)
		}
	}
	sealAll(t, s)
	if v := verify(t, s, zone, auditKey, wholeChain, &kept.Head); v.Fault == nil || v.Fault.Reason != chain.EarlierHeadMismatch || v.Fault.Seq != 7 || v.Last != 8 {
		t.Errorf("after the log has grown again: %+v", v.Fault)
	}
}

func TestVerifyAuditRanges(t *testing.T) {
	t.Parallel()
	s := storetest.New(t).Store()
	zone := sealedZone(t, s, 8, auditKey)
	for _, tt := range []struct {
		zone     string
		from, to int64
		checked  int64
		fault    chain.Fault
	}{
		{zone, 1, 3, 3, chain.Fault{}},
		{zone, 3, 3, 1, chain.Fault{}},
		{zone, 3, 0, 6, chain.Fault{}},
		{zone, 8, 8, 1, chain.Fault{}},
		{zone, 9, 0, 0, chain.Fault{}},
		{zone, 5, 9, 4, chain.Fault{Seq: 9, Reason: chain.SealMissing}},
		{zone, 10, 0, 0, chain.Fault{Seq: 9, Reason: chain.SealMissing}},
		{"unknown", 1, 0, 0, chain.Fault{}},
		{"unknown", 1, 1, 0, chain.Fault{Seq: 1, Reason: chain.SealMissing}},
		{store.NoZone, 1, 0, 0, chain.Fault{}},
	} {
		v := verify(t, s, tt.zone, auditKey, store.SealRange{From: tt.from, To: tt.to}, nil)
		if v.Fault == nil {
			v.Fault = &chain.Fault{}
		}
		if v.Checked != tt.checked || *v.Fault != tt.fault || !v.Complete && *v.Fault == (chain.Fault{}) || v.Last != tt.from-1+tt.checked {
			t.Errorf("%s %d-%d: got %+v, %+v, want %d checked and %+v", tt.zone, tt.from, tt.to, v, v.Fault, tt.checked, tt.fault)
		}
	}
}

// A verification whose time is over continues where it stopped.
func TestVerifyAuditContinues(t *testing.T) {
	t.Parallel()
	const seals = 2500
	d := storetest.New(t)
	s := d.Store()
	zone := newZone(t, s).ID
	d.Exec(`WITH e AS (INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload)
		SELECT $1, 'e-' || n, 'r', 'a', 'o', 'a', 'm', 'p', 200, '{}' FROM generate_series(2, $2) AS n RETURNING zone_id, id) INSERT INTO audit_unsealed (zone_id, entry_id) SELECT zone_id, id FROM e`, zone, seals)
	sealAll(t, s)
	requests, next, checked := 0, int64(1), int64(0)
	for {
		v, err := s.For(store.System).VerifyAudit(t.Context(), zone, auditKey, store.SealRange{From: next}, nil, 0)
		if err != nil || v.Fault != nil {
			t.Fatal(err, v.Fault)
		}
		requests++
		checked += v.Checked
		if v.Complete {
			break
		}
		next = v.Last + 1
	}
	if requests != 3 || checked != seals {
		t.Errorf("checked %d seals in %d requests", checked, requests)
	}
}
