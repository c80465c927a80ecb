package server

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"maps"
	"net/url"
	"strconv"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/middleware"
	"caracal.run/management/store"
)

// usualPage is how many rows a page has unless the caller says.
const usualPage = 200

// pageOf is the page that a caller asks for, of the list that is called so:
// its name and whatever it is filtered by. It asks for one row too many, so
// that cut knows whether there is a next page.
func pageOf(cursor *string, limit *int, list string) (store.Page, error) {
	page := store.Page{Before: store.Newest, Rows: int32(or(limit, usualPage)) + 1}
	if cursor == nil {
		return page, nil
	}
	place, ok := readCursor(*cursor, list)
	if !ok {
		return page, code.InvalidCursor.At("is not a cursor of this list", "cursor")
	}
	page.Before = place
	return page, nil
}

// cut drops the row too many and, if there was one, says where the next page
// is.
func cut[T any](ctx context.Context, rows []T, page store.Page, list string, place func(T) store.Place) ([]T, *string) {
	most := int(page.Rows) - 1
	if len(rows) <= most {
		return rows, nil
	}
	rows = rows[:most]
	facts := middleware.FactsOf(ctx)
	query := maps.Clone(facts.Query)
	if query == nil {
		query = url.Values{}
	}
	query.Set("limit", strconv.Itoa(most))
	query.Set("cursor", writeCursor(place(rows[most-1]), list))
	link := "<" + facts.Path + "?" + query.Encode() + `>; rel="next"`
	return rows, &link
}

// A cursor is, in base64url: its version, the list it is good for, the last
// row's time in microseconds, and its id.
const (
	cursorVersion = 1
	cursorHead    = 1 + 8 + 8
)

func writeCursor(p store.Place, list string) string {
	b := []byte{cursorVersion}
	b = binary.BigEndian.AppendUint64(b, listHash(list))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Time.UnixMicro()))
	return base64.RawURLEncoding.EncodeToString(append(b, p.ID...))
}

func readCursor(text, list string) (store.Place, bool) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < cursorHead || b[0] != cursorVersion || binary.BigEndian.Uint64(b[1:]) != listHash(list) {
		return store.Place{}, false
	}
	at := time.UnixMicro(int64(binary.BigEndian.Uint64(b[9:])))
	id := string(b[cursorHead:])
	if at.Year() < 1970 || at.After(store.Newest.Time) || !middleware.IsID(id) {
		return store.Place{}, false
	}
	return store.Place{Time: at, ID: id}, true
}

func listHash(list string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(list)) // a hash takes everything
	return h.Sum64()
}

// each translates rows.
func each[Row, Item any](rows []Row, translate func(Row) Item) []Item {
	items := make([]Item, len(rows))
	for i, row := range rows {
		items[i] = translate(row)
	}
	return items
}

// or is what was said, or what is meant when nothing was.
func or[T any](said *T, otherwise T) T {
	if said == nil {
		return otherwise
	}
	return *said
}
