// Package migrations holds the schema, as goose applies it and sqlc reads it:
// what the queries are checked against is what runs.
package migrations

import "embed"

// FS has the files, in the order of their numbers.
//
//go:embed *.sql
var FS embed.FS
