package store

import (
	"slices"
	"time"

	"caracal.run/management/gen/code"
)

// A Page selects rows of a list: at most Limit, that follow a position. The
// store returns one row more if there is a next page.
type Page struct {
	After Position
	Limit int32
}

// A Position is the place of a row in a list that is ordered by creation time
// and id, newest first (keyset pagination). Its time is exact, to the
// microsecond that Postgres keeps.
type Position struct {
	Time time.Time
	ID   string
}

// FirstPosition precedes every row.
var FirstPosition = Position{Time: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)}

// A Precondition lists the versions of a row that a request accepts (If-Match).
// The zero Precondition accepts any version.
type Precondition struct {
	Versions []int64
	Present  bool // an empty list that is present accepts no version
}

func (m Precondition) check(version int64) error {
	if m.Present && !slices.Contains(m.Versions, version) {
		return code.VersionConflict
	}
	return nil
}
