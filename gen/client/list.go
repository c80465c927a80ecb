package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// A Page is one page of a list.
type Page[T any] struct {
	Items []T
	Next  string // the [Cursor] of the next page; "" on the last page
}

// list performs an operation that returns a page.
func list[T any](ctx context.Context, c *Client, r request, opts []ListOption) (Page[T], error) {
	resp, err := c.do(ctx, r, apply(opts))
	items, err := decode[[]T](resp, err)
	if err != nil {
		return Page[T]{}, err
	}
	next, err := nextCursor(resp.header)
	if err != nil {
		return Page[T]{}, resp.fail(fmt.Sprintf("%v in the Link header %q", err, resp.header.Values("Link")), nil)
	}
	return Page[T]{items, next}, nil
}

// listRows performs an operation that returns a page as an object with its rows and the
// cursor of the next page.
func listRows[T any](ctx context.Context, c *Client, r request, opts []ListOption) (Page[T], error) {
	resp, err := c.do(ctx, r, apply(opts))
	page, err := decode[struct {
		Rows []T     `json:"rows"`
		Next *string `json:"next_cursor"`
	}](resp, err)
	if err != nil {
		return Page[T]{}, err
	}
	selected := resp.call.params.Has("fields") // a row can have none of them
	if !selected && slices.ContainsFunc(page.Rows, func(row T) bool { return reflect.ValueOf(&row).Elem().IsZero() }) {
		return Page[T]{}, resp.fail("a row has none of the expected fields", nil)
	}
	if page.Next == nil {
		return Page[T]{Items: page.Rows}, nil
	}
	return Page[T]{page.Rows, *page.Next}, nil
}

// all returns an iterator over the items of all pages. If page fails, the iterator
// yields the error and stops.
func all[T any](opts []ListOption, page func(...ListOption) (Page[T], error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		next := slices.Clip(opts)
		seen := map[string]bool{}
		for {
			p, err := page(next...)
			if err == nil && seen[p.Next] {
				err = fmt.Errorf("the page after an earlier one has the same cursor, %q", p.Next)
			}
			if err != nil {
				yield(*new(T), err)
				return
			}
			for _, item := range p.Items {
				if !yield(item, nil) {
					return
				}
			}
			if p.Next == "" {
				return
			}
			seen[p.Next] = true
			next = append(slices.Clip(opts), Cursor(p.Next))
		}
	}
}

// nextCursor returns the cursor in the link to the next page (RFC 8288), or ""
// if there is no such link.
func nextCursor(h http.Header) (string, error) {
	for target, params := range links(strings.Join(h.Values("Link"), ",")) {
		if !slices.Contains(strings.Fields(strings.ToLower(params["rel"])), "next") {
			continue
		}
		next, err := url.Parse(target)
		if err != nil {
			return "", errors.New("a malformed URL of the next page")
		}
		cursor := next.Query().Get("cursor")
		if cursor == "" {
			return "", errors.New("no cursor of the next page")
		}
		return cursor, nil
	}
	return "", nil
}

// links returns the targets and parameters of a Link header, such as
// </v1/zones?cursor=x>; rel="next". It stops at the first syntax error.
func links(header string) iter.Seq2[string, map[string]string] {
	return func(yield func(string, map[string]string) bool) {
		rest := header
		for {
			rest = strings.TrimLeft(rest, " \t,")
			if !strings.HasPrefix(rest, "<") {
				return
			}
			target, after, closed := strings.Cut(rest[1:], ">")
			if !closed {
				return
			}
			params := map[string]string{}
			rest = strings.TrimLeft(after, " \t")
			for strings.HasPrefix(rest, ";") {
				var name, value string
				name, value, rest = linkParam(rest[1:])
				if _, given := params[name]; !given { // only the first rel counts
					params[name] = value
				}
			}
			if !yield(target, params) {
				return
			}
		}
	}
}

// linkParam parses the first parameter, name=token or name="quoted string", and
// returns the rest.
func linkParam(s string) (name, value, rest string) {
	end := strings.IndexAny(s, "=;,")
	if end < 0 {
		return strings.ToLower(strings.TrimSpace(s)), "", ""
	}
	name = strings.ToLower(strings.TrimSpace(s[:end]))
	if s[end] != '=' {
		return name, "", s[end:]
	}
	s = strings.TrimLeft(s[end+1:], " \t")
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ";,")
		if end < 0 {
			end = len(s)
		}
		return name, strings.TrimSpace(s[:end]), s[end:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return name, b.String(), strings.TrimLeft(s[i+1:], " \t")
		case '\\':
			i++
		}
		if i < len(s) {
			b.WriteByte(s[i])
		}
	}
	return name, b.String(), "" // there is no closing quote
}
