package auditchain_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"caracal.run/management/store/auditchain"
	"caracal.run/management/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// The values are those of the format that all producers and verifiers share.
func TestContentHashAndChainMACOfWorkedExample(t *testing.T) {
	t.Parallel()
	key, _ := hex.DecodeString("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	previous := ""
	for _, tt := range []struct {
		event            auditchain.Event
		content, wantMAC string
	}{
		{auditchain.Event{
			ID: "0198c0de-0000-7000-8000-0000000000a1", ZoneID: "zone-1", EventType: "token_exchange", RequestID: "req-1", Decision: "allow",
			PolicySetVersionID: "psv-3", ManifestSHA: "aa11", EvaluationStatus: "complete", DeterminingPolicies: `[{"policy": "caracal-payments-mint"}]`, Diagnostics: "[]",
			Metadata: `{"resource": "resource://bank", "application_id": "app-pay-01"}`, OccurredAt: time.Date(2026, 7, 1, 12, 0, 0, 123456000, time.UTC),
		}, "d6521fd40e0b32f186e859d8a185813f98cb948e73f9b2f52d82472b14c218fe", "559283856d929badf8c8b2a55da7bcd952433c503a51bed20958bdfcbcbde67e"},
		{auditchain.Event{
			ID: "0198c0de-0000-7000-8000-0000000000a2", ZoneID: "zone-1", EventType: "token_exchange", RequestID: "req-2", Decision: "deny", EvaluationStatus: "exchange_denied",
			Metadata: `{"requested": ["resource://x"]}`, OccurredAt: time.Date(2026, 7, 1, 12, 0, 1, 0, time.UTC),
		}, "6136492b412ee1a5b061054b93d4b4c35e9db06c77e1b0781ca25ae6c430c836", "facf06d1659af7bf2702a2e6301d3a0b9605922f596239328800219c94bf6b59"},
	} {
		content := tt.event.ContentHash()
		if content != tt.content {
			t.Errorf("%s: content hash %s, want %s", tt.event.ID, content, tt.content)
		}
		if mac := auditchain.ChainMAC(key, content, previous); mac != tt.wantMAC {
			t.Errorf("%s: MAC %s, want %s", tt.event.ID, mac, tt.wantMAC)
		}
		previous = content
	}
	if mac := auditchain.ChainMAC(nil, previous, ""); mac != "" {
		t.Errorf("without a key, the MAC is %q", mac)
	}
}

// The canonical text is that of Postgres, byte by byte.
func TestCanonicalIsTextOfJSONB(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	texts := []string{
		`{}`, `[]`, `null`, `"x"`, ` [ 1 , 2 ] `, `{"bb":1,"a":2,"é":3,"ab":4,"":5}`, `{"a":1,"b":2,"a":3}`, `{"a":{"a":1},"a":[]}`,
		`0`, `-0`, `-0.0`, `0e5`, `0e-5`, `1.50`, `1e2`, `1E+2`, `1.5e1`, `1.50e1`, `12e-1`, `-12.340e-3`, `100e-2`, `1e-10`, `123456789012345678901234567890.5`, `-1e0`,
		`"\u00e9\ud83d\ude00\/\b\f\n\r\t\"\\\u001f\u007f"`, `"😀  < > &"`, `true`, `[false,null]`,
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		texts = append(texts, randomJSON(r, 0))
	}
	want := storetest.Column[string](db, "SELECT t::jsonb::text FROM unnest($1::text[]) WITH ORDINALITY AS u (t, n) ORDER BY n", texts)
	for i, text := range texts {
		v, err := auditchain.Parse([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := v.Canonical(); got != want[i] {
			t.Errorf("%s: got %s, Postgres has %s", text, got, want[i])
		}
	}
}

// randomJSON returns a random JSON text.
func randomJSON(r *rand.Rand, depth int) string {
	space := func() string { return []string{"", "", " ", "\n\t"}[r.IntN(4)] }
	kind := r.IntN(6)
	if depth > 4 {
		kind = r.IntN(4)
	}
	switch kind {
	case 0:
		return []string{"true", "false", "null"}[r.IntN(3)]
	case 1:
		return randomString(r)
	case 2, 3:
		text := fmt.Sprint(r.IntN(1000))
		if r.IntN(2) == 0 {
			text = "-" + text
		}
		if r.IntN(2) == 0 {
			text += "." + strings.Repeat("0", r.IntN(4)) + fmt.Sprint(r.IntN(1000))
		}
		if r.IntN(2) == 0 {
			text += []string{"e", "E", "e+", "e-"}[r.IntN(4)] + fmt.Sprint(r.IntN(30))
		}
		return text
	}
	var parts []string
	for range r.IntN(5) {
		element := space() + randomJSON(r, depth+1) + space()
		if kind == 4 {
			element = space() + randomString(r) + space() + ":" + element
		}
		parts = append(parts, element)
	}
	if kind == 4 {
		return "{" + strings.Join(parts, ",") + "}"
	}
	return "[" + strings.Join(parts, ",") + "]"
}

func randomString(r *rand.Rand) string {
	pieces := []string{"a", "b", "zz", "é", "😀", `\n`, `\"`, `\\`, `\/`, `\u0001`, `\u00E9`, `\ud83d\ude00`, "\u007f", " ", "'", "<"}
	text := ""
	for range r.IntN(5) {
		text += pieces[r.IntN(len(pieces))]
	}
	return `"` + text + `"`
}

// What is not JSON, and what Postgres cannot store, is rejected.
func TestParseRejects(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		``, ` `, `{`, `[`, `"`, `"\`, `"\u`, `"\u12`, `"\u12g4"`, `"\x"`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `[1,]`, `[1 2]`, `tru`, `truex`, `nul`, `01`, `-`, `1.`, `.5`, `+1`, `1e`, `1e+`, `0x1`, `NaN`, `{} {}`, `'a'`,
		"\"\n\"", "\"\x00\"", "\"\xff\"", `"\u0000"`, `"\ud800"`, `"\ud800\u0041"`, `"\udc00"`, `"\ud800x"`, "\ufeff{}", "\u00a01",
		strings.Repeat("[", 102) + strings.Repeat("]", 102), strings.Repeat("9", 1001), `1e1001`, `1e-1001`, `1e99999999999999999999`,
	} {
		if v, err := auditchain.Parse([]byte(text)); err == nil {
			t.Errorf("%q was parsed as %s", text, v.Canonical())
		}
	}
}

// FuzzCanonical looks for texts that Parse accepts and Postgres does not, or that both
// read differently.
func FuzzCanonical(f *testing.F) {
	pool, err := pgxpool.New(context.Background(), storetest.New(f).URL())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(pool.Close)
	for _, seed := range []string{`{"a":[1.50,-0e2,"\u00e9"]}`, `"\ud83d\ude00"`, `-0.0`, `1e-3`, `{"b":1,"aa":2,"b":3}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := auditchain.Parse([]byte(text))
		if err != nil {
			return
		}
		canonical := v.Canonical()
		var want string
		if err := pool.QueryRow(t.Context(), "SELECT $1::text::jsonb::text", text).Scan(&want); err != nil || canonical != want {
			t.Errorf("%q: got %s, Postgres has %s, error %v", text, canonical, want, err)
		}
		again, err := auditchain.Parse([]byte(canonical))
		if err != nil || again.Canonical() != canonical {
			t.Errorf("%q: the canonical text changes to %s, error %v", text, again.Canonical(), err)
		}
	})
}
