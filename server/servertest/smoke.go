package servertest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
)

// Smoke calls a running service through the Go client: it creates, reads, changes,
// lists and archives objects. It works with any base URL, so it also tests what is
// in front of the service, such as a proxy, and behind it, such as a connection
// pooler. The token must be global and have write permission.
func Smoke(tb testing.TB, baseURL, token string) {
	tb.Helper()
	c, err := client.New(baseURL, token)
	if err != nil {
		tb.Fatal(err)
	}
	ctx := context.Background()
	must := func(step string, err error) {
		tb.Helper()
		if err != nil {
			tb.Fatalf("%s: %v", step, err)
		}
	}
	_, err = c.GetReadiness(ctx)
	must("get readiness", err)

	// An ETag is accepted as it was received.
	var created, read, updated string
	zone, err := c.CreateZone(ctx, client.NewZone{Name: "Smoke"}, client.ReadETag(&created))
	must("create a zone", err)
	_, err = c.GetZone(ctx, zone.ID, client.ReadETag(&read))
	must("get the zone", err)
	_, err = c.UpdateZone(ctx, zone.ID, client.ZonePatch{Name: new("Smoke test")}, client.IfMatch(read), client.ReadETag(&updated))
	must("update the zone as it was read, with If-Match "+read, err)
	for _, stale := range []string{created, read} {
		_, err = c.UpdateZone(ctx, zone.ID, client.ZonePatch{Name: new("Lost update")}, client.IfMatch(stale))
		if got := client.Code(err); got != client.CodeVersionConflict {
			tb.Fatalf("update the zone with the stale If-Match %s: got %v, want %s", stale, err, client.CodeVersionConflict)
		}
	}

	const apps, pageSize = 7, 3
	var want []string // newest first
	for n := range apps {
		app, err := c.CreateApplication(ctx, zone.ID, client.NewApplication{
			Name: fmt.Sprintf("Application %d", n), RegistrationMethod: client.NewApplicationRegistrationMethodManaged,
		})
		must("create an application", err)
		want = append([]string{app.ID}, want...)
	}
	for _, opts := range [][]client.ListOption{{client.Limit(pageSize)}, {}} { // small pages, and one that is large enough to be compressed
		var listed []string
		for app, err := range c.Applications(ctx, zone.ID, opts...) {
			must("list the applications", err)
			listed = append(listed, app.ID)
		}
		if !slices.Equal(listed, want) {
			tb.Fatalf("the list has the applications %q, want %q", listed, want)
		}
	}
	followLinks(tb, strings.TrimRight(baseURL, "/")+"/v1/zones/"+zone.ID+fmt.Sprintf("/applications?limit=%d", pageSize), token, (apps+pageSize-1)/pageSize)

	_, err = c.GetApplication(ctx, zone.ID, want[0], client.ReadETag(&read))
	must("get an application", err)
	must("archive the application as it was read", c.DeleteApplication(ctx, zone.ID, want[0], client.IfMatch(read)))
	_, err = c.GetApplication(ctx, zone.ID, want[0])
	if got := client.Code(err); got != client.CodeApplicationNotFound {
		tb.Fatalf("get the archived application: got %v, want %s", err, client.CodeApplicationNotFound)
	}
	must("archive the zone", c.DeleteZone(ctx, zone.ID, client.IfMatch(updated)))
}

// followLinks requests a list and follows its links to the next page, as a program
// without the Go client does. It fails the test unless there are as many pages.
func followLinks(tb testing.TB, url, token string, pages int) {
	tb.Helper()
	for page := 1; ; page++ {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
		if err != nil {
			tb.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			tb.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			tb.Fatalf("GET %s: got %d %s (%v)", url, resp.StatusCode, body, err)
		}
		link := resp.Header.Get("Link")
		if link == "" {
			if page != pages {
				tb.Fatalf("the links lead to %d pages, want %d", page, pages)
			}
			return
		}
		target, _, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		next, err := resp.Request.URL.Parse(target)
		if err != nil || page == pages {
			tb.Fatalf("page %d links to %s (%v)", page, link, err)
		}
		url = next.String()
	}
}
