package server_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// takesName reports whether the body of an operation has a name.
func takesName(op servertest.Operation) bool {
	return takesBody(op) && bodyFields(op)["name"] != nil
}

// withName returns the operation's first request example with another name.
func withName(t *testing.T, op servertest.Operation, name string) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(body(t, op)), &fields); err != nil {
		t.Fatal(err)
	}
	fields["name"] = name
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestEveryNameMustBeVisibleAndWithoutControls(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	eachOperation(t, takesName, func(t *testing.T, op servertest.Operation) {
		for name, want := range map[string]string{
			"\u200b":                  "must contain a visible character; U+200B at position 1 is invisible",
			" \u3164\u200d\u2800":     "must contain a visible character; U+0020 at position 1 is invisible",
			"\u202e":                  "must not contain bidirectional controls, such as U+202E at position 1",
			"  Prod\u2066uction":      "must not contain bidirectional controls, such as U+2066 at position 7",
			"Pr\u0007od":              "must not contain control characters, such as U+0007 at position 3",
			"P\u00e9\ttab":            "must not contain control characters, such as U+0009 at position 3",
			"two\nlines":              "must not contain control characters, such as U+000A at position 4",
			"two\u2028lines":          "must not contain control characters, such as U+2028 at position 4",
			"\u007f":                  "must not contain control characters, such as U+007F at position 1",
			strings.Repeat("é", 1001): "must be at most ", // of the schema
		} {
			raw := w.Do(op.Method, w.path(op, "x"), withName(t, op, name), append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
			problem := decode[rawclient.Problem](t, raw)
			if code.Table[code.Code(problem.Error)].In != "body" || problem.Details == nil || len(problem.Details.Issues) != 1 ||
				!slices.Equal(problem.Details.Issues[0].Path, []string{"name"}) || !strings.HasPrefix(problem.Details.Issues[0].Message, want) {
				t.Errorf("%q: got %s, want %q", name, raw.Body, want)
			}
		}
	})
}

// Clients may send names with blanks around them.
func TestEveryNameIsTrimmedAndComposed(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	ids := populate(t, w.API, w.zone.ID, "ours")
	known := strings.NewReplacer("0198c0de-0000-7000-8000-00000000000b", ids["applications"], "0198c0de-0000-7000-8000-00000000000c", ids["providers"])
	send := func(op servertest.Operation, body string) servertest.RawResponse {
		return w.Do(op.Method, pathTo(op, w.zone.ID, ids), known.Replace(body), append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
	}
	servertest.Expect(t, w.Do("PATCH", "/v1/zones/"+w.zone.ID, `{"dcr_enabled":true}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...), http.StatusOK, "")
	eachOperation(t, takesName, func(t *testing.T, op servertest.Operation) {
		raw := send(op, withName(t, op, "\u00a0 Cafe\u0301 \u05d0\u200f\U0001f468\u200d\U0001f469 \ufeff\n"))
		const want = "Café \u05d0\u200f\U0001f468\u200d\U0001f469" // marks and joiners inside have a meaning
		if got := decode[struct{ Name string }](t, raw).Name; raw.Response.StatusCode >= 300 || got != want {
			t.Errorf("got %d %q, want %q: %s", raw.Response.StatusCode, got, want, raw.Body)
		}
	})
}

// A name that looks like a reserved one is reserved.
func TestReservedNameCannotBeDisguised(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	ids := populate(t, w.API, w.zone.ID, "ours")
	token := w.Token("", "write").Token
	reserved := func(op servertest.Operation) bool {
		return takesName(op) && slices.Contains(op.Codes("409"), string(code.ReservedNamespace)) && !slices.Contains(strings.Split(op.Path, "/"), "providers") && !slices.Contains(strings.Split(op.Path, "/"), "resources")
	}
	eachOperation(t, reserved, func(t *testing.T, op servertest.Operation) {
		for _, name := range []string{
			"caracal.sys/x", " Caracal.SYS/x", "\u200bcaracal.sys/x", "cara\u00adcal.sys/x", "caracal\u2060.sys\ufe0f/x", "\u200b \u200bcaracal.sys/", "ｃａｒａｃａｌ.sys/x", "caracal．sys／x", "caracal\U000e0020.sys/x",
		} {
			raw := w.Do(op.Method, pathTo(op, w.zone.ID, ids), withName(t, op, name), append(bearer(token), "Content-Type", jsonType)...)
			if decode[rawclient.Problem](t, raw).Error != string(code.ReservedNamespace) {
				t.Errorf("%q: got %d %s", name, raw.Response.StatusCode, raw.Body)
			}
		}
	})
}

// Names that differ only in how a letter is encoded are one name.
func TestPolicyNamesAreComparedInOneNormalForm(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	for _, tt := range []struct {
		collection, rest string
		want             code.Code
	}{
		{"policies", `,"content":` + quote(t, documentOf("x")), code.PolicyNameConflict},
		{"policy-sets", "", code.PolicySetNameConflict},
	} {
		for _, name := range []string{"Caf\u00e9", "Cafe\u0301", " Caf\u00e9"} {
			raw := w.Do("POST", "/v1/zones/"+w.zone.ID+"/"+tt.collection, `{"name":"`+name+`"`+tt.rest+`}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
			if name == "Caf\u00e9" {
				servertest.Expect(t, raw, http.StatusCreated, "")
				continue
			}
			servertest.Expect(t, raw, 0, tt.want)
		}
	}
}

func quote(t *testing.T, text string) string {
	t.Helper()
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(quoted)
}

// incompressible returns a text of n characters of four bytes, which Postgres cannot
// compress to fit in an index.
func incompressible(n int) string {
	random := rand.New(rand.NewPCG(1, 2))
	text := make([]rune, n)
	for i := range text {
		text[i] = 0x20000 + random.Int32N(0xa000) // CJK Unified Ideographs Extension B
	}
	return string(text)
}

// Every name can have the longest length that the spec allows, in any script, and is
// found.
func TestEveryLongestNameIsFound(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	ids := populate(t, w.API, w.zone.ID, "ours")
	known := strings.NewReplacer("0198c0de-0000-7000-8000-00000000000b", ids["applications"], "0198c0de-0000-7000-8000-00000000000c", ids["providers"])
	servertest.Expect(t, w.Do("PATCH", "/v1/zones/"+w.zone.ID, `{"dcr_enabled":true}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...), http.StatusOK, "")
	eachOperation(t, takesName, func(t *testing.T, op servertest.Operation) {
		name := incompressible(int(*bodyFields(op)["name"].Value.MaxLength))
		path := pathTo(op, w.zone.ID, ids)
		raw := w.Do(op.Method, path, known.Replace(withName(t, op, name)), append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		created := decode[struct{ ID, Name string }](t, raw)
		if raw.Response.StatusCode >= 300 || created.Name != name {
			t.Fatalf("got %d %s", raw.Response.StatusCode, raw.Body)
		}
		collection := strings.TrimSuffix(strings.TrimSuffix(path, "/"+created.ID), "/dcr")
		if found, _ := idsAt(t, w.API, collection+"?name="+url.QueryEscape(name), servertest.Bootstrap); !slices.Contains(found, created.ID) {
			t.Errorf("found %q, want %s", found, created.ID)
		}
	})
}

func TestLongestResourceIdentifierIsFound(t *testing.T) {
	t.Parallel()
	z := newResourceZone(servertest.New(t))
	identifier := "urn:" + incompressible(496)
	created := z.resource(t, func(b *client.NewResource) { b.Identifier = &identifier })
	ids, _ := idsAt(t, z.API, "/v1/zones/"+z.zone+"/resources?identifier="+url.QueryEscape(identifier), servertest.Bootstrap)
	if !slices.Equal(ids, []string{created.ID}) {
		t.Errorf("found %q, want %s", ids, created.ID)
	}
}
