package store

import (
	"slices"
	"time"

	"caracal.run/management/gen/code"
)

// A Page selects at most Limit rows of a list, after a position. If there is a
// next page, the store returns one extra row.
type Page struct {
	After Position
	Limit int32
}

// A Position is the sort key of a row in a list ordered by creation time and id,
// newest first (keyset pagination). Its time has microseconds, the precision of
// Postgres.
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

// check returns version_conflict if the precondition does not accept the version.
func (p Precondition) check(version int64) error {
	if p.Present && !slices.Contains(p.Versions, version) {
		return code.VersionConflict
	}
	return nil
}

// verify returns the error of a check of the present row, which an update can
// require. A nil check accepts every row.
func verify[Row any](present Row, check func(present Row) error) error {
	if check == nil {
		return nil
	}
	return check(present)
}

// convertRows converts the rows of one query of a list to those of another, which
// have the same columns.
func convertRows[From, To any](rows []From, err error, convert func(From) To) ([]To, error) {
	converted := make([]To, len(rows))
	for i, row := range rows {
		converted[i] = convert(row)
	}
	return converted, err
}
