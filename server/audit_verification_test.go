package server_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestVerifyAuditEntries(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for n := range 4 {
		resp, err := a.Admin.UpdateZoneWithResponse(t.Context(), zone, nil, client.ZonePatch{Name: new("name " + strconv.Itoa(n))})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, "")
	}
	a.ClientFor("", "read") // an entry without a zone
	waitUntilSealed(t, a)
	for _, path := range []string{"/v1/zones/" + zone + "/admin-audit", "/v1/admin-audit"} {
		get := func(query string) client.AuditVerification {
			raw := a.Do("GET", path+"/verify?"+query, "", bearer(servertest.Bootstrap)...)
			servertest.Expect(t, raw, http.StatusOK, "")
			return decode[client.AuditVerification](t, raw)
		}
		raw := a.Do("GET", path+"/head", "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		head := decode[client.AuditHead](t, raw)
		last, err := strconv.Atoi(head.Seq)
		if err != nil || last == 0 || head.Mac == nil || head.SealedAt == nil {
			t.Fatalf("the head is %+v", head)
		}
		all := get("")
		if !all.Valid || !all.Complete || !all.Signed || !all.SignaturesChecked || all.EntriesChecked != int64(last) || all.FromSeq != "1" || all.ToSeq != head.Seq || all.Head.Hash != head.Hash || all.Fault != nil {
			t.Errorf("%s: got %+v, want the head %+v", path, all, head)
		}
		if part := get("from_seq=1&to_seq=1"); !part.Valid || part.EntriesChecked != 1 || part.ToSeq != "1" {
			t.Errorf("%s: got %+v", path, part)
		}
		if kept := get("head_seq=" + head.Seq + "&head_hash=" + head.Hash); !kept.Valid {
			t.Errorf("%s: got %+v", path, kept)
		}
		if forged := get("head_seq=" + head.Seq + "&head_hash=" + strings.Repeat("0", 64)); forged.Valid || forged.Fault.Reason != client.AuditFaultReasonEarlierHeadMismatch || *forged.Fault.Seq != head.Seq || forged.Fault.ID == nil {
			t.Errorf("%s: got %+v", path, forged)
		}
		for _, query := range []string{"from_seq=0", "from_seq=x", "from_seq=9223372036854775808", "to_seq=0", "from_seq=3&to_seq=2", "head_seq=1", "head_hash=" + head.Hash, "head_seq=0&head_hash=" + head.Hash, "head_seq=1&head_hash=00", "head_seq=1&head_hash=" + strings.ToUpper(head.Hash) + "g"} {
			servertest.Expect(t, a.Do("GET", path+"/verify?"+query, "", bearer(servertest.Bootstrap)...), 0, code.InvalidQuery)
		}
		if after := get("from_seq=9223372036854775807"); after.Valid || after.Fault.Reason != client.AuditFaultReasonSealMissing || after.Fault.ID != nil {
			t.Errorf("%s: got %+v", path, after)
		}
	}
	a.DB.Exec("UPDATE audit_entries SET actor_name = 'somebody else' WHERE zone_id = $1 AND id = (SELECT entry_id FROM audit_seals WHERE zone_id = $1 AND seq = 3)", zone)
	tampered := storetest.Value[string](a.DB, "SELECT id FROM audit_entries WHERE actor_name = 'somebody else'")
	resp, err := a.ClientFor(zone, "read").VerifyAuditEntriesWithResponse(t.Context(), zone, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if got := resp.JSON200; got.Valid || got.Fault.Reason != client.AuditFaultReasonEntryChanged || *got.Fault.Seq != "3" || *got.Fault.ID != tampered || got.EntriesChecked != 2 {
		t.Errorf("got %+v, want entry_changed at 3", got)
	}
	unknown := decode[client.AuditVerification](t, a.Do("GET", "/v1/zones/unknown/admin-audit/verify", "", bearer(servertest.Bootstrap)...))
	if !unknown.Valid || unknown.EntriesChecked != 0 || unknown.Head.Seq != "0" || unknown.Head.SealedAt != nil || unknown.Head.Mac != nil || unknown.Head.Hash != strings.Repeat("0", 64) {
		t.Errorf("got %+v", unknown)
	}
}

// A service without a key seals and verifies without signatures, and says so.
func TestVerifyAuditEntriesWithoutKey(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "AUDIT_HMAC_KEY=")
	zone := a.Zone().ID
	waitUntilSealed(t, a)
	resp, err := a.Admin.VerifyAuditEntriesWithResponse(t.Context(), zone, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if got := resp.JSON200; !got.Valid || got.Signed || got.SignaturesChecked || got.EntriesChecked != 1 || got.Head.Mac != nil {
		t.Errorf("got %+v", got)
	}
}
