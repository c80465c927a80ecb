package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/store/storetest"
)

// exportAudit starts a service, makes changes, and returns an export of the zone's audit
// entries, oldest first, and the response with its head.
func exportAudit(t *testing.T, settings ...string) (lines []string, head string) {
	t.Helper()
	db := storetest.New(t)
	replica := startReplica(t, func(string, string) {}, append(settingsOf(db, storetest.RedisURL(t)), settings...))
	zone := newZone(t, replica.client)
	for n := range 7 {
		resp, err := replica.client.UpdateZoneWithResponse(t.Context(), zone, nil, client.ZonePatch{Name: new(fmt.Sprintf("<Name> %d", n))})
		if err != nil || resp.StatusCode() != http.StatusOK {
			t.Fatal(err, resp.StatusCode())
		}
	}
	for storetest.Value[int](db, "SELECT count(*) FROM audit_unsealed") > 0 {
		if t.Context().Err() != nil {
			t.Fatal(t.Context().Err())
		}
	}
	exported, err := replica.client.ListAuditEntries(t.Context(), zone, &rawclient.ListAuditEntriesParams{Format: new(client.ListFormatNDJSON)})
	if err != nil {
		t.Fatal(err)
	}
	defer exported.Body.Close()
	text, err := io.ReadAll(exported.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		lines = append([]string{line}, lines...)
	}
	kept, err := replica.client.GetAuditHeadWithResponse(t.Context(), zone)
	if err != nil {
		t.Fatal(err)
	}
	return lines, string(kept.Body)
}

// TestAuditVerify changes an export in every way, and verifies it with the key alone.
func TestAuditVerify(t *testing.T) {
	t.Parallel()
	lines, head := exportAudit(t, "AUDIT_HMAC_KEY="+streamKey)
	otherLines, otherHead := exportAudit(t, "AUDIT_HMAC_KEY="+oldKEK)
	unsigned, _ := exportAudit(t)
	if len(lines) != 8 {
		t.Fatalf("exported %d lines", len(lines))
	}
	whole := strings.Join(lines, "")
	edit := func(n int, old, replacement string) string {
		changed := strings.Replace(lines[n], old, replacement, 1)
		if changed == lines[n] {
			t.Fatalf("%q is not in %s", old, lines[n])
		}
		return strings.Join(lines[:n], "") + changed + strings.Join(lines[n+1:], "")
	}
	without := func(n int) string { return strings.Join(lines[:n], "") + strings.Join(lines[n+1:], "") }
	seals := func(line string) string { return line[strings.Index(line, `"previous_hash"`):] }
	dir := t.TempDir()
	headFile, otherHeadFile := filepath.Join(dir, "head.json"), filepath.Join(dir, "other.json")
	for name, text := range map[string]string{headFile: head, otherHeadFile: otherHead} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const changed, otherText = "the entry or its seal was changed", "not as the service writes it"
	tests := []struct {
		name, text string
		flags      []string
		key        string
		want       string // part of the error; "": intact
	}{
		{"intact", whole, nil, streamKey, ""},
		{"as exported, newest first", reversed(lines), nil, streamKey, ""},
		{"moved lines", lines[5] + without(5), nil, streamKey, ""},
		{"with its head", whole, []string{"--head", headFile}, streamKey, ""},
		{"without a key", whole, nil, "", ""},
		{"not signed", strings.Join(unsigned, ""), nil, "", ""},
		{"nothing", "", nil, streamKey, ""},
		{"filtered", without(3), []string{"--filtered"}, streamKey, ""},
		{"zones together", whole + strings.Join(unsigned, ""), nil, "", ""},

		{"payload", edit(3, "Name", "Nome"), nil, streamKey, "line 4: entry "},
		{"actor", edit(3, `"actor_name":"bootstrap"`, `"actor_name":"somebody"`), nil, streamKey, changed},
		{"actor id", edit(3, `"actor_id":"`, `"actor_id":"x`), nil, streamKey, changed},
		{"actor scope", edit(3, `"actor_scope":"global"`, `"actor_scope":null`), nil, streamKey, changed},
		{"action", edit(3, `"action":"PATCH `, `"action":"POST `), nil, streamKey, changed},
		{"method", edit(3, `"method":"PATCH"`, `"method":"POST"`), nil, streamKey, changed},
		{"path", edit(3, `"path":"/v1/zones/`, `"path":"/v1/zones/x`), nil, streamKey, changed},
		{"entity type", edit(3, `"entity_type":"zones"`, `"entity_type":"grants"`), nil, streamKey, changed},
		{"entity id", edit(3, `"entity_id":"`, `"entity_id":"x`), nil, streamKey, changed},
		{"status", edit(3, `"status_code":200`, `"status_code":403`), nil, streamKey, changed},
		{"time", edit(3, `"occurred_at":"2`, `"occurred_at":"3`), nil, streamKey, changed},
		{"operation", edit(3, `"operation":"updateZone"`, `"operation":"readZone"`), nil, streamKey, changed},
		{"request", edit(3, `"request_id":"`, `"request_id":"x`), nil, streamKey, changed},
		{"id", edit(3, `"id":"`, `"id":"x`), nil, streamKey, changed},
		{"zone", edit(3, `"zone_id":"`, `"zone_id":"x`), nil, streamKey, changed},
		{"number", edit(3, `"chain_seq":"4"`, `"chain_seq":"9"`), nil, streamKey, changed},
		{"hash", edit(3, seals(lines[3]), seals(lines[4])), nil, streamKey, changed},
		{"signature", edit(3, lines[3][len(lines[3])-67:], lines[4][len(lines[4])-67:]), nil, streamKey, "the signature is not by this key"},
		{"no signature", strings.Replace(edit(3, lines[3][strings.Index(lines[3], `"mac":"`):], "\"mac\":null}\n"), `"chain_seq":"4","signed":true`, `"chain_seq":"4","signed":false`, 1), nil, streamKey, "chain_seq 4: the signature is missing"},
		{"said to be signed", edit(3, lines[3][strings.Index(lines[3], `"mac":"`):], "\"mac\":null}\n"), nil, streamKey, "signed is not true"},
		{"another field", edit(3, `{"id"`, `{"note":"x","id"`), nil, streamKey, otherText},
		{"a field twice", edit(3, `{"id"`, `{"method":"GET","id"`), nil, streamKey, otherText},
		{"reformatted", edit(3, `{"id"`, `{ "id"`), nil, streamKey, otherText},
		{"truncated", whole[:len(whole)-10], nil, streamKey, "line 8: "},
		{"not JSON", whole + "x\n", nil, streamKey, "line 9: not an audit entry"},
		{"first line deleted", without(0), nil, streamKey, "line 1: chain_seq is 2, and no line has 1"},
		{"line deleted", without(3), nil, streamKey, "line 4: chain_seq is 5, and no line has 4"},
		{"last line deleted", without(7), []string{"--head", headFile}, streamKey, "the export does not contain the head, chain_seq 8"},
		{"line repeated", whole + lines[3], nil, streamKey, "another line has the same chain_seq"},
		{"line repeated in a filtered export", whole + lines[3], []string{"--filtered"}, streamKey, "another line has the same chain_seq"},
		{"not sealed", edit(3, `"chain_seq":"4"`, `"chain_seq":null`), nil, streamKey, "is not sealed"},
		{"line of another chain", without(3) + unsigned[3], nil, streamKey, "and no line has"},
		{"another key", whole, nil, oldKEK, "line 1: entry "},
		{"another key, all signed again", strings.Join(otherLines, ""), nil, streamKey, "the signature is not by this key"},
		{"no signatures", strings.Join(unsigned, ""), nil, streamKey, "chain_seq 8: the signature is missing"},
		{"another log with the head", strings.Join(otherLines, ""), []string{"--head", headFile}, "", "does not contain the head"},
		{"head of another key", whole, []string{"--head", otherHeadFile}, streamKey, "the signature of the head is not by this key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "audit.ndjson")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			stdout, stderr, exitCode := result(t, append(append([]string{"audit", "verify"}, tt.flags...), file), []string{"AUDIT_HMAC_KEY=" + tt.key})
			if tt.want == "" {
				if exitCode != 0 || !strings.Contains(stdout, "entries are intact") || stderr != "" || (tt.key == "") != strings.Contains(stdout, "Not verified: the signatures") ||
					(tt.flags == nil) != strings.Contains(stdout, "after the last one") && tt.name != "filtered" {
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

func reversed(lines []string) string {
	var all string
	for _, line := range lines {
		all = line + all
	}
	return all
}

func TestAuditVerifyArguments(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		env  string
		code int
		want string
	}{
		{nil, "", exitInvalid, "FILE is required"},
		{[]string{"a", "b"}, "", exitInvalid, `unexpected argument "b"`},
		{[]string{"-"}, "AUDIT_HMAC_KEY=short", exitInvalid, "AUDIT_HMAC_KEY"},
		{[]string{"/does/not/exist"}, "", exitFailed, "no such file"},
		{[]string{"--head", "/does/not/exist", "-"}, "", exitFailed, "no such file"},
		{[]string{"-"}, "", 0, ""},
	} {
		_, stderr, exitCode := result(t, append([]string{"audit", "verify"}, tt.args...), []string{tt.env})
		if exitCode != tt.code || !strings.Contains(stderr, tt.want) {
			t.Errorf("%v: exit code %d, %q, want %d, %q", tt.args, exitCode, stderr, tt.code, tt.want)
		}
	}
}
