package store

import (
	"context"
	"reflect"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/db"
)

// eachRow calls f with each row that a generated query finds, whose columns are the fields
// of Row in the same order. The rows share their memory with those of later reads, so that
// f must copy what it keeps: a page of a hundred rows needs no memory of its own. The query
// itself would allocate a list of rows, and each row.
func eachRow[Row any](conn db.DBTX, query func(*db.Queries) ([]Row, error), f func(*Row)) error {
	if reads, ok := conn.(sharedReads); ok {
		reads.reuse = true
		conn = reads
	}
	captured := &rowCapture{DBTX: conn}
	if _, err := query(db.New(captured)); err != nil {
		return err
	}
	rows := captured.rows
	defer rows.Close()
	var row Row
	fields := reflect.ValueOf(&row).Elem()
	dest := make([]any, fields.NumField())
	for i := range dest {
		dest[i] = fields.Field(i).Addr().Interface()
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return err
		}
		f(&row)
	}
	return rows.Err()
}

// A rowCapture keeps the rows of a query, which then sees none.
type rowCapture struct {
	db.DBTX
	rows pgx.Rows
}

func (c *rowCapture) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := c.DBTX.Query(ctx, sql, args...)
	c.rows = rows
	return noRows{}, err
}

type noRows struct{ pgx.Rows }

func (noRows) Next() bool { return false }
func (noRows) Close()     {}
func (noRows) Err() error { return nil }
