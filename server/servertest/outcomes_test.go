package servertest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestShardsAreCheckedTogether(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "outcomes")
	declared := map[string]bool{"a: 200": true, "a: 404 zone_not_found": true, "b: event on c": true}
	for _, shard := range [][]string{{"a: 200", "a: 200", "d: 500"}, {"b: event on c", "a: 200"}} {
		r := &recorder{names: map[string]bool{}}
		if err := r.recordIn(dir); err != nil {
			t.Fatal(err)
		}
		for _, name := range shard {
			r.record(name)
		}
		if missing := missingOutcomes(declared, r.names); len(missing) == 0 {
			t.Errorf("a shard alone has all of %v", slices.Collect(maps.Keys(declared)))
		}
		if err := r.close(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := readOutcomes(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]bool{"a: 200": true, "b: event on c": true, "d: 500": true}; !maps.Equal(all, want) {
		t.Errorf("the shards recorded %v, want %v", all, want)
	}
	if missing := missingOutcomes(declared, all); !slices.Equal(missing, []string{"a: 404 zone_not_found"}) {
		t.Errorf("%q are missing", missing)
	}
}

// A wrong directory must not look like shards that saw nothing, or everything.
func TestOutcomesDirectory(t *testing.T) {
	t.Parallel()
	if _, err := readOutcomes(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no outcomes are recorded") {
		t.Errorf("an empty directory: got %v", err)
	}
	if err := (&recorder{}).recordIn("outcomes"); err == nil || !strings.Contains(err.Error(), "must be an absolute path") {
		t.Errorf("a relative path: got %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&recorder{}).recordIn(file); err == nil {
		t.Error("a file was accepted as a directory")
	}
}

func TestDeclaredOutcomes(t *testing.T) {
	t.Parallel()
	declared := declaredOutcomes()
	for _, name := range []string{
		"createZone: 201", "createZone: 409 zone_slug_conflict", "deleteZone: 204", "any operation: internal_error",
		"deleteZone: event on caracal.policy.invalidate", "deleteZone: audit entry of admin-tokens",
	} {
		if !declared[name] {
			t.Errorf("%s is not declared", name)
		}
	}
	for _, name := range []string{"createZone: 200", "createZone: 500 internal_error", "createZone: event on caracal.policy.invalidate", "createZone: audit entry of applications"} {
		if declared[name] {
			t.Errorf("%s is declared", name)
		}
	}
}
