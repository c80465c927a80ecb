package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/store/ingest"
	"caracal.run/management/store/redisconn"
	"caracal.run/management/store/storetest"
)

// exportEvents starts a service with a key, publishes events of two zones, and returns an
// export of each in the order of the chain, and the response with the head of the first.
// One event of the second zone has a redacted value.
func exportEvents(t *testing.T, key string) (lines, other []string, head string) {
	t.Helper()
	db, redis := storetest.New(t), storetest.RedisURL(t)
	settings := settingsOf(db, redis)
	if key != "" {
		settings = append(settings, "AUDIT_HMAC_KEY="+key)
	}
	replica := startReplica(t, func(string, string) {}, settings)
	publisher, err := redisconn.Open(redis, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	var secret []byte
	if key != "" {
		if secret, err = hex.DecodeString(key); err != nil {
			t.Fatal(err)
		}
	}
	const count = 8
	for zone := range 2 {
		for n := range count {
			metadata := map[string]any{"application_id": "application-1", "resource": "resource://<bank>", "latency_ms": 1.5, "n": n}
			if zone == 1 && n == 3 {
				metadata["access_token"] = "secret"
			}
			err := ingest.Publish(t.Context(), publisher, secret, ingest.Event{
				ID: fmt.Sprintf("event-%d-%d", zone, n), ZoneID: fmt.Sprint("zone-", zone), EventType: "token_exchange", RequestID: fmt.Sprint("request-", n/2), Decision: "deny",
				PolicySetID: "set-1", PolicySetVersionID: "version-1", ManifestSHA: "aa11", EvaluationStatus: "complete", DeterminingPolicies: []any{map[string]any{"policy": "p", "rule": "r"}},
				Diagnostics: []any{"no rule"}, Metadata: metadata, OccurredAt: time.Now().Add(-time.Duration(n*n%7) * time.Second), // not in the order of the chain
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for storetest.Value[int](db, "SELECT count(*) FROM audit_events") < 2*count {
		if t.Context().Err() != nil {
			t.Fatal(t.Context().Err())
		}
	}
	export := func(zone string) []string {
		exported, err := replica.client.ListAuditEvents(t.Context(), zone, &rawclient.ListAuditEventsParams{Format: new(client.ListFormatNDJSON)})
		if err != nil {
			t.Fatal(err)
		}
		defer exported.Body.Close()
		text, err := io.ReadAll(exported.Body)
		if err != nil {
			t.Fatal(err)
		}
		lines := make([]string, count)
		for line := range strings.Lines(string(text)) {
			var seq int
			if _, err := fmt.Sscanf(line[strings.Index(line, `"chain_seq"`):], `"chain_seq":"%d"`, &seq); err != nil {
				t.Fatal(err, line)
			}
			lines[seq-1] = line
		}
		return lines
	}
	kept, err := replica.client.GetAuditEventHeadWithResponse(t.Context(), "zone-0")
	if err != nil {
		t.Fatal(err)
	}
	return export("zone-0"), export("zone-1"), string(kept.Body)
}

// TestAuditVerifyOfEvents changes an export of audit events in every way, and verifies it
// with the key alone.
func TestAuditVerifyOfEvents(t *testing.T) {
	t.Parallel()
	lines, other, head := exportEvents(t, streamKey)
	otherLines, _, otherHead := exportEvents(t, oldKEK)
	unsigned, _, _ := exportEvents(t, "")
	whole := strings.Join(lines, "")
	replaced := func(line, old, replacement string) string {
		changed := strings.Replace(line, old, replacement, 1)
		if changed == line {
			t.Fatalf("%q is not in %s", old, line)
		}
		return changed
	}
	with := func(n int, line string) string {
		return strings.Join(lines[:n], "") + line + strings.Join(lines[n+1:], "")
	}
	edit := func(n int, old, replacement string) string { return with(n, replaced(lines[n], old, replacement)) }
	without := func(n int) string { return with(n, "") }
	// value returns the text of a field that is a string.
	value := func(line, field string) string {
		_, rest, _ := strings.Cut(line, `"`+field+`":"`)
		text, _, _ := strings.Cut(rest, `"`)
		return text
	}
	ns := value(lines[3], "occurred_at_ns")
	otherNS := ns[:len(ns)-4] + "9000" // the last three digits are zeros, and the milliseconds must not change
	if otherNS == ns {
		otherNS = ns[:len(ns)-4] + "8000"
	}
	dir := t.TempDir()
	headFile, otherHeadFile := filepath.Join(dir, "head.json"), filepath.Join(dir, "other.json")
	for name, text := range map[string]string{headFile: head, otherHeadFile: otherHead} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	swapped := slices.Clone(lines)
	swapped[2], swapped[5] = replaced(lines[2], `"chain_seq":"3"`, `"chain_seq":"6"`), replaced(lines[5], `"chain_seq":"6"`, `"chain_seq":"3"`)
	toOther := strings.NewReplacer("zone-0", "zone-1", "zone-1", "zone-0")
	const changed, otherText = "the content has the hash", "not as the service writes it"
	for _, tt := range []struct {
		name, text string
		flags      []string
		key        string
		want       string // part of the error; "": intact
	}{
		{"intact", whole, nil, streamKey, ""},
		{"moved lines", lines[5] + without(5), nil, streamKey, ""},
		{"with its head", whole, []string{"--head", headFile}, streamKey, ""},
		{"without a key", whole, nil, "", ""},
		{"not signed", strings.Join(unsigned, ""), nil, "", ""},
		{"filtered", without(0)[len(lines[1]):], []string{"--filtered"}, streamKey, ""},
		{"filtered in the middle", without(3), []string{"--filtered"}, streamKey, ""},
		{"zones together", whole + strings.Join(other, ""), []string{"--redacted"}, streamKey, ""},

		{"redacted value", strings.Join(other, ""), nil, streamKey, "line 4: event event-1-3, chain_seq 4: values are redacted"},
		{"value that pretends to be redacted", edit(3, `"metadata_json":{`, `"metadata_json":{"token":"[redacted]",`), nil, streamKey, "line 4: "},
		{"hash of a redacted event", strings.Join(other[:3], "") + replaced(other[3], value(other[3], "content_sha256"), value(other[2], "content_sha256")) + strings.Join(other[4:], ""), []string{"--redacted"}, streamKey, "the signature is not that of the key"},

		{"metadata", edit(3, `<bank>`, `<safe>`), nil, streamKey, "line 4: event event-0-3, chain_seq 4: " + changed},
		{"number in the metadata", edit(3, `"latency_ms":1.5`, `"latency_ms":1.50`), nil, streamKey, changed},
		{"policies", edit(3, `"rule":"r"`, `"rule":"x"`), nil, streamKey, changed},
		{"no policies", edit(3, `[{"rule":"r","policy":"p"}]`, `null`), nil, streamKey, changed},
		{"diagnostics", edit(3, `["no rule"]`, `[]`), nil, streamKey, changed},
		{"decision", edit(3, `"decision":"deny"`, `"decision":"allow"`), nil, streamKey, changed},
		{"type", edit(3, `"event_type":"token_exchange"`, `"event_type":null`), nil, streamKey, changed},
		{"request", edit(3, `"request_id":"request-1"`, `"request_id":"request-9"`), nil, streamKey, changed},
		{"status", edit(3, `"evaluation_status":"complete"`, `"evaluation_status":"anomaly"`), nil, streamKey, changed},
		{"policy set", edit(3, `"policy_set_id":"set-1"`, `"policy_set_id":null`), nil, streamKey, changed},
		{"policy set version", edit(3, `"policy_set_version_id":"version-1"`, `"policy_set_version_id":"version-2"`), nil, streamKey, changed},
		{"manifest", edit(3, `"manifest_sha":"aa11"`, `"manifest_sha":"aa12"`), nil, streamKey, changed},
		{"id", edit(3, `"id":"event-0-3"`, `"id":"event-0-9"`), nil, streamKey, changed},
		{"zone", edit(3, `"zone_id":"zone-0"`, `"zone_id":"zone-1"`), nil, streamKey, changed},
		{"zones swapped", toOther.Replace(whole), nil, streamKey, "line 1: "},
		{"time in nanoseconds", edit(3, ns, otherNS), nil, streamKey, changed},
		{"time", edit(3, `"occurred_at":"2`, `"occurred_at":"3`), nil, streamKey, otherText},
		{"hash", edit(3, value(lines[3], "content_sha256"), value(lines[4], "content_sha256")), nil, streamKey, changed},
		{"previous hash", edit(3, `"prev_content_sha256":"`+value(lines[3], "prev_content_sha256"), `"prev_content_sha256":"`+value(lines[2], "prev_content_sha256")), nil, streamKey, "the signature is not that of the key"},
		{"previous hash without a key", edit(3, `"prev_content_sha256":"`+value(lines[3], "prev_content_sha256"), `"prev_content_sha256":"`+value(lines[2], "prev_content_sha256")), nil, "", "line 4: chain_seq 4: the previous hash is"},
		{"signature", edit(3, value(lines[3], "chain_hmac"), value(lines[4], "chain_hmac")), nil, streamKey, "the signature is not that of the key"},
		{"no signature", edit(3, `"`+value(lines[3], "chain_hmac")+`"`, "null"), nil, streamKey, "line 4: chain_seq 4: events before this one have a signature"},
		{"number", edit(3, `"chain_seq":"4"`, `"chain_seq":"9"`), nil, streamKey, "line 5: chain_seq is 5, and no line has 4"},
		{"numbers swapped", strings.Join(swapped, ""), nil, streamKey, "line 6: chain_seq 3: the previous hash is"},
		{"another field", edit(3, `{"id"`, `{"note":"x","id"`), nil, streamKey, otherText},
		{"a field twice", edit(3, `{"id"`, `{"decision":"allow","id"`), nil, streamKey, otherText},
		{"order of the metadata", edit(3, `{"n":3,`, `{`), nil, streamKey, changed},
		{"reformatted", edit(3, `{"id"`, `{ "id"`), nil, streamKey, otherText},
		{"truncated", whole[:len(whole)-10], nil, streamKey, "line 8: not an audit event"},
		{"not JSON", whole + "x\n", nil, streamKey, "line 9: not an audit event"},
		{"first line deleted", without(0), nil, streamKey, "line 1: chain_seq is 2, and no line has 1"},
		{"line deleted", without(3), nil, streamKey, "line 4: chain_seq is 5, and no line has 4"},
		{"last line deleted", without(7), []string{"--head", headFile}, streamKey, "the export does not contain the head, chain_seq 8"},
		{"line repeated", whole + lines[3], nil, streamKey, "line 9: chain_seq 4: another line has the same chain_seq"},
		{"line repeated in a filtered export", whole + lines[3], []string{"--filtered"}, streamKey, "another line has the same chain_seq"},
		{"line of another chain inserted", with(3, otherLines[3]), nil, streamKey, "the signature is not that of the key"},
		{"line of another chain inserted, without a key", with(3, otherLines[3]), nil, "", "line 4: chain_seq 4: the previous hash is"},
		{"another key", whole, nil, oldKEK, "line 1: event event-0-0, chain_seq 1: the signature is not that of the key"},
		{"no signatures", strings.Join(unsigned, ""), nil, streamKey, "line 8: chain_seq 8: the signature is missing"},
		{"another log with the head", strings.Join(otherLines, ""), []string{"--head", headFile}, "", "chain_seq 8 is not the head"},
		{"head of another key", whole, []string{"--head", otherHeadFile}, streamKey, "the signature of the head is not by this key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "audit.ndjson")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			stdout, stderr, exitCode := result(t, append(append([]string{"audit", "verify"}, tt.flags...), file), []string{"AUDIT_HMAC_KEY=" + tt.key})
			if tt.want == "" {
				if exitCode != 0 || !strings.Contains(stdout, "events are intact") || stderr != "" || (tt.key == "") != strings.Contains(stdout, "Not verified: the signatures") ||
					slices.Contains(tt.flags, "--redacted") != strings.Contains(stdout, "1 events with redacted values, the first one on line 12,") {
					t.Errorf("exit code %d, %q, %q", exitCode, stdout, stderr)
				}
				return
			}
			if exitCode != exitFailed || !strings.Contains(stderr, tt.want) || stdout != "" {
				t.Errorf("exit code %d, %q, %q, want %q", exitCode, stdout, stderr, tt.want)
			}
		})
	}
}
