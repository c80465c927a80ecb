package middleware

import (
	"slices"
	"testing"

	"caracal.run/management/gen/code"
)

func TestIfMatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		lines []string
		want  []int64 // nil: none
		any   bool    // every version matches
	}{
		{"no header", nil, nil, true},
		{"any", []string{"*"}, nil, true},
		{"any, with white space", []string{" *\t"}, nil, true},
		{"ours", []string{`"1"`}, []int64{1}, false},
		{"a list", []string{`"1", "22"`, "\t\"333\" ,,"}, []int64{1, 22, 333}, false},
		{"a list without white space", []string{`"1",W/"2"`}, []int64{1, 2}, false},
		{"weak, as nginx sends it", []string{`W/"1"`}, []int64{1}, false},
		{"of Apache", []string{`"1-gzip"`, `"2-br"`, `"3-deflate"`}, []int64{1, 2, 3}, false},
		{"of Jetty", []string{`"1--gzip"`}, []int64{1}, false},
		{"of Caddy", []string{`"1-zstd"`}, []int64{1}, false},
		{"with a semicolon or a colon", []string{`"1;gzip", "2:br"`}, []int64{1, 2}, false},
		{"weak and with a suffix", []string{`W/"1-gzip"`}, []int64{1}, false},
		{"never issued", []string{`"", "x", "01", "+1", "1-", "1-zip", "1gzip", "1-gzip-gzip", "gzip", "9223372036854775808", "é", "1-GZIP"`}, nil, false},
		{"with a comma in a tag", []string{`"1,2", "3"`}, []int64{3}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseIfMatch(tt.lines)
			if err != nil || !slices.Equal(got.Versions, tt.want) || got.Present == tt.any {
				t.Errorf("got %+v, %v, want %v", got, err, tt.want)
			}
		})
	}
	for _, malformed := range []string{
		"", " ", ",", "1", "nonsense", `"1`, `1"`, `"1""2"`, `"1" "2"`, `"1", 2`, `w/"1"`, `W/1`, `W/ "1"`, `*, "1"`, `"1", *`, "**", `"a b"`, "\"a\x7f\"",
	} {
		if got, err := parseIfMatch([]string{malformed}); err != code.InvalidIfMatch {
			t.Errorf("%q: got %+v, %v", malformed, got, err)
		}
	}
}

func TestETagMatchesItsVersion(t *testing.T) {
	t.Parallel()
	for _, version := range []int64{1, 9, 10, 1 << 62} {
		got, err := parseIfMatch([]string{ETag(version)})
		if err != nil || !slices.Equal(got.Versions, []int64{version}) {
			t.Errorf("%s: got %+v, %v", ETag(version), got, err)
		}
	}
}
