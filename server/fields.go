package server

import (
	"context"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// A field is a field of the rows of a list that a request can select fields of. The
// function appends its value in JSON, or nothing if the row does not have the field.
type field[Row any] struct {
	name  string
	value func([]byte, Row) []byte
}

// A selection is the fields that a request selects, in its order: of a row in a page, of
// a row in newline-delimited JSON, and the columns of CSV. A field that is selected twice
// is a column twice. The default selection of a list also has the fields that a request
// can select in addition to its columns of CSV.
type selection[Row any] struct{ page, ndjson, csv, more []field[Row] }

// selectFields parses the parameter fields, a list of names of fields. Without it, the
// selection is the default one. It returns invalid_fields if the list is empty or
// contains another name.
func selectFields[Row any](names *string, standard selection[Row]) (selection[Row], error) {
	if names == nil {
		return standard, nil
	}
	var selected selection[Row]
	all := slices.Concat(standard.csv, standard.more)
	for name := range strings.SplitSeq(*names, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		named := func(f field[Row]) bool { return f.name == name }
		i := slices.IndexFunc(all, named)
		if i < 0 {
			return selected, code.InvalidFields.At("must not contain "+name, "fields")
		}
		selected.csv = append(selected.csv, all[i])
		if !slices.ContainsFunc(selected.page, named) {
			selected.page = append(selected.page, all[i])
		}
	}
	if len(selected.csv) == 0 {
		return selected, code.InvalidFields.At("must not be empty", "fields")
	}
	selected.ndjson = selected.page
	return selected, nil
}

// exported returns a row as a line of newline-delimited JSON.
func (s selection[Row]) exported(row Row) selectedRow[Row] { return selectedRow[Row]{row, s.ndjson} }

// columns returns the columns of CSV.
func (s selection[Row]) columns() []column[selectedRow[Row]] {
	return mapSlice(s.csv, func(f field[Row]) column[selectedRow[Row]] {
		return column[selectedRow[Row]]{f.name, func(b []byte, item selectedRow[Row]) []byte {
			start := len(b)
			return cellOf(f.value(b, item.row), start)
		}}
	})
}

// A selectedRow is a row with the fields that a request selects.
type selectedRow[Row any] struct {
	row    Row
	fields []field[Row]
}

// AppendJSON appends the row as an object.
func (r selectedRow[Row]) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	begin := len(b)
	for _, f := range r.fields {
		before := len(b)
		if before > begin {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), f.name...), `":`...)
		value := len(b)
		if b = f.value(b, r.row); len(b) == value {
			b = b[:before] // the row does not have the field
		}
	}
	return append(b, '}')
}

// A selectedPage is the response with a page of rows with the fields that a request
// selects.
type selectedPage struct {
	body jsonresponse.Buffer
	link *string
}

// selectPage returns a page of a list. The function each calls its argument with each row
// of the page, and with the one after it if there is a next page, and need not keep any.
func selectPage[Row any](ctx context.Context, page store.Page, scope string, fields []field[Row], position func(Row) store.Position, each func(func(Row)) error) (p selectedPage, err error) {
	p.body = jsonresponse.NewBuffer(func(b []byte) []byte {
		var last store.Position
		rows := 0
		b = append(b, `{"rows":[`...)
		err = each(func(row Row) {
			if rows++; rows > int(page.Limit) {
				return
			}
			if rows > 1 {
				b = append(b, ',')
			}
			b = selectedRow[Row]{row, fields}.AppendJSON(b)
			if rows == int(page.Limit) {
				last = position(row)
				last.ID = strings.Clone(last.ID)
			}
		})
		b = append(b, `],"next_cursor":`...)
		if rows <= int(page.Limit) {
			return append(b, "null}"...)
		}
		var next *string
		p.link, next = nextPage(ctx, page, scope, last)
		return append(jsonresponse.AppendString(b, *next), '}')
	})
	return p, err
}

func (p selectedPage) write(w http.ResponseWriter) error {
	if p.link != nil {
		w.Header().Set("Link", *p.link)
	}
	return p.body.Send(w, http.StatusOK)
}

// VisitListAuditEntriesResponse writes the response.
func (p selectedPage) VisitListAuditEntriesResponse(w http.ResponseWriter) error { return p.write(w) }

// VisitListZonelessAuditEntriesResponse writes the response.
func (p selectedPage) VisitListZonelessAuditEntriesResponse(w http.ResponseWriter) error {
	return p.write(w)
}

// VisitListAuditEventsResponse writes the response.
func (p selectedPage) VisitListAuditEventsResponse(w http.ResponseWriter) error { return p.write(w) }

// cellOf replaces the JSON value that begins at an index of b by the text of a cell of
// CSV: that of a string, those of the elements of an array, separated by spaces, and
// nothing for null.
func cellOf(b []byte, start int) []byte {
	value := b[start:]
	switch {
	case len(value) == 0 || string(value) == "null":
		return b[:start]
	case value[0] == '"' && !slices.Contains(value, '\\'):
		n := copy(value, value[1:len(value)-1])
		return b[:start+n]
	case value[0] == '"':
		return append(b[:start], jsonresponse.Text(string(value))...)
	case value[0] == '[':
		text := string(value)
		b = b[:start]
		jsonresponse.EachElement(text, func(element string) {
			if len(b) > start {
				b = append(b, ' ')
			}
			b = append(b, jsonresponse.Text(element)...)
		})
	}
	return b
}

// textField returns a field with a text.
func textField[Row any](name string, text func(Row) string) field[Row] {
	return field[Row]{name, func(b []byte, row Row) []byte { return jsonresponse.AppendString(b, text(row)) }}
}

// optionalField returns a field with a text or null.
func optionalField[Row any](name string, text func(Row) *string) field[Row] {
	return field[Row]{name, func(b []byte, row Row) []byte {
		if s := text(row); s != nil {
			return jsonresponse.AppendString(b, *s)
		}
		return append(b, "null"...)
	}}
}

// timeField returns a field with a time.
func timeField[Row any](name string, at func(Row) time.Time) field[Row] {
	return field[Row]{name, func(b []byte, row Row) []byte { return timestamp.Time(at(row)).AppendJSON(b) }}
}

// hexField returns a field with bytes in hexadecimal or null.
func hexField[Row any](name string, bytes func(Row) []byte) field[Row] {
	return field[Row]{name, func(b []byte, row Row) []byte {
		if v := bytes(row); v != nil {
			return append(hex.AppendEncode(append(b, '"'), v), '"')
		}
		return append(b, "null"...)
	}}
}
