package server

import (
	"time"

	"caracal.run/management/gen/code"
)

// parseQueryTime returns the time in a query parameter, or the zero time if it is absent. It
// returns invalid_query if the day or the time of the day does not exist; the spec has the pattern.
func parseQueryTime(text *string, name string) (time.Time, error) {
	if text == nil {
		return time.Time{}, nil
	}
	layout := time.RFC3339Nano
	if len(*text) == len("2006-01-02T15:04Z") {
		layout = "2006-01-02T15:04Z"
	}
	t, err := time.Parse(layout, *text)
	if err != nil {
		return t, code.InvalidQuery.At("must be a time that exists", name)
	}
	// Rows have microseconds: those at or after a time are those at or after the next one.
	if rounded := t.Truncate(time.Microsecond); !rounded.Equal(t) {
		t = rounded.Add(time.Microsecond)
	}
	if t.IsZero() { // which stands for no time, and all rows are after it
		t = t.Add(time.Microsecond)
	}
	return t, nil
}
