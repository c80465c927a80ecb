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

// defaultPageSize is the number of rows of a page unless the request sets a limit.
const defaultPageSize = 200

// parsePage parses the cursor and limit of a list request. A scope names the
// list and whatever filters it: a cursor is valid only in the scope that it was
// made in.
func parsePage(cursor *string, limit *int, scope string) (store.Page, error) {
	page := store.Page{After: store.FirstPosition, Limit: int32(valueOr(limit, defaultPageSize))}
	if cursor == nil {
		return page, nil
	}
	position, ok := decodeCursor(*cursor, scope)
	if !ok {
		return page, code.InvalidCursor.At("must be a cursor of this list", "cursor")
	}
	page.After = position
	return page, nil
}

// paginate trims the extra row that the store reads and, if there was one,
// returns the Link header of the next page.
func paginate[T any](ctx context.Context, rows []T, page store.Page, scope string, position func(T) store.Position) ([]T, *string) {
	limit := int(page.Limit)
	if len(rows) <= limit {
		return rows, nil
	}
	rows = rows[:limit]
	info := middleware.RequestInfoFrom(ctx)
	query := maps.Clone(info.Query)
	if query == nil {
		query = url.Values{}
	}
	query.Set("limit", strconv.Itoa(limit))
	query.Set("cursor", encodeCursor(position(rows[limit-1]), scope))
	link := "<" + info.Path + "?" + query.Encode() + `>; rel="next"`
	return rows, &link
}

// A cursor is, in base64url: a version, a hash of its scope, the last row's time
// in microseconds, and that row's id.
const (
	cursorVersion    = 1
	cursorHeaderSize = 1 + 8 + 8
)

func encodeCursor(p store.Position, scope string) string {
	b := []byte{cursorVersion}
	b = binary.BigEndian.AppendUint64(b, scopeHash(scope))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Time.UnixMicro()))
	return base64.RawURLEncoding.EncodeToString(append(b, p.ID...))
}

func decodeCursor(text, scope string) (store.Position, bool) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < cursorHeaderSize || b[0] != cursorVersion || binary.BigEndian.Uint64(b[1:]) != scopeHash(scope) {
		return store.Position{}, false
	}
	at := time.UnixMicro(int64(binary.BigEndian.Uint64(b[9:])))
	id := string(b[cursorHeaderSize:])
	if at.Year() < 1970 || at.After(store.FirstPosition.Time) || !middleware.IsID(id) {
		return store.Position{}, false
	}
	return store.Position{Time: at, ID: id}, true
}

func scopeHash(scope string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(scope)) // a hash takes everything
	return h.Sum64()
}

// mapSlice translates rows.
func mapSlice[Row, Item any](rows []Row, translate func(Row) Item) []Item {
	items := make([]Item, len(rows))
	for i, row := range rows {
		items[i] = translate(row)
	}
	return items
}

// valueOr returns the value of p, or fallback if p is nil.
func valueOr[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}
