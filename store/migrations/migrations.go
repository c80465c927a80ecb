// Package migrations embeds the database schema. goose applies these files and
// sqlc reads them, so the queries are checked against the schema that runs.
package migrations

import "embed"

// FS contains the migrations. Their names sort in the order of their versions.
//
//go:embed *.sql
var FS embed.FS
