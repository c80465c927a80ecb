package client_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
)

// page returns a page with zones of these ids and a Link header.
func page(link string, ids ...string) reply {
	items := make([]string, len(ids))
	for i, id := range ids {
		items[i] = fmt.Sprintf(`{"id":%q}`, id)
	}
	return reply{status: 200, header: map[string]string{"Link": link}, body: "[" + strings.Join(items, ",") + "]"}
}

func next(cursor string) string { return "</v1/zones?cursor=" + cursor + `&limit=2>; rel="next"` }

func TestIteratorYieldsTheItemsOfAllPages(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{page(next("p2"), "a", "b"), page(next("p%2F3"), "c"), page(next("p4")), page("", "d")}}
	var ids []string
	for zone, err := range newClient(t, f).Zones(t.Context(), client.Limit(2), client.RequestID("r1")) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, zone.ID)
	}
	if !slices.Equal(ids, []string{"a", "b", "c", "d"}) {
		t.Errorf("got %q", ids)
	}
	var queries []string
	for _, r := range f.requests {
		queries = append(queries, r.URL.RawQuery)
		if r.Header.Get("X-Request-Id") != "r1" || r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("sent %q", r.Header)
		}
	}
	if want := []string{"limit=2", "cursor=p2&limit=2", "cursor=p%2F3&limit=2", "cursor=p4&limit=2"}; !slices.Equal(queries, want) {
		t.Errorf("requested %q, want %q", queries, want)
	}
}

func TestIteratorStopsWithTheLoop(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{page(next("p2"), "a", "b")}}
	for range newClient(t, f).Zones(t.Context()) {
		break
	}
	if len(f.requests) != 1 {
		t.Errorf("%d requests", len(f.requests))
	}
}

func TestIteratorCanBeUsedAgain(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{page(next("p2"), "a"), page("", "b"), page("", "c")}}
	zones := newClient(t, f).Zones(t.Context())
	for range zones {
	}
	for range zones {
	}
	if len(f.requests) != 3 || f.requests[2].URL.RawQuery != "" {
		t.Errorf("%d requests, the last with %q", len(f.requests), f.last().URL.RawQuery)
	}
}

func TestErrorIsTheLastElementOfAnIterator(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]reply{
		"error response": {status: 400, body: `{"error":"invalid_cursor"}`},
		"login page":     {status: 200, header: map[string]string{"Content-Type": "text/html"}, body: "<html>"},
		"no cursor":      page(`</v1/zones?limit=2>; rel="next"`, "c"),
		"malformed link": page(`<%zz>; rel="next"`, "c"),
		"same page":      page(next("p2"), "c"),
	} {
		f := &fake{replies: []reply{page(next("p2"), "a", "b"), last}}
		var ids []string
		var failed []error
		for zone, err := range newClient(t, f).Zones(t.Context()) {
			if err != nil {
				failed = append(failed, err)
				if zone.ID != "" {
					t.Errorf("%s: an error with the zone %q", name, zone.ID)
				}
				continue
			}
			ids = append(ids, zone.ID)
		}
		if !slices.Equal(ids, []string{"a", "b"}) || len(failed) != 1 || len(f.requests) != 2 {
			t.Errorf("%s: got %q, %v, %d requests", name, ids, errors.Join(failed...), len(f.requests))
		}
	}
}

func TestPagesThatLinkInACircleAreAnError(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{page(next("p2"), "a"), page(next("p3"), "b"), page(next("p4"), "c"), page(next("p2"), "d")}}
	var ids []string
	var failed error
	for zone, err := range newClient(t, f).Zones(t.Context()) {
		if err != nil {
			failed = err
			continue
		}
		ids = append(ids, zone.ID)
		if len(ids) > 10 {
			break
		}
	}
	if failed == nil || !slices.Equal(ids, []string{"a", "b", "c"}) || len(f.requests) != 4 {
		t.Errorf("got %q, %v, %d requests", ids, failed, len(f.requests))
	}
}

func TestListReturnsAPageAndTheNextCursor(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{page(next("p2"), "a", "b"), page("", "c")}}
	c := newClient(t, f)
	first, err := c.ListZones(t.Context(), client.Limit(2), client.Cursor(""))
	if err != nil || len(first.Items) != 2 || first.Next != "p2" || f.last().URL.RawQuery != "limit=2" {
		t.Fatalf("%+v, %v, sent %s", first, err, f.last().URL)
	}
	second, err := c.ListZones(t.Context(), client.Limit(2), client.Cursor(first.Next))
	if err != nil || len(second.Items) != 1 || second.Next != "" || f.last().URL.RawQuery != "cursor=p2&limit=2" {
		t.Errorf("%+v, %v, sent %s", second, err, f.last().URL)
	}
}

func TestLinkHeader(t *testing.T) {
	t.Parallel()
	for link, want := range map[string]string{
		"":                                    "",
		`</v1/zones?cursor=x>; rel="next"`:    "x",
		`</v1/zones?cursor=x>;rel=next`:       "x",
		`</v1/zones?cursor=x> ; REL = "NEXT"`: "x",
		`<https://caracal.example.com/v1/zones?limit=1&cursor=x>; rel="next"`: "x",
		`</v1/zones?cursor=y>; rel="prev", </v1/zones?cursor=x>; rel="next"`:  "x",
		`</v1/zones?cursor=x>; title="a, <b>; rel=\"prev\""; rel="next"`:      "x",
		`</v1/zones?cursor=x>; rel="last next"`:                               "x",
		`</v1/zones?cursor=x>; rel="nextish"`:                                 "",
		`</v1/zones?cursor=x>; title="rel=next"`:                              "",
		`</v1/zones?cursor=x>; rel="prev"; rel="next"`:                        "", // only the first rel counts
		`</v1/zones?cursor=x>`:                                                "",
		`</v1/zones?cursor=x`:                                                 "",
		`</v1/zones?cursor=x>; rel="next`:                                     "x",
		`</v1/zones?cursor=x>; crossorigin; rel=next`:                         "x",
		`cursor=x; rel="next"`:                                                "",
	} {
		f := &fake{replies: []reply{page(link)}}
		if p, err := newClient(t, f).ListZones(t.Context()); err != nil || p.Next != want {
			t.Errorf("%s: cursor %q, %v, want %q", link, p.Next, err, want)
		}
	}
}

func TestFiltersAreInTheQueryOfEachPage(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{page(next("p2"), "a"), page("", "b")}}
	for _, err := range newClient(t, f).Zones(t.Context(), client.ListZonesParams{Name: "Invoices & co"}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var queries []string
	for _, r := range f.requests {
		queries = append(queries, r.URL.RawQuery)
	}
	if want := []string{"name=Invoices+%26+co", "cursor=p2&name=Invoices+%26+co"}; !slices.Equal(queries, want) {
		t.Errorf("requested %q, want %q", queries, want)
	}
}

func TestFiltersOfAnotherListAreAnError(t *testing.T) {
	t.Parallel()
	f := &fake{}
	_, err := newClient(t, f).ListZones(t.Context(), client.ListProvidersParams{Kind: client.ProviderKindNone})
	if err == nil || err.Error() != "listZones: the filters of listProviders do not apply" || len(f.requests) != 0 {
		t.Errorf("got %v after %d requests", err, len(f.requests))
	}
}
