package store

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
)

// insertWithUniqueName inserts a row under the name that a caller's words suggest, then
// under numbered ones, then under one that nobody else can have thought of.
// Others may take a name at the same moment, so what looks free need not stay
// so: insert answers no row when the name is taken, and free none when no
// numbered one is left.
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
