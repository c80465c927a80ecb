package server

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"maps"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/middleware"
	"caracal.run/management/store"
)

// defaultPageSize is the number of rows per page if the request sets no limit.
const defaultPageSize = 200

// defaultRowLimit is the same for lists that can be exported.
const defaultRowLimit = 100

// parsePage parses the cursor and limit of a list request. A cursor is valid only
// for the list and the filters that it was created for, and scope identifies the
// list. Otherwise, parsePage returns invalid_cursor.
func parsePage(ctx context.Context, cursor *string, limit *int, scope string) (store.Page, error) {
	page := store.Page{After: store.FirstPosition, Limit: int32(valueOr(limit, defaultPageSize))}
	if cursor == nil {
		return page, nil
	}
	position, ok := decodeCursor(*cursor, filteredScope(ctx, scope))
	if !ok {
		return page, invalidCursor()
	}
	page.After = position
	return page, nil
}

func invalidCursor() error { return code.InvalidCursor.At("must be a cursor of this list", "cursor") }

// numberPosition returns the position of a row in a list that is ordered by a number,
// such as that of a version. Its time has no meaning.
func numberPosition[N int32 | int64](number N) store.Position {
	return store.Position{Time: time.Unix(0, 0), ID: strconv.FormatInt(int64(number), 10)}
}

// parseNumberPage is like parsePage, for a list that is ordered by a number. It also
// returns the number that all rows on the page are below, at most maximum.
func parseNumberPage[N int32 | int64](ctx context.Context, cursor *string, limit *int, scope string, maximum N) (store.Page, N, error) {
	page, err := parsePage(ctx, cursor, limit, scope)
	if err != nil || page.After == store.FirstPosition {
		return page, maximum, err
	}
	number, err := strconv.ParseInt(page.After.ID, 10, 64)
	if err != nil || number > int64(maximum) {
		return page, 0, invalidCursor()
	}
	return page, N(number), nil
}

// paginate removes the extra row that the store returns if there is a next page.
// It then also returns the Link header of the next page; otherwise nil.
func paginate[T any](ctx context.Context, rows []T, page store.Page, scope string, position func(T) store.Position) ([]T, *string) {
	rows, link, _ := paginateRows(ctx, rows, page, scope, position)
	return rows, link
}

// paginateRows is like paginate. It also returns the cursor of the next page.
func paginateRows[T any](ctx context.Context, rows []T, page store.Page, scope string, position func(T) store.Position) (_ []T, link, cursor *string) {
	limit := int(page.Limit)
	if len(rows) <= limit {
		return rows, nil, nil
	}
	rows = rows[:limit]
	link, cursor = nextPage(ctx, page, scope, position(rows[limit-1]))
	return rows, link, cursor
}

// nextPage returns the Link header and the cursor of the page after a position.
func nextPage(ctx context.Context, page store.Page, scope string, after store.Position) (link, cursor *string) {
	info := middleware.RequestInfoFrom(ctx)
	query := maps.Clone(info.Query)
	if query == nil {
		query = url.Values{}
	}
	next := encodeCursor(after, filteredScope(ctx, scope))
	query.Set("limit", strconv.Itoa(int(page.Limit)))
	query.Set("cursor", next)
	target := "<" + info.PublicURL + info.Path + "?" + query.Encode() + `>; rel="next"`
	return &target, &next
}

// A cursor is the base64url encoding of a version, a hash of its scope, the last
// row's time in microseconds, and that row's id.
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
	// An id of another service can be any text.
	if at.Year() < 1970 || at.After(store.FirstPosition.Time) || id == "" || !utf8.ValidString(id) || strings.ContainsRune(id, 0) {
		return store.Position{}, false
	}
	return store.Position{Time: at, ID: id}, true
}

// filteredScope adds the filters of a list request to the scope of the list.
func filteredScope(ctx context.Context, scope string) string {
	if filters := middleware.RequestInfoFrom(ctx).Filters(); filters != "" {
		return scope + "?" + filters
	}
	return scope
}

func scopeHash(scope string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(scope)) // never fails (hash.Hash)
	return h.Sum64()
}

// mapSlice returns the results of convert for each item.
func mapSlice[From, To any](items []From, convert func(From) To) []To {
	converted := make([]To, len(items))
	for i, item := range items {
		converted[i] = convert(item)
	}
	return converted
}

// pointers returns a pointer to each item.
func pointers[T any](items []T) []*T {
	pointers := make([]*T, len(items))
	for i := range items {
		pointers[i] = &items[i]
	}
	return pointers
}

// valueOr returns the value of p, or fallback if p is nil.
func valueOr[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}
