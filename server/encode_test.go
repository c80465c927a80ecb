package server

import (
	"encoding/json"
	"math/rand/v2"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
)

// What is written by hand is what the generated types say, member by member,
// for whatever is in the rows.
func TestListPagesEncodeAsGeneratedTypes(t *testing.T) {
	t.Parallel()
	texts := []string{"", " ", "Billing", "日本\u2028", `"quoted" \ <b>&</b>`, "\t\r\n\x00\x1f\x7f", "\xff broken", "😀"}
	text := func() string { return texts[rand.N(len(texts))] + texts[rand.N(len(texts))] }
	moment := func() time.Time { return time.UnixMicro(rand.Int64N(4e15)) }
	for range 500 {
		var applications []db.ListApplicationsRow
		wantApplications := []api.Application{}
		traits := rand.N(2) == 0
		var zones []db.Zone
		for range rand.N(4) {
			a := db.ListApplicationsRow{ZoneID: text(), ID: text(), Name: text(), RegistrationMethod: text(), Traits: []string{}, CreatedAt: moment()}
			for range rand.N(3) {
				a.Traits = append(a.Traits, text())
			}
			if rand.N(2) == 0 {
				a.ExpiresAt = new(moment())
			}
			applications = append(applications, a)
			want := api.Application{
				ID: a.ID, ZoneID: a.ZoneID, Name: a.Name, RegistrationMethod: api.RegistrationMethod(a.RegistrationMethod),
				ExpiresAt: timestamp.Optional(a.ExpiresAt), CreatedAt: timestamp.Time(a.CreatedAt),
			}
			if traits {
				want.Traits = &a.Traits
			}
			wantApplications = append(wantApplications, want)
			zones = append(zones, db.Zone{ID: text(), Name: text(), Slug: text(), DCREnabled: traits, CreatedAt: moment(), UpdatedAt: moment()})
		}
		w := httptest.NewRecorder()
		if err := (applicationsPage{rows: applications, traits: traits}).VisitListApplicationsResponse(w); err != nil {
			t.Fatal(err)
		}
		same(t, w.Body.Bytes(), wantApplications)
		w = httptest.NewRecorder()
		if err := (zonesPage{rows: zones}).VisitListZonesResponse(w); err != nil {
			t.Fatal(err)
		}
		same(t, w.Body.Bytes(), mapSlice(zones, toZone))
	}
}

func same(t *testing.T, got []byte, want any) {
	t.Helper()
	usual, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	if err := json.Unmarshal(usual, &w); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(g, w) {
		t.Fatalf("got\n%s\nwant\n%s", got, usual)
	}
}
