// Package timestamp has the API's way to write a moment: UTC, with exactly
// three fractional digits (contract: conventions.md §6).
package timestamp

import "time"

const layout = "2006-01-02T15:04:05.000Z"

// A Time is a moment that is written to the millisecond; what is finer is cut
// off, not rounded.
type Time time.Time

// Optional is a moment that there may not have been.
func Optional(t *time.Time) *Time { return (*Time)(t) }

func (t Time) String() string { return time.Time(t).UTC().Format(layout) }

// AppendText appends the moment as the API writes it.
func (t Time) AppendText(b []byte) ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(b, layout), nil
}

// MarshalJSON writes the moment as a JSON string.
func (t Time) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, len(layout)+2)
	b = append(b, '"')
	b = time.Time(t).UTC().AppendFormat(b, layout)
	return append(b, '"'), nil
}

// UnmarshalJSON reads any RFC 3339 moment.
func (t *Time) UnmarshalJSON(text []byte) error { return (*time.Time)(t).UnmarshalJSON(text) }
