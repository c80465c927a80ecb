package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen"
	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// A stateZone is a zone that documents are applied to.
type stateZone struct {
	*servertest.API
	zone string
}

func newStateZone(t testing.TB, settings ...string) stateZone {
	t.Helper()
	a := servertest.New(t, settings...)
	return stateZone{a, a.Zone().ID}
}

// document parses a document.
func document(t testing.TB, text string) client.StateDocument {
	t.Helper()
	var d client.StateDocument
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return d
}

// bootstrapDocument brings up an empty zone.
const bootstrapDocument = `{"objects":[
	{"kind":"resource","spec":{"identifier":"https://invoices.example.com","name":"Invoices","upstream_url":" https://invoices.internal.example.com ",
		"scopes":["invoices:write","invoices:read"],"credential_provider":"provider://ledger","gateway_application":"  Gateway ",
		"operations":[{"method":"get","path":" /invoices","scope":"invoices:read"},{"method":"POST","path":"/invoices","scope":"invoices:write"}]}},
	{"kind":"application","spec":{"name":"Gateway","traits":["team:b","team:a"]}},
	{"kind":"application","spec":{"name":"Billing"}},
	{"kind":"identity-provider","spec":{"identifier":"provider://ledger","kind":"oauth2_client_credentials","config":{
		"token_endpoint":" https://login.example.com/token ","allowed_token_hosts":["LOGIN.example.com"],"client_id":"caracal","client_secret":"secret-1"}}}]}`

func (z stateZone) plan(t testing.TB, as *rawclient.ClientWithResponses, text string, want code.Code) client.StateReport {
	t.Helper()
	resp, err := as.PlanStateWithResponse(context.Background(), z.zone, nil, document(t, text))
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, want)
	if want != "" {
		return client.StateReport{}
	}
	return *resp.JSON200
}

func (z stateZone) apply(t testing.TB, as *rawclient.ClientWithResponses, text string, want code.Code) client.StateReport {
	t.Helper()
	return z.applyWith(t, as, nil, text, want)
}

func (z stateZone) applyWith(t testing.TB, as *rawclient.ClientWithResponses, params *rawclient.ApplyStateParams, text string, want code.Code) client.StateReport {
	t.Helper()
	resp, err := as.ApplyStateWithResponse(context.Background(), z.zone, params, document(t, text))
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, want)
	if want != "" {
		return client.StateReport{}
	}
	return *resp.JSON200
}

// issuesOf plans a document that is invalid, and returns its issues as "path: message".
func (z stateZone) issuesOf(t testing.TB, as *rawclient.ClientWithResponses, text string) []string {
	t.Helper()
	resp, err := as.PlanStateWithResponse(context.Background(), z.zone, nil, document(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return issues(t, resp)
}

func issues(t testing.TB, resp servertest.Response) []string {
	t.Helper()
	servertest.Expect(t, resp, http.StatusOK, code.InvalidState)
	var p rawclient.Problem
	if err := json.Unmarshal(resp.GetBody(), &p); err != nil || p.Details == nil {
		t.Fatalf("%v: %s", err, resp.GetBody())
	}
	var all []string
	for _, issue := range p.Details.Issues {
		all = append(all, strings.Join(issue.Path, ".")+": "+issue.Message)
	}
	return all
}

// verbs returns what a report says about each object, such as "create Billing".
func verbs(r client.StateReport) []string {
	var all []string
	for _, o := range r.Outcomes {
		all = append(all, strings.TrimSpace(string(o.Action)+" "+o.Identity+" "+strings.Join(o.Drift, ",")))
	}
	return all
}

func expectVerbs(t testing.TB, r client.StateReport, want ...string) {
	t.Helper()
	if got := verbs(r); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// expectInSync fails unless a document has no drift in its zone.
func (z stateZone) expectInSync(t testing.TB, text string) {
	t.Helper()
	if r := z.plan(t, z.Admin, text, ""); r.Drift || !r.OK {
		t.Errorf("still has drift: %q", verbs(r))
	}
}

func outcome(t testing.TB, r client.StateReport, identity string) client.StateOutcome {
	t.Helper()
	i := slices.IndexFunc(r.Outcomes, func(o client.StateOutcome) bool { return o.Identity == identity })
	if i < 0 {
		t.Fatalf("no outcome of %s in %q", identity, verbs(r))
	}
	return r.Outcomes[i]
}

// callStateOperations calls the operations through the client.
func callStateOperations(t *testing.T, c *client.Client, zone string) {
	d := client.StateDocument{Objects: []client.StateObject{{Kind: client.StateKindApplication, Spec: client.StateApplication{Name: "Declared"}}}}
	plan, err := c.PlanState(t.Context(), zone, client.PlanStateParams{}, d)
	if err != nil || !plan.Drift {
		t.Fatalf("got %+v, %v", plan, err)
	}
	applied, err := c.ApplyState(t.Context(), zone, client.ApplyStateParams{}, d)
	if err != nil || applied.PlanID != plan.PlanID || applied.Outcomes[0].ClientSecret == nil {
		t.Errorf("got %+v, %v", applied, err)
	}
	d.Objects[0].Spec = map[string]any{"nam": "x"}
	_, err = c.PlanState(t.Context(), zone, client.PlanStateParams{}, d)
	expectCode(t, err, client.CodeInvalidState)
	exported, err := c.ExportState(t.Context(), zone, client.ExportStateParams{Kinds: []string{"application", "zone"}})
	if err != nil || !strings.Contains(exported, "name: Declared\n") || !strings.Contains(exported, "- kind: zone\n") || strings.Contains(exported, "identity-provider") {
		t.Errorf("got %s, %v", exported, err)
	}
	if schema, err := c.GetStateSchema(t.Context()); err != nil || schema != string(gen.StateSchema) {
		t.Errorf("got %.100s, %v", schema, err)
	}
}
