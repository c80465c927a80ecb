package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/servertest"
)

// The canary tests send secrets that are easy to recognize, call every operation in
// every way, and then search for the secrets in everything that left the process
// and in everything that was stored.

// stem is part of every secret of these tests. It has no character that an encoding
// escapes, so the same search finds it in JSON, in URLs and in text.
const stem = "kNry7Q2vXw9Lr4"

// newSecret returns a secret that is different for each n.
func newSecret(n int) string { return fmt.Sprintf("x%03d-%s-z", n, stem) }

// asKey returns 32 bytes that contain the stem, in hexadecimal.
func asKey(first byte) string {
	key := bytes.Repeat([]byte{first}, 32)
	copy(key[9:], stem)
	return hex.EncodeToString(key)
}

// forms returns a secret in the forms that printing or encoding may give it.
func forms(secret []byte) map[string]string {
	list := func(format, separator string) string {
		var all []string
		for _, b := range secret {
			all = append(all, fmt.Sprintf(format, b))
		}
		return strings.Join(all, separator)
	}
	all := map[string]string{
		"as it is": string(secret), "in lower case": strings.ToLower(string(secret)), "in upper case": strings.ToUpper(string(secret)), "in hex": list("%02x", ""), "in upper hex": list("%02X", ""), "in escapes": list(`\x%02x`, ""),
		"percent-encoded": list("%%%02X", ""), "as a list": list("%d", " "), "as a JSON list": list("%d", ","), "as a Go list": list("0x%x", ", "), "as octal escapes": list(`\%03o`, ""),
	}
	// The base64 form depends on the number of bytes before the secret, modulo 3. Only
	// the characters that depend on no other bytes are searched.
	for before := range 3 {
		padded := append(make([]byte, before), secret...)
		from, to := (before*8+5)/6, len(padded)*8/6
		all[fmt.Sprintf("in base64 (%d)", before)] = base64.RawStdEncoding.EncodeToString(padded)[from:to]
		all[fmt.Sprintf("in URL base64 (%d)", before)] = base64.RawURLEncoding.EncodeToString(padded)[from:to]
	}
	return all
}

// A place is a text to search.
type place struct{ name, text string }

// find returns where secrets were found, and in which form.
func find(secrets map[string][]byte, places []place) (found []string) {
	for name, secret := range secrets {
		for form, text := range forms(secret) {
			for _, p := range places {
				if i := strings.Index(p.text, text); i >= 0 {
					found = append(found, fmt.Sprintf("%s, %s, is in %s: …%q…", name, form, p.name, p.text[max(0, i-300):min(len(p.text), i+200)]))
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

// The search finds a marker in every place and in every form. Without this test, a
// search that finds nothing would prove nothing.
func TestCanarySearchFindsEverySecret(t *testing.T) { // not parallel: see captureProcess
	w := watch(t, captureProcess(t))
	const marker = "mArKer5tZ8"
	w.DB.Exec("INSERT INTO sessions (zone_id, id, session_type, subject_id, expires_at) VALUES ($1, $2, 'application', $3, now() + interval '1 hour')", w.zone.ID, marker, w.ids["applications"])
	raw := w.send("DELETE", "/v1/zones/"+w.zone.ID+"/applications/"+w.ids["applications"], "", append(bearer(w.admin), "X-Request-Id", marker)...)
	servertest.Expect(t, raw, http.StatusNoContent, "")
	w.send("GET", "/v1/nothing", "", append(bearer(w.admin), "X-Request-Id", marker)...)
	eventually(t, "the event is published", func() bool { return w.Redis.Exists(t.Context(), "caracal.sessions.revoke").Val() > 0 })
	w.DB.Exec("UPDATE outbox SET last_error = $1", base64.StdEncoding.EncodeToString([]byte("z"+marker)))
	w.DB.Exec("UPDATE providers SET config_json = jsonb_build_object('x', $1::text)", fmt.Sprint([]byte(marker)))
	w.DB.Exec("UPDATE data_keys SET wrapped = $1", []byte(marker))
	w.DB.Exec("UPDATE zones SET name = $1", fmt.Sprintf("%#v", []byte(marker)))
	w.Redis.Set(t.Context(), "marked", fmt.Sprintf("%X", marker), 0)
	w.Redis.HSet(t.Context(), "marked:hash", "x", base64.URLEncoding.EncodeToString([]byte("zz"+marker)))
	log.Print(marker)
	found := strings.Join(find(map[string][]byte{"the marker": []byte(marker), "a metric": []byte("caracal_api_requests_total")}, w.everywhere()), "\n")
	for _, want := range []string{
		"as it is, is in the log", "as it is, is in a response", "as it is, is in what was sent to Postgres", "as it is, is in what was sent to Redis", "as it is, is in the traces",
		"as it is, is in what was printed", "as it is, is in the caracal.sessions.revoke of Redis", "in upper hex, is in the marked of Redis", "in URL base64 (2), is in the marked:hash of Redis",
		"as it is, is in the table audit_entries", "as it is, is in the table outbox", "in base64 (1), is in the table outbox", "as a list, is in the table providers",
		"in hex, is in the table data_keys", "as a Go list, is in the table zones", "a metric, as it is, is in the metrics",
	} {
		if !strings.Contains(found, want) {
			t.Errorf("the search did not find that the secret, %s", want)
		}
	}
	if strings.Contains(found, "is in what was sent to the token endpoint") {
		t.Error("the search found a secret that is not there")
	}
}
