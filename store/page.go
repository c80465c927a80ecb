package store

import (
	"slices"
	"time"

	"caracal.run/management/gen/code"
)

// A Page says which rows of a list to read: so many, older than a place.
type Page struct {
	Before Place
	Rows   int32
}

// A Place is between two rows of a list that is ordered by time, then id. Its
// time is exact, to the microsecond that Postgres keeps.
type Place struct {
	Time time.Time
	ID   string
}

// Newest is the place before every row.
var Newest = Place{Time: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)}

// A Match is the versions of an item that a caller is willing to change. The
// zero Match is any.
type Match struct {
	Versions []int64
	Said     bool // a list that admits nothing is not the same as no list
}

func (m Match) check(version int64) error {
	if m.Said && !slices.Contains(m.Versions, version) {
		return code.VersionConflict
	}
	return nil
}
