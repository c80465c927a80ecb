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

// A person enters the token once, creates a zone, finds it in the list, and is
// told what was wrong with another: by day, by night, at a desk, on a phone.
func TestAPersonTriesTheAPI(t *testing.T) {
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
					t.Errorf("%s, the page is %d wide on a screen of %d", where, width, tt.width)
				}
				b.picture(tt.name + "-" + where)
			}
			b.visit(a.URL + "/docs")
			b.shows("#operations", "Create a zone")
			if dark := run[bool](b, "return document.getElementById('theme').getAttribute('aria-pressed') === 'true'"); dark != (tt.scheme == "dark") {
				t.Errorf("it does not follow the system, which is %s", tt.scheme)
			}
			fits("1-start")

			// A link opens its operation, whether the page is there already or not.
			b.write("#token", servertest.Bootstrap)
			b.visit(a.URL + "/docs#/zones/createZone")
			b.element("#operations-zones-createZone.is-open textarea")
			fits("2-operation")
			name := "Made by hand, " + tt.name
			b.write(".is-open textarea", `{"name":"`+name+`"}`)
			b.click(".is-open .execute")
			b.shows(".live-responses-table .response-col_status", "201")
			b.shows(".live-responses-table", name)
			bring := "document.querySelector(arguments[0]).scrollIntoView()"
			run[any](b, bring, ".is-open .execute")
			fits("3-created")

			b.write(".is-open textarea", `{"name":"","slug":"Not a slug","color":"red"}`)
			b.click(".is-open .execute")
			b.shows(".problem h5", string(code.InvalidZone))
			b.shows(".problem", code.Table[code.InvalidZone].Sentence)
			for _, member := range []string{"name", "slug", "color"} {
				b.shows(".problem tbody td:first-child", member)
			}
			b.shows(".problem dt", "requestId")
			run[any](b, bring, ".is-open .execute")
			fits("4-refused")

			b.visit("about:blank")
			b.visit(a.URL + "/docs#/zones/listZones")
			b.click("#operations-zones-listZones.is-open .execute")
			b.shows("#operations-zones-listZones .live-responses-table", name)
			fits("5-list")
			run[any](b, bring, "#errors")
			fits("6-errors")

			const seen = "return location.href + document.documentElement.outerHTML + JSON.stringify(localStorage) + document.cookie"
			if strings.Contains(run[string](b, seen), servertest.Bootstrap) {
				t.Error("the token stands in the page, its address or what outlives the tab")
			}
			b.shows(".is-open .highlight-code", `"Authorization: Bearer $CARACAL_ADMIN_TOKEN"`)
			b.keptToItself(a.URL, http.StatusBadRequest)
		})
	}
}

// keptToItself fails if anything came from elsewhere, or if the console says
// more than what Chromium says by itself of each refusal that was asked for.
func (b *browser) keptToItself(origin string, deniedRequests ...int) {
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
		// What stands in data: is fetched from nowhere.
		if url := event.Message.Params.Request.URL; !strings.HasPrefix(url, origin+"/") && !strings.HasPrefix(url, "data:image/") {
			b.tb.Errorf("it asked for %s", url)
		}
	}
	if requests == 0 {
		b.tb.Error("nothing was seen of what it asked for")
	}
	for _, entry := range b.log("browser") {
		known := slices.IndexFunc(deniedRequests, func(status int) bool {
			return entry.Source == "network" && strings.Contains(entry.Message, fmt.Sprintf("responded with a status of %d", status))
		})
		if known < 0 {
			b.tb.Errorf("the console says %+v", entry)
			continue
		}
		deniedRequests = slices.Delete(deniedRequests, known, known+1)
	}
}

// visible are the operations that are listed, by their ids.
func (b *browser) visible() []string {
	return run[[]string](b, "return [...document.querySelectorAll('#operations .opblock')].map((o) => o.id.split('-').at(-1)).sort()")
}

func TestThePageListsThePromise(t *testing.T) {
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
				t.Errorf("%s is shown as %q, without %q", op.OperationID, row, want)
			}
		}
	}
	slices.Sort(ids)
	if got := b.visible(); !slices.Equal(got, ids) {
		t.Errorf("it lists %v, want %v", got, ids)
	}
	if got := run[[]string](b, "return [...document.querySelectorAll('#index li')].map((o) => o.id.split('-').at(-1)).sort()"); !slices.Equal(got, ids) {
		t.Errorf("the index lists %v, want %v", got, ids)
	}

	for _, c := range []code.Code{code.InvalidRequest, code.NotFound, code.MethodNotAllowed, code.HeaderTooLarge} {
		codes[string(c)] = true // where no operation is
	}
	shown := run[[][3]string](b, `return [...document.querySelectorAll('#errors article')].map((e) =>
		[e.id.replace('error-', ''), e.closest('section').querySelector('h3').textContent.slice(0, 3), e.querySelector('p').textContent])`)
	for _, e := range shown {
		entry := code.Table[code.Code(e[0])]
		if !codes[e[0]] || e[1] != fmt.Sprint(entry.Status) || e[2] != entry.Sentence {
			t.Errorf("among the errors is %q, want %+v once", e, entry)
		}
		delete(codes, e[0])
	}
	if len(codes) > 0 {
		t.Errorf("the errors lack %v", slices.Sorted(maps.Keys(codes)))
	}
	b.keptToItself(a.URL)
}

func TestSearchAndLinksLeadToOperations(t *testing.T) {
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
		{"summary", "Revoke an", []string{"deleteAdminToken"}},
		{"operationId", "updatezone", []string{"updateZone"}},
		{"tag", "get dead-letters", []string{"listDeadLetters"}},
		{"error code", "zone_slug_conflict", []string{"createZone", "updateZone"}},
		{"nothing", "no such words", nil},
	} {
		b.write("#search", tt.text)
		b.shows("#found", fmt.Sprintf("%d of %d", len(tt.want), len(servertest.Operations())))
		b.eventually("search by "+tt.by, func() error {
			if got := b.visible(); !slices.Equal(got, tt.want) {
				return fmt.Errorf("it lists %v, want %v", got, tt.want)
			}
			return nil
		})
	}
	b.picture("search-nothing")
	b.write("#search", "zone_slug_conflict")
	b.picture("search")

	// From an operation to its error, and from an error to an operation that the
	// search has hidden.
	b.click("#index-createZone a")
	const toError = "#operations-zones-createZone.is-open .refusals a[href='#error-reserved_namespace']"
	b.click(toError)
	b.eventually("the link leads to the error", func() error {
		if top := run[float64](b, "return document.querySelector('#error-reserved_namespace:target')?.getBoundingClientRect().top ?? -1"); top < 0 || top > 900 {
			return fmt.Errorf("it is at %v, out of sight", top)
		}
		return nil
	})
	b.picture("error")
	b.click("#error-dead_letter_not_found a[href='#/dead-letters/rearmDeadLetter']")
	b.element("#operations-dead-letters-rearmDeadLetter.is-open")
	if got := b.visible(); len(got) != len(servertest.Operations()) {
		t.Errorf("after a link to what was hidden it lists %v", got)
	}
	b.keptToItself(a.URL)
}

func TestTheTokenStaysInTheTabUntilItIsForgotten(t *testing.T) {
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
	b.click("#forget")
	if kept := run[string](b, "return document.getElementById('token').value + JSON.stringify(sessionStorage)"); kept != "{}" {
		t.Errorf("after it was forgotten, there is still %s", kept)
	}
	b.click("#operations-zones-listZones.is-open .execute")
	b.shows(".problem h5", string(code.InvalidAdminToken))
	b.keptToItself(a.URL, http.StatusUnauthorized, http.StatusUnauthorized)
}

func TestLightAndDarkCanBeChosen(t *testing.T) {
	a := servertest.New(t)
	b := open(t, "light", 1280, 900)
	const ground = "return getComputedStyle(document.body).backgroundColor"
	b.visit(a.URL + "/docs")
	light := run[string](b, ground)
	b.click("#theme")
	dark := run[string](b, ground)
	b.visit(a.URL + "/docs")
	if again := run[string](b, ground); dark == light || again != dark {
		t.Errorf("the ground was %s, then %s, and %s when the page was opened again", light, dark, again)
	}
	b.click("#theme")
	if back := run[string](b, ground); back != light {
		t.Errorf("back in the light the ground is %s, was %s", back, light)
	}
	b.keptToItself(a.URL)
}
