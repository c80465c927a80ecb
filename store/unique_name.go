package store

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
)

// insertWithUniqueName inserts a row under the name base or, if that is taken,
// under the next available numbered name. If concurrent transactions take every
// name it tries, or no number is left, it appends the row's id.
//
// insert returns pgx.ErrNoRows if the name is taken, nextAvailable if no numbered
// name is available.
func insertWithUniqueName[Row any](base, id string, insert func(name string) (Row, error), nextAvailable func() (string, error)) (Row, error) {
	const maxAttempts = 10
	name := base
	for range maxAttempts {
		row, err := insert(name)
		if !errors.Is(err, pgx.ErrNoRows) {
			return row, err
		}
		name, err = nextAvailable()
		if errors.Is(err, pgx.ErrNoRows) {
			break
		}
		if err != nil {
			return row, err
		}
	}
	return insert(base + "-" + strings.ReplaceAll(id, "-", ""))
}
