package server_test

import (
	"net/http"
	"slices"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func validatePolicy(t *testing.T, as *rawclient.ClientWithResponses, body client.PolicyToValidate) *rawclient.ValidatePolicyResponse {
	t.Helper()
	resp, err := as.ValidatePolicyWithResponse(t.Context(), body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestValidatePolicy(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	content := `# caracal:data-document
package caracal.authz
import rego.v1
app_ids := {"payments": "app"} # "decision": "allow"
restrict contains "read only" if input.action.method != data.caracal.authz.app_ids.payments
`
	for name, as := range map[string]*rawclient.ClientWithResponses{"global token": a.Admin, "read token of a zone": a.ClientFor(a.Zone().ID, "read")} {
		t.Run(name, func(t *testing.T) {
			resp := validatePolicy(t, as, client.PolicyToValidate{Content: content})
			servertest.Expect(t, resp, http.StatusOK, "")
			v := resp.JSON200
			if !v.Valid || v.SchemaVersion != "2026-05-20" || v.InputSchemaVersion != "2026-05-20" || len(v.Warnings) > 0 {
				t.Errorf("got %+v", v)
			}
			if p := v.Preview; p.Package != "caracal.authz" || p.DefaultResult || !slices.Equal(p.Rules, []string{"app_ids", "restrict"}) ||
				!slices.Equal(p.Decisions, []string{"allow"}) || !slices.Equal(p.InputsReferenced, []string{"input.action.method"}) ||
				!slices.Equal(p.DataReferenced, []string{"data.caracal.authz.app_ids.payments"}) {
				t.Errorf("the preview is %+v", p)
			}
			if o := v.OutputContract; o.Package != "caracal.authz" || o.Rule != "result" || !slices.Equal(o.Decision, []string{"allow", "deny"}) || !slices.Equal(o.EvaluationStatus, []string{"complete"}) {
				t.Errorf("the output contract is %+v", o)
			}
		})
	}
	older := validatePolicy(t, a.Admin, client.PolicyToValidate{Content: "# caracal:data-document\npackage caracal.authz\nrestrict[\"frozen\"] { input.session.id }\n", SchemaVersion: new("2026-03-16")})
	servertest.Expect(t, older, http.StatusOK, "")
	if older.JSON200.SchemaVersion != "2026-03-16" {
		t.Errorf("got %s", older.Body)
	}
	servertest.Expect(t, validatePolicy(t, a.Admin, client.PolicyToValidate{}), 0, code.InvalidBody)
}

func TestValidatePolicyReturnsTheErrorOfCreatePolicy(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range invalidPolicies {
		t.Run(tt.name, func(t *testing.T) {
			resp := validatePolicy(t, a.Admin, client.PolicyToValidate{Content: tt.content, SchemaVersion: tt.schemaVersion})
			tt.expect(t, resp)
			if valid := problemOf(t, resp).Valid; valid == nil || *valid {
				t.Errorf("valid must be false: %s", resp.Body)
			}
		})
	}
}

func TestValidatePolicyWarnings(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	r := z.resource(t, func(r *client.NewResource) { r.Scopes, r.Operations = []string{"payments:read"}, nil })
	other := newResourceZone(a)
	content := `# caracal:data-document
package caracal.authz
app_ids := {"payments": "app", "unused": "other"}
grants := {
	"` + r.Identifier + `": {"application": "payments", "roles": {"payer": ["payments:read", "payments:write"]}},
	"resource://unknown": {"application": "missing", "roles": {}},
}
`
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone *string
		want []string // codes, with the row
	}{
		{"without a zone", z.Admin, nil, []string{"unused_application:3", "unknown_application:6"}},
		{"with a zone", z.ClientFor(z.zone, "read"), &z.zone, []string{"unused_application:3", "undeclared_scope:5", "unknown_application:6", "unknown_resource:6"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := validatePolicy(t, tt.as, client.PolicyToValidate{Content: content, ZoneID: tt.zone})
			servertest.Expect(t, resp, http.StatusOK, "")
			var got []string
			for _, w := range resp.JSON200.Warnings {
				got = append(got, w.Code+":"+string(rune('0'+w.Row)))
			}
			if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(tt.want))) {
				t.Errorf("warnings %v, want %v", got, tt.want)
			}
		})
	}
	for name, tt := range map[string]struct {
		as   *rawclient.ClientWithResponses
		zone string
	}{
		"unknown zone":         {z.Admin, "unknown"},
		"zone of other tokens": {z.ClientFor(z.zone, "read"), other.zone},
	} {
		t.Run(name, func(t *testing.T) {
			resp := validatePolicy(t, tt.as, client.PolicyToValidate{Content: content, ZoneID: &tt.zone})
			servertest.Expect(t, resp, 0, code.ZoneNotFound)
		})
	}
}
