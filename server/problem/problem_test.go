package problem_test

import (
	"errors"
	"net/http/httptest"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/problem"
)

// TestWriteKeepsTheOrderOfTheSpec compares whole bodies: the fields of every
// error, then those of its code.
func TestWriteKeepsTheOrderOfTheSpec(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, accept string
		err          error
		want         string
	}{
		{"code", "", code.ZoneNotFound, `{"error":"zone_not_found","error_description":"Zone not found.","requestId":"r"}`},
		{"cause", "", code.ZoneNotFound.Because(errors.New("secret")), `{"error":"zone_not_found","error_description":"Zone not found.","requestId":"r"}`},
		{"issue", "", code.InvalidZone.At("must not be empty", "name"), `{"error":"invalid_zone","error_description":"The zone is invalid. See details.issues.","requestId":"r",` +
			`"details":{"issues":[{"path":["name"],"message":"must not be empty"}]}}`},
		{"issue about the whole body", "", code.InvalidZone.At("is required"), `{"error":"invalid_zone","error_description":"The zone is invalid. See details.issues.","requestId":"r",` +
			`"details":{"issues":[{"path":[],"message":"is required"}]}}`},
		{"extra field", "", code.DCRShutdownRequired.With("live_dcr_applications", 2), `{"error":"dcr_shutdown_required",` +
			`"error_description":"The zone has active registered applications. Set dcr_shutdown to keep_live or revoke_live.","requestId":"r","live_dcr_applications":2}`},
		{"RFC 9457 not accepted", "application/problem+json;q=0, */*", code.ZoneNotFound, `{"error":"zone_not_found","error_description":"Zone not found.","requestId":"r"}`},
		{"RFC 9457", "application/problem+json", code.ZoneNotFound, `{"error":"zone_not_found","error_description":"Zone not found.","requestId":"r",` +
			`"type":"urn:caracal:problem:zone_not_found","title":"Zone not found.","status":404}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Accept", tt.accept)
			if err := problem.Write(w, r, "r", tt.err); err != nil {
				t.Fatal(err)
			}
			if got := w.Body.String(); got != tt.want+"\n" {
				t.Errorf("got  %swant %s", got, tt.want)
			}
		})
	}
}
