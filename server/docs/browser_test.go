//go:build browser

package docs_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

var pictures = flag.String("pictures", "", "folder for screenshots")

func TestMain(m *testing.M) { storetest.Main(m) }

// A user enters the token once, creates a zone, finds it in the list, and sees the
// validation errors of another: in light and dark mode, on a desktop and a phone.
func TestUserCanTryTheAPI(t *testing.T) {
	a := servertest.New(t)
	for _, tt := range []struct {
		name, scheme  string
		width, height int
	}{
		{"light", "light", 1280, 900},
		{"dark", "dark", 1280, 900},
		{"light-phone", "light", 390, 844},
		{"dark-phone", "dark", 390, 844},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, tt.scheme, tt.width, tt.height)
			fits := func(where string) {
				t.Helper()
				if width := run[int](b, "return document.documentElement.scrollWidth"); width > tt.width {
					t.Errorf("%s: the page is %d pixels wide on a screen of %d", where, width, tt.width)
				}
				b.picture(tt.name + "-" + where)
			}
			b.visit(a.URL + "/docs")
			b.shows("#operations", "Create a zone")
			if dark := run[bool](b, "return document.getElementById('theme').getAttribute('aria-pressed') === 'true'"); dark != (tt.scheme == "dark") {
				t.Errorf("the color scheme is not the system's, %s", tt.scheme)
			}
			fits("1-start")

			// A link opens its operation, whether the page is loaded already or not.
			b.write("#token", servertest.Bootstrap)
			b.visit(a.URL + "/docs#/zones/createZone")
			b.element("#operations-zones-createZone.is-open textarea")
			opened := b.text("#operations-zones-createZone.is-open")
			for _, sentence := range []string{"Requires a global token with write permission.", "Publishes no events."} {
				if n := strings.Count(opened, sentence); n != 1 {
					t.Errorf("the operation contains %q %d times, want once", sentence, n)
				}
			}
			fits("2-operation")
			name := "Created in the browser, " + tt.name
			b.write(".is-open textarea", `{"name":"`+name+`"}`)
			b.click(".is-open .execute")
			b.shows(".live-responses-table .response-col_status", "201")
			b.shows(".live-responses-table", name)
			scrollTo := "document.querySelector(arguments[0]).scrollIntoView()"
			run[any](b, scrollTo, ".is-open .execute")
			fits("3-created")

			b.write(".is-open textarea", `{"name":"","slug":"Not a slug","color":"red"}`)
			b.click(".is-open .execute")
			b.shows(".problem h5", string(code.InvalidZone))
			b.shows(".problem", code.Table[code.InvalidZone].Sentence)
			for _, field := range []string{"name", "slug", "color"} {
				b.shows(".problem tbody td:first-child", field)
			}
			b.shows(".problem dt", "requestId")
			run[any](b, scrollTo, ".is-open .execute")
			fits("4-invalid")

			b.visit("about:blank")
			b.visit(a.URL + "/docs#/zones/listZones")
			b.click("#operations-zones-listZones.is-open .execute")
			b.shows("#operations-zones-listZones .live-responses-table", name)
			fits("5-list")
			run[any](b, scrollTo, "#errors")
			fits("6-errors")

			const seen = "return location.href + document.documentElement.outerHTML + JSON.stringify(localStorage) + document.cookie"
			if strings.Contains(run[string](b, seen), servertest.Bootstrap) {
				t.Error("the token is in the page, the URL, localStorage or a cookie")
			}
			b.shows(".is-open .highlight-code", `"Authorization: Bearer $CARACAL_ADMIN_TOKEN"`)
			b.sameOriginOnly(a.URL, http.StatusBadRequest)
		})
	}
}

// sameOriginOnly fails the test if the page sent a request to another origin, or if
// the console has entries other than Chromium's own for the expected error
// statuses.
func (b *browser) sameOriginOnly(origin string, errorStatuses ...int) {
	b.tb.Helper()
	requests := 0
	for _, entry := range b.log("performance") {
		var event struct {
			Message struct {
				Method string
				Params struct{ Request struct{ URL string } }
			}
		}
		if err := json.Unmarshal([]byte(entry.Message), &event); err != nil {
			b.tb.Fatal(err)
		}
		if event.Message.Method != "Network.requestWillBeSent" {
			continue
		}
		requests++
		// A data: URL is not a request.
		if url := event.Message.Params.Request.URL; !strings.HasPrefix(url, origin+"/") && !strings.HasPrefix(url, "data:image/") {
			b.tb.Errorf("the page requested %s", url)
		}
	}
	if requests == 0 {
		b.tb.Error("the log contains no requests")
	}
	for _, entry := range b.log("browser") {
		known := slices.IndexFunc(errorStatuses, func(status int) bool {
			return entry.Source == "network" && strings.Contains(entry.Message, fmt.Sprintf("responded with a status of %d", status))
		})
		if known < 0 {
			b.tb.Errorf("unexpected console entry: %+v", entry)
			continue
		}
		errorStatuses = slices.Delete(errorStatuses, known, known+1)
	}
}

// visible returns the ids of the operations that the page lists, sorted.
func (b *browser) visible() []string {
	return run[[]string](b, "return [...document.querySelectorAll('#operations .opblock')].map((o) => o.id.split('-').at(-1)).sort()")
}

func TestPageListsTheWholeSpec(t *testing.T) {
	a := servertest.New(t)
	b := open(t, "light", 1280, 900)
	b.visit(a.URL + "/docs")
	b.shows("#operations", "Create a zone")

	var ids []string
	codes := map[string]bool{}
	for _, op := range servertest.Operations() {
		ids = append(ids, op.OperationID)
		for status := range op.Responses.Map() {
			for _, c := range op.Codes(status) {
				codes[c] = true
			}
		}
		row := b.text("#operations-" + op.Tags[0] + "-" + op.OperationID)
		for _, want := range []string{op.Method, op.Summary} {
			if !strings.Contains(row, want) {
				t.Errorf("%s is displayed as %q, without %q", op.OperationID, row, want)
			}
		}
	}
	slices.Sort(ids)
	if got := b.visible(); !slices.Equal(got, ids) {
		t.Errorf("the page lists %v, want %v", got, ids)
	}
	if got := run[[]string](b, "return [...document.querySelectorAll('#index li')].map((o) => o.id.split('-').at(-1)).sort()"); !slices.Equal(got, ids) {
		t.Errorf("the index lists %v, want %v", got, ids)
	}

	for _, c := range []code.Code{code.InvalidRequest, code.NotFound, code.MethodNotAllowed, code.HeaderTooLarge} {
		codes[string(c)] = true // returned outside of operations
	}
	listed := run[[][3]string](b, `return [...document.querySelectorAll('#errors article')].map((e) =>
		[e.id.replace('error-', ''), e.closest('section').querySelector('h3').textContent.slice(0, 3), e.querySelector('p').textContent])`)
	for _, e := range listed {
		entry := code.Table[code.Code(e[0])]
		if !codes[e[0]] || e[1] != fmt.Sprint(entry.Status) || e[2] != entry.Sentence {
			t.Errorf("the list of errors contains %q, want %+v once", e, entry)
		}
		delete(codes, e[0])
	}
	if len(codes) > 0 {
		t.Errorf("the list of errors lacks %v", slices.Sorted(maps.Keys(codes)))
	}
	b.sameOriginOnly(a.URL)
}

func TestSearchAndLinksOpenOperations(t *testing.T) {
	a := servertest.New(t)
	b := open(t, "light", 1280, 900)
	b.visit(a.URL + "/docs")
	b.shows("#operations", "Create a zone")
	for _, tt := range []struct {
		by, text string
		want     []string
	}{
		{"path", "dcr-status", []string{"getDCRStatus"}},
		{"method and path", "patch /applications", []string{"updateApplication"}},
		{"summary", "Retry a dead", []string{"rearmDeadLetter"}},
		{"operationId", "updatezone", []string{"updateZone"}},
		{"tag", "get dead-letters", []string{"listDeadLetters"}},
		{"field and kind", "private_key_jwt", []string{"createProvider", "updateProvider"}},
		{"schema", "newzone", []string{"createZone"}},
		{"error code", "zone_slug_conflict", []string{"createZone", "updateZone"}},
		{"nothing", "xyzzy", nil},
	} {
		b.write("#search", tt.text)
		b.eventually("search by "+tt.by, func() error {
			got := b.visible()
			for _, id := range tt.want {
				if !slices.Contains(got, id) {
					return fmt.Errorf("the page lists %v, want %v", got, tt.want)
				}
			}
			if len(got) > 10 || tt.want == nil && len(got) > 0 {
				return fmt.Errorf("the page lists %v, want only %v, and a few whose texts have the words", got, tt.want)
			}
			if found, want := b.text("#found"), fmt.Sprintf("%d of %d", len(got), len(servertest.Operations())); found != want {
				return fmt.Errorf("the page says that it found %q, want %q", found, want)
			}
			return nil
		})
	}
	b.picture("search-nothing")
	b.write("#search", "zone_slug_conflict")
	b.picture("search")

	// From an operation to its error code, and from an error code to an operation
	// that the search hides.
	b.click("#index-createZone a")
	const toError = "#operations-zones-createZone.is-open .error-codes a[href='#error-reserved_namespace']"
	b.click(toError)
	b.eventually("scroll to the error code", func() error {
		if top := run[float64](b, "return document.querySelector('#error-reserved_namespace:target')?.getBoundingClientRect().top ?? -1"); top < 0 || top > 900 {
			return fmt.Errorf("it is at %v, outside of the window", top)
		}
		return nil
	})
	b.picture("error")
	b.click("#error-dead_letter_not_found a[href='#/dead-letters/rearmDeadLetter']")
	b.element("#operations-dead-letters-rearmDeadLetter.is-open")
	if got := b.visible(); len(got) != len(servertest.Operations()) {
		t.Errorf("after following a link to a hidden operation, the page lists %v", got)
	}
	b.sameOriginOnly(a.URL)
}

// Full-text search finds operations by what is written about them, and also the
// paragraphs of the introduction and the errors that have the words.
func TestSearchFindsTexts(t *testing.T) {
	a := servertest.New(t)
	b := open(t, "light", 1280, 900)
	b.visit(a.URL + "/docs")
	b.shows("#operations", "Create a zone")
	for _, tt := range []struct {
		query, introduction, problem string
		contains, lacks              []string
	}{
		{"client_secret", "", "", []string{"createApplication", "createProvider", "updateProvider"}, []string{"listZones", "getHealth"}},
		{"pagination", "Pagination.", "", []string{"listZones", "listPolicies", "listDeadLetters"}, []string{"createZone", "getHealth"}},
		{"prometheus text", "", "", []string{"getMetrics"}, []string{"createZone", "listZones"}},
		{"NewAdminToken", "", "", []string{"createAdminToken"}, []string{"listAdminTokens", "createZone"}},
		{"zone_slug_conflict", "", "zone_slug_conflict", []string{"createZone", "updateZone"}, []string{"deleteZone"}},
		{"already in use by another", "", "zone_slug_conflict", nil, []string{"getHealth"}},
	} {
		b.write("#search", tt.query)
		b.eventually("search "+tt.query, func() error {
			found := b.visible()
			for _, id := range tt.contains {
				if !slices.Contains(found, id) {
					return fmt.Errorf("%s is not in %v", id, found)
				}
			}
			for _, id := range tt.lacks {
				if slices.Contains(found, id) {
					return fmt.Errorf("%s is in %v", id, found)
				}
			}
			shown := run[[]string](b, "return [...document.querySelectorAll('.intro p:not([hidden]), #errors article:not([hidden]) h4')].filter((e) => e.checkVisibility()).map((e) => e.textContent)")
			for _, want := range []string{tt.introduction, tt.problem} {
				if want != "" && !slices.ContainsFunc(shown, func(text string) bool { return strings.HasPrefix(text, want) }) {
					return fmt.Errorf("%q is not in %q", want, shown)
				}
			}
			return nil
		})
	}
	b.picture("search-text")
	b.sameOriginOnly(a.URL)
}

func TestTokenStaysInTheTabUntilCleared(t *testing.T) {
	a := servertest.New(t)
	b := open(t, "light", 1280, 900)
	b.visit(a.URL + "/docs#/zones/listZones")
	b.click("#operations-zones-listZones.is-open .execute")
	b.shows(".problem h5", string(code.InvalidAdminToken))
	b.write("#token", servertest.Bootstrap)
	b.visit("about:blank")
	b.visit(a.URL + "/docs#/zones/listZones")
	b.click("#operations-zones-listZones.is-open .execute")
	b.shows(".live-responses-table .response-col_status", "200")
	b.click("#clear")
	if kept := run[string](b, "return document.getElementById('token').value + JSON.stringify(sessionStorage)"); kept != "{}" {
		t.Errorf("after clearing the token, the page still has %s", kept)
	}
	b.click("#operations-zones-listZones.is-open .execute")
	b.shows(".problem h5", string(code.InvalidAdminToken))
	b.sameOriginOnly(a.URL, http.StatusUnauthorized, http.StatusUnauthorized)
}

func TestColorSchemeCanBeChosen(t *testing.T) {
	a := servertest.New(t)
	b := open(t, "light", 1280, 900)
	const background = "return getComputedStyle(document.body).backgroundColor"
	b.visit(a.URL + "/docs")
	light := run[string](b, background)
	b.click("#theme")
	dark := run[string](b, background)
	b.visit(a.URL + "/docs")
	if again := run[string](b, background); dark == light || again != dark {
		t.Errorf("the background was %s, then %s, and %s after reloading the page", light, dark, again)
	}
	b.click("#theme")
	if back := run[string](b, background); back != light {
		t.Errorf("back in light mode, the background is %s, was %s", back, light)
	}
	b.sameOriginOnly(a.URL)
}
