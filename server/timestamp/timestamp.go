// Package timestamp writes times as the API does: RFC 3339, in UTC, with exactly
// three fractional digits.
package timestamp

import "time"

const layout = "2006-01-02T15:04:05.000Z"

// A Time is a time that is encoded in milliseconds. It is truncated, not rounded.
type Time time.Time

// Optional converts a time that may be nil.
func Optional(t *time.Time) *Time { return (*Time)(t) }

func (t Time) String() string { return time.Time(t).UTC().Format(layout) }

// AppendJSON appends t as a JSON string and returns the extended buffer.
func (t Time) AppendJSON(b []byte) []byte {
	b = append(b, '"')
	b = time.Time(t).UTC().AppendFormat(b, layout)
	return append(b, '"')
}

// MarshalJSON returns t as a JSON string.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.AppendJSON(make([]byte, 0, len(layout)+len(`""`))), nil
}

// UnmarshalJSON reads any RFC 3339 time.
func (t *Time) UnmarshalJSON(text []byte) error { return (*time.Time)(t).UnmarshalJSON(text) }
