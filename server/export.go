package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// An export is a response with all rows of a list, as CSV or as newline-delimited JSON.
// It reads page after page from one snapshot of the database, and writes each page
// before it reads the next, so that it needs the memory of one page. Its trailer has the
// number of rows and the SHA-256 of the body, so that a client can prove that it got all
// of it. An export that fails after it has begun closes the connection.
type export func(http.ResponseWriter) error

const (
	// exportTimeout limits the duration of an export, which keeps a snapshot open.
	exportTimeout = 30 * time.Minute
	// exportStall is how long a client may take to receive one page.
	exportStall = 20 * time.Second
	// exportPageSize is the number of rows that an export reads at once.
	exportPageSize = 1000

	// The fields of the trailer.
	exportRows   = "X-Export-Rows"
	exportSHA256 = "X-Export-SHA256"
)

// VisitListSessionsResponse writes the response.
func (e export) VisitListSessionsResponse(w http.ResponseWriter) error { return e(w) }

// VisitListAuditEntriesResponse writes the response.
func (e export) VisitListAuditEntriesResponse(w http.ResponseWriter) error { return e(w) }

// VisitListZonelessAuditEntriesResponse writes the response.
func (e export) VisitListZonelessAuditEntriesResponse(w http.ResponseWriter) error { return e(w) }

// VisitListAgentSessionsResponse writes the response.
func (e export) VisitListAgentSessionsResponse(w http.ResponseWriter) error { return e(w) }

// VisitListAuditEventsResponse writes the response.
func (e export) VisitListAuditEventsResponse(w http.ResponseWriter) error { return e(w) }

// A table is a list that can be exported: rows of the database, each of which becomes an
// item of the spec.
type table[Row any, Item jsonresponse.Encoder] struct {
	name     string // of the file, without its zone
	zone     string
	columns  []column[Item] // of CSV
	page     func(context.Context, *store.Store, store.Page) ([]Row, error)
	position func(Row) store.Position
	convert  func(Row) Item
}

// A column is a column of CSV. The function appends the text of its cell.
type column[Item any] struct {
	name string
	cell func([]byte, Item) []byte
}

// isExport reports whether a request is for an export, and not for a page.
func isExport(format *api.ListFormat) bool { return format != nil && *format != api.ListFormatJSON }

// exportOf returns an export of the rows of a table after a position.
func exportOf[Row any, Item jsonresponse.Encoder](ctx context.Context, s *Server, t table[Row, Item], format api.ListFormat, after store.Position) export {
	return func(w http.ResponseWriter) error {
		out := exportWriter{ResponseWriter: w, control: http.NewResponseController(w), hash: sha256.New()}
		return s.storeFor(ctx).InSnapshot(ctx, func(snapshot *store.Store) error {
			for page := (store.Page{After: after, Limit: exportPageSize}); ; {
				rows, err := t.page(ctx, snapshot, page)
				if err != nil {
					return err
				}
				if !out.begun {
					t.begin(&out, format)
					if middleware.RequestInfoFrom(ctx).Method == http.MethodHead {
						return nil
					}
				}
				for _, row := range rows {
					out.buffer = t.appendRow(out.buffer, format, t.convert(row))
				}
				if err := out.send(len(rows)); err != nil {
					return err
				}
				if len(rows) <= exportPageSize {
					out.end()
					return nil
				}
				page.After = t.position(rows[len(rows)-1])
			}
		})
	}
}

// begin sends the header, and writes the names of the columns.
func (t table[Row, Item]) begin(out *exportWriter, format api.ListFormat) {
	contentType := "application/x-ndjson"
	if format == api.ListFormatCSV {
		contentType = "text/csv; charset=utf-8"
		for i, c := range t.columns {
			if i > 0 {
				out.buffer = append(out.buffer, ',')
			}
			out.buffer = append(out.buffer, c.name...)
		}
		out.buffer = append(out.buffer, "\r\n"...)
	}
	h := out.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Disposition", `attachment; filename="`+t.name+"-"+t.zone+"."+string(format)+`"`)
	h.Set("Trailer", exportRows+", "+exportSHA256)
	// The deadline for reading the request would end its context.
	_ = out.control.SetReadDeadline(time.Time{}) // fails only if the client has disconnected
	out.begun = true
	out.WriteHeader(http.StatusOK)
}

// appendRow appends an item as a line.
func (t table[Row, Item]) appendRow(b []byte, format api.ListFormat, item Item) []byte {
	if format != api.ListFormatCSV {
		return append(item.AppendJSON(b), '\n')
	}
	for i, c := range t.columns {
		if i > 0 {
			b = append(b, ',')
		}
		start := len(b)
		b = quoteCell(c.cell(b, item), start)
	}
	return append(b, "\r\n"...)
}

// An exportWriter writes the body of an export and its trailer.
type exportWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   bool
	buffer  []byte // what is not sent yet
	hash    hash.Hash
	rows    int64
}

// send sends the buffer, which contains a number of rows.
func (w *exportWriter) send(rows int) error {
	_ = w.control.SetWriteDeadline(time.Now().Add(exportStall)) // fails only if the client has disconnected
	w.rows += int64(rows)
	_, _ = w.hash.Write(w.buffer) // never fails (hash.Hash)
	_, err := w.Write(w.buffer)
	w.buffer = w.buffer[:0]
	return err
}

// end sets the trailer, which is sent after the body.
func (w *exportWriter) end() {
	w.Header().Set(exportRows, strconv.FormatInt(w.rows, 10))
	w.Header().Set(exportSHA256, hex.EncodeToString(w.hash.Sum(nil)))
}

// quoteCell quotes the cell of CSV that begins at an index of b if necessary (RFC 4180).
// If a spreadsheet would take it for a formula, it begins with an apostrophe instead.
//
// It does not use encoding/csv, which changes line ends within cells.
func quoteCell(b []byte, start int) []byte {
	cell := b[start:]
	isFormula := len(cell) > 0 && strings.IndexByte("=+-@\t\r", cell[0]) >= 0
	needsQuotes := bytes.ContainsAny(cell, "\",\r\n")
	if !isFormula && !needsQuotes {
		return b
	}
	text := string(cell)
	if isFormula {
		text = "'" + text
	}
	if !needsQuotes {
		return append(b[:start], text...)
	}
	b = append(b[:start], '"')
	for i := range len(text) {
		if text[i] == '"' {
			b = append(b, '"')
		}
		b = append(b, text[i])
	}
	return append(b, '"')
}

// timeCell returns a time that may be nil as the text of a cell.
func timeCell(t *timestamp.Time) string {
	if t == nil {
		return ""
	}
	return t.String()
}
