package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// A rowReader implements [pgx.Rows] for the copied rows of a shared read. The strings and
// bytes that it scans share the memory of the copy. It is not written again, or else not
// until the rows are closed: see eachRow.
type rowReader struct {
	read    *sharedRead
	row     [][]byte // the values of the current row; nil is NULL
	values  []byte   // of the next rows
	lengths []int32
	types   *pgtype.Map
	plans   []pgtype.ScanPlan
	texts   []string // that columns which can be null point to
	err     error
}

// typeMaps are not safe for concurrent use.
var typeMaps = sync.Pool{New: func() any { return pgtype.NewMap() }}

func newRowReader(r *sharedRead) *rowReader {
	return &rowReader{
		read: r, row: make([][]byte, len(r.fields)), values: r.values, lengths: r.lengths,
		types: typeMaps.Get().(*pgtype.Map), err: r.err,
	}
}

func (r *rowReader) Next() bool {
	if r.err != nil || len(r.lengths) == 0 {
		r.Close()
		return false
	}
	for i := range r.row {
		n := r.lengths[i]
		if n < 0 {
			r.row[i] = nil
			continue
		}
		r.row[i], r.values = r.values[:n:n], r.values[n:]
	}
	r.lengths = r.lengths[len(r.row):]
	if r.read.reuse {
		r.texts = r.texts[:0]
	}
	return true
}

func (r *rowReader) Scan(dest ...any) error {
	if len(dest) != len(r.row) {
		return fmt.Errorf("scanning %d columns into %d destinations", len(r.row), len(dest))
	}
	if r.plans == nil { // sqlc scans each row into destinations of the same types
		r.plans = make([]pgtype.ScanPlan, len(dest))
		for i, field := range r.read.fields {
			r.plans[i] = r.types.PlanScan(field.DataTypeOID, field.Format, dest[i])
		}
	}
	for i, value := range r.row {
		if r.scanDirectly(dest[i], value, r.read.fields[i]) {
			continue
		}
		if err := r.plans[i].Scan(value, dest[i]); err != nil {
			r.err = pgx.ScanArgError{ColumnIndex: i, FieldName: r.read.fields[i].Name, Err: err}
			return r.err
		}
	}
	return nil
}

// scanDirectly scans texts, bytes and times, which are most of the columns of lists. It
// reports false for other types and special cases.
func (r *rowReader) scanDirectly(dest any, value []byte, field pgconn.FieldDescription) bool {
	const (
		textsPerAllocation = 64
		secondsTo2000      = 946_684_800 // from 1970: times of Postgres begin in 2000
		second             = 1_000_000   // in microseconds
	)
	switch field.DataTypeOID {
	case pgtype.TextOID:
		switch dest := dest.(type) {
		case *string:
			*dest = unsafe.String(unsafe.SliceData(value), len(value))
			return value != nil
		case **string:
			if value == nil {
				*dest = nil
				return true
			}
			if len(r.texts) == cap(r.texts) {
				r.texts = make([]string, 0, textsPerAllocation)
			}
			r.texts = append(r.texts, unsafe.String(unsafe.SliceData(value), len(value)))
			*dest = &r.texts[len(r.texts)-1]
			return true
		}
	case pgtype.ByteaOID:
		if dest, ok := dest.(*[]byte); ok && field.Format == pgtype.BinaryFormatCode {
			*dest = value
			return true
		}
	case pgtype.TimestamptzOID:
		if dest, ok := dest.(*time.Time); ok && field.Format == pgtype.BinaryFormatCode && len(value) == 8 {
			at := int64(binary.BigEndian.Uint64(value))
			*dest = time.Unix(secondsTo2000+at/second, at%second*1000)
			return at != math.MaxInt64 && at != math.MinInt64 // not infinite
		}
	}
	return false
}

func (r *rowReader) Close() {
	if r.types != nil {
		typeMaps.Put(r.types)
		r.types = nil
	}
	r.values, r.lengths = nil, nil
	r.read.release()
}

func (r *rowReader) Err() error                                   { return mapError(r.err) }
func (r *rowReader) CommandTag() pgconn.CommandTag                { return r.read.tag }
func (r *rowReader) FieldDescriptions() []pgconn.FieldDescription { return r.read.fields }
func (r *rowReader) RawValues() [][]byte                          { return r.row }
func (r *rowReader) Values() ([]any, error)                       { return nil, errors.ErrUnsupported }
func (r *rowReader) Conn() *pgx.Conn                              { return nil }
func (r *rowReader) TypeMap() *pgtype.Map                         { return r.types }
