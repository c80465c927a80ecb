package jsonresponse_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"caracal.run/management/server/jsonresponse"
)

// Marshal encodes like encoding/json, except for HTML.
func TestMarshal(t *testing.T) {
	t.Parallel()
	for _, v := range []any{nil, "", "a<b>&c\u2028", map[string]any{"b": []int{1}, "a": "\xff\n"}, json.RawMessage(`{ "x": "\u003c<" }`)} {
		got, err := jsonresponse.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if escaped := strings.NewReplacer("<", `\u003c`, ">", `\u003e`, "&", `\u0026`).Replace(string(got)); escaped != string(want) {
			t.Errorf("%v is encoded as %s, want %s without the escapes of HTML", v, got, want)
		}
		if strings.ContainsAny(string(want), "\n") || strings.HasSuffix(string(got), "\n") {
			t.Errorf("%q ends with a line feed", got)
		}
	}
	if got, err := jsonresponse.Marshal("<&>"); string(got) != `"<&>"` || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestAppendStringEqualsEncodingJSON(t *testing.T) {
	t.Parallel()
	check := func(s string) {
		t.Helper()
		want, err := jsonresponse.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := jsonresponse.AppendString([]byte("x"), s); string(got) != "x"+string(want) {
			t.Errorf("%q is encoded as %s, want %s", s, got[1:], want)
		}
	}
	check("")
	for r := range rune(0x2100) { // among them ASCII, U+2028 and U+2029
		check(string(r))
		check("a" + string(r) + "b")
	}
	for c := range 256 { // most are not valid UTF-8
		for d := range 256 {
			check(string([]byte{byte(c), byte(d)}))
		}
	}
	const long = "0123456789abcdefghijklmno~"
	for c := range 256 { // at each place of words of eight bytes
		for i := range long {
			check(long[:i] + string([]byte{byte(c)}) + long[i:])
			check(long[:i] + string([]byte{byte(c), byte(c)}) + long[i:])
		}
	}
	for _, s := range []string{"\ufffd", "😀", "a😀\xffb\xf0\x9f\x98", "\xed\xa0\x80", "日本語 \u2028\u2029", `<a href="x">&\`} {
		check(s)
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\x00<\u2028\xff")
	f.Fuzz(func(t *testing.T, s string) {
		want, err := jsonresponse.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := jsonresponse.AppendString(nil, s); string(got) != string(want) {
			t.Errorf("%q is encoded as %s, want %s", s, got, want)
		}
	})
}

func TestAppendRawEqualsEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "null", "1.50", ` "a b" `, `{}`, " {\"a\" :\t[ 1 ,\r\n\"x\\\" y\" , \"\\\\\" , null ] } ",
		`["<a href='x'>&amp;</a>", "\u003c \n", "日本` + "\u2028\u2029 \u2027 \u202a \u30a8" + `"]`, `{"< >": " < "}`,
	} {
		want, err := jsonresponse.Marshal(json.RawMessage(text))
		if text == "" {
			want, err = jsonresponse.Marshal(json.RawMessage(nil))
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := jsonresponse.AppendRaw([]byte("x"), []byte(text)); string(got) != "x"+string(want) {
			t.Errorf("%s is encoded as %s, want %s", text, got[1:], want)
		}
	}
}

func FuzzAppendRaw(f *testing.F) {
	f.Add([]byte("{\"a\\\"<\": [1, \"\u2028\"]}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		want, err := jsonresponse.Marshal(json.RawMessage(text))
		if err != nil || len(text) == 0 {
			return
		}
		if got := jsonresponse.AppendRaw(nil, text); string(got) != string(want) {
			t.Errorf("%q is encoded as %q, want %q", text, got, want)
		}
	})
}

// A name is encoded as an object with that name.
type name string

func (n name) AppendJSON(b []byte) []byte {
	b = append(b, `{"name":`...)
	return append(jsonresponse.AppendString(b, string(n)), '}')
}

func TestResponseIsWrittenOnceWithItsLength(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 300<<10) // larger than any buffer that is reused
	for _, tt := range []struct {
		name  string
		write func(http.ResponseWriter) error
		want  string
	}{
		{"item", func(w http.ResponseWriter) error { return jsonresponse.Write(w, 201, name("a")) }, `{"name":"a"}`},
		{"large item", func(w http.ResponseWriter) error { return jsonresponse.Write(w, 201, name(long)) }, `{"name":"` + long + `"}`},
		{"item that is just not buffered", func(w http.ResponseWriter) error { return jsonresponse.Write(w, 201, name(long[:2037])) }, `{"name":"` + long[:2037] + `"}`},
		{"item that is just buffered", func(w http.ResponseWriter) error { return jsonresponse.Write(w, 201, name(long[:2036])) }, `{"name":"` + long[:2036] + `"}`},
		{"item that is a kilobyte", func(w http.ResponseWriter) error { return jsonresponse.Write(w, 201, name(long[:1024])) }, `{"name":"` + long[:1024] + `"}`},
		{"item after a large one", func(w http.ResponseWriter) error { return jsonresponse.Write(w, 201, name("b")) }, `{"name":"b"}`},
		{"list", func(w http.ResponseWriter) error { return jsonresponse.WriteList(w, 201, []name{"a", "b"}) }, `[{"name":"a"},{"name":"b"}]`},
		{"list of one", func(w http.ResponseWriter) error { return jsonresponse.WriteList(w, 201, []name{"a"}) }, `[{"name":"a"}]`},
		{"empty list", func(w http.ResponseWriter) error { return jsonresponse.WriteList(w, 201, []name{}) }, `[]`},
		{"nil list", func(w http.ResponseWriter) error { return jsonresponse.WriteList[name](w, 201, nil) }, `[]`},
		{"anything", func(w http.ResponseWriter) error { return jsonresponse.WriteAny(w, 201, map[string]any{"a": 1}) }, `{"a":1}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			writes := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if err := tt.write(countingWriter{w, &writes}); err != nil {
					t.Error(err)
				}
			}))
			defer server.Close()
			resp, err := http.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if string(body) != tt.want+"\n" {
				t.Errorf("wrote %.80q, want %.80q and a line feed", body, tt.want)
			}
			if resp.StatusCode != 201 || resp.Header.Get("Content-Type") != "application/json" || resp.ContentLength != int64(len(tt.want)+1) {
				t.Errorf("wrote status %d with %v, want 201 and %d bytes of application/json", resp.StatusCode, resp.Header, len(tt.want)+1)
			}
			if writes != 1 {
				t.Errorf("wrote in %d parts, want 1", writes)
			}
		})
	}
}

type countingWriter struct {
	http.ResponseWriter
	writes *int
}

func (w countingWriter) Write(b []byte) (int, error) {
	*w.writes++
	return w.ResponseWriter.Write(b)
}

func TestWriteAnyOfWhatHasNoJSONFormWritesNothing(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	var unsupported *json.UnsupportedTypeError
	if err := jsonresponse.WriteAny(w, 200, func() {}); !errors.As(err, &unsupported) {
		t.Errorf("returned %v, want an error about the type", err)
	}
	if w.Body.Len() > 0 || len(w.Header()) > 0 {
		t.Errorf("wrote %v and %q, want nothing", w.Header(), w.Body)
	}
}

// A response allocates its two header values and nothing for its body.
func TestWriteReusesBuffers(t *testing.T) {
	w := discard{}
	items := make([]name, 50)
	for i := range items {
		items[i] = "Invoicing"
	}
	allocations := testing.AllocsPerRun(100, func() {
		clear(w)
		if err := jsonresponse.WriteList(w, 200, items); err != nil {
			t.Fatal(err)
		}
	})
	if allocations > 5 { // two header values and their lists, and one to spare for the race detector
		t.Errorf("%.0f allocations, want at most 5", allocations)
	}
}

type discard http.Header

func (d discard) Header() http.Header       { return http.Header(d) }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}
