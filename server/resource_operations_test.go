package server

import (
	"encoding/json"
	"reflect"
	"testing"

	"caracal.run/management/gen/api"
)

func TestToOperationsEqualsEncodingJSON(t *testing.T) {
	t.Parallel()
	const one = `{"path": "/a/{b}", "scope": "s, t", "method": "GET"}`
	for _, text := range []string{
		"[]", " [ ] ", "null", "[" + one + "]", "[" + one + ", " + one + "]", "[" + one + "," + one + "]", " [" + one + "]", "[" + one + "] ",
		`[{"path": "\"/a\\", "scope": "s", "method": "GET"}, ` + one + "]", "[" + one + `, {"path": "/a", "scope": "\u00e9\"", "method": "GET"}]`,
		`[{"path": "", "scope": "", "method": ""}]`, `[{"method": "GET", "path": "/a", "scope": "s"}]`, `[{"path": "/a", "scope": "s"}, ` + one + "]",
		`[{"path": "/a", "scope": "s", "method": "GET", "more": 1}]`, `[{"path":"/a","scope":"s","method":"GET"}]`, `[{"path": "/日本 ] }, {", "scope": "s", "method": "GET"}]`,
		"", "[", "]", "[" + one, "[" + one + "]]", "[" + one + "[]", "[" + one + ", ]", `{"path": "/a"}`, `[{"path": 1, "scope": "s", "method": "GET"}]`,
	} {
		want := []api.ResourceOperation{}
		wantErr := json.Unmarshal([]byte(text), &want)
		got, err := toOperations(text)
		if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%s is decoded as %+v, %v, want %+v, %v", text, got, err, want, wantErr)
		}
	}
}

// What Postgres writes is decoded without encoding/json, which allocates several
// times for each operation.
func TestToOperationsAllocatesOnce(t *testing.T) {
	const text = `[{"path": "/a", "scope": "s", "method": "GET"}, {"path": "/b", "scope": "s", "method": "GET"}, {"path": "/c", "scope": "s", "method": "GET"}]`
	if allocations := testing.AllocsPerRun(100, func() { _, _ = toOperations(text) }); allocations > 1 {
		t.Errorf("%.0f allocations, want 1", allocations)
	}
}
