package main

import "testing"

func TestNamesAreDescribed(t *testing.T) {
	t.Parallel()
	schema := operation(t, "properties:\n  name: {type: string, x-name: true, description: Its name.}\n  note: {type: string, description: A note.}")
	describeNames(schema)
	properties := get(schema, "properties")
	if got, want := valueOf(get(get(properties, "name"), "description")), "Its name. "+nameRule; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := valueOf(get(get(properties, "note"), "description")); got != "A note." {
		t.Errorf("got %q", got)
	}
}
