package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// flagsOf returns flags, of which one is a JSON text.
func flagsOf(name, text, more string) string {
	quoted, _ := json.Marshal(text)
	return fmt.Sprintf(`{%q:%s%s}`, name, quoted, more)
}

func TestControlState(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	z := stateZone{b.API, b.zone}
	report := func(subcommand, flags string) client.StateReport {
		t.Helper()
		raw := b.invoke("state", subcommand, flags)
		servertest.Expect(t, raw, http.StatusOK, "")
		return decode[struct{ Result client.StateReport }](t, raw).Result
	}
	plan := report("plan", flagsOf("document", bootstrapDocument, ""))
	if !plan.DryRun || plan.Summary.Created != 4 || plan.ZoneID != b.zone {
		t.Errorf("got %+v", plan)
	}
	if dry := report("apply", flagsOf("document", bootstrapDocument, `,"dry-run":"true","idempotency-key":"x"`)); !dry.DryRun || dry.PlanID != plan.PlanID {
		t.Errorf("got %+v", dry)
	}
	applied := report("apply", flagsOf("document", bootstrapDocument, ""))
	if applied.PlanID != plan.PlanID || outcome(t, applied, "Billing").ClientSecret == nil || applied.Prune {
		t.Errorf("got %+v", applied)
	}
	if verified := report("verify", flagsOf("document", bootstrapDocument, "")); verified.Drift || !verified.DryRun {
		t.Errorf("got %+v", verified)
	}
	z.expectInSync(t, bootstrapDocument)
	raw := b.invoke("ensure", "application", flagsOf("spec", `{"name":"Ensured","zone_id":"`+b.zone+`","zone":1}`, ""))
	servertest.Expect(t, raw, http.StatusOK, "")
	if o := decode[struct{ Result client.StateReport }](t, raw).Result.Outcomes; len(o) != 1 || o[0].Action != "create" {
		t.Errorf("got %s", raw.Body)
	}
	empty := `{"prune":true,"prune_kinds":["resource"],"objects":[]}`
	if r := report("apply", flagsOf("document", empty, `,"prune":true`)); !r.Prune || r.Summary.Pruned != 1 {
		t.Errorf("got %+v", r)
	}
	for _, actor := range storetest.Column[string](b.DB, "SELECT actor_id FROM audit_entries WHERE zone_id = $1 AND entity_type = 'applications' AND operation IN ('planState', 'applyState')", b.zone) {
		if actor != b.key.ID {
			t.Errorf("a change is recorded as one of %s, not of the key", actor)
		}
	}
}

func TestControlStateWithBestEffort(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	raw := b.invoke("state", "apply", flagsOf("document", partialDocument, `,"mode":"best_effort"`))
	servertest.Expect(t, raw, http.StatusOK, "")
	if r := decode[struct{ Result client.StateReport }](t, raw).Result; r.OK || r.Summary.Failed != 2 || r.Summary.Created != 2 {
		t.Errorf("got %+v", r)
	}
}

func TestControlStateRequiresScopesOfKinds(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	const text = `{"objects":[{"kind":"application","spec":{"name":"x"}}]}`
	reading, writing := client.ControlScopeControlAppRead, client.ControlScopeControlAppWrite
	for _, tt := range []struct {
		name, command, subcommand, flags string
		scopes                           []client.ControlScope
		missing                          string
	}{
		{"plan", "state", "plan", flagsOf("document", text, ""), nil, "control:app:read"},
		{"apply", "state", "apply", flagsOf("document", text, ""), []client.ControlScope{reading}, "control:app:write"},
		{"apply without read", "state", "apply", flagsOf("document", text, ""), []client.ControlScope{writing}, "control:app:read"},
		{"prune", "state", "apply", flagsOf("document", `{"owner":"x",`+text[1:], `,"prune":true`), []client.ControlScope{reading, writing}, "control:app:delete"},
		{"another kind", "ensure", "policy", flagsOf("spec", `{"name":"x"}`, ""), []client.ControlScope{reading, writing}, "control:policy:read"},
		{"a pruned kind", "state", "plan", flagsOf("document", `{"prune":true,"prune_kinds":["resource"],"objects":[]}`, ""), []client.ControlScope{reading}, "control:resource:read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.refused(b.send(b.token(tt.scopes...), invocation(tt.command, tt.subcommand, tt.flags)), code.ControlDenied, "denied", "missing scope "+tt.missing)
		})
	}
	raw := b.send(b.token(reading), invocation("state", "apply", flagsOf("document", text, `,"dry-run":true`)))
	servertest.Expect(t, raw, http.StatusOK, "")
}

func TestControlStateRejectsInvalidDocuments(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	for _, tt := range []struct {
		text string
		want code.Code
		kind string
		why  string
	}{
		{``, code.ControlInvalid, "invalid", `flag "document" is required`},
		{`{`, code.ControlInvalid, "invalid", `flag "document" must be valid JSON`},
		{`{}{}`, code.ControlInvalid, "invalid", `flag "document" must be valid JSON`},
		{`[]`, code.ControlInvalid, "invalid", `document must be a JSON object`},
		{`{}`, code.ControlInvalid, "invalid", `document field "objects" must be an array`},
		{`{"objects":[1]}`, code.ControlInvalid, "invalid", `objects[0] must be an object`},
		{`{"objects":[{}]}`, code.ControlInvalid, "invalid", `objects[0].kind is required`},
		{`{"objects":[{"kind":"widget"}]}`, code.ControlInvalid, "invalid", `unknown object kind "widget"`},
		{`{"objects":[{"kind":"application","spec":null}]}`, code.ControlInvalid, "invalid", `objects[0].spec must be an object`},
		{`{"objects":[{"kind":"zone","spec":{}}]}`, code.ControlDenied, "denied", `kind "zone" is not available through zone-bound Control`},
		{`{"prune":true,"prune_kinds":["widget"],"objects":[]}`, code.ControlInvalid, "invalid", `unknown object kind "widget"`},
		{`{"objects":[{"kind":"application","spec":{"name":"x","zone":"other"}}]}`, code.ControlZoneMismatch, "zone_mismatch", `objects[0] is in zone other, and the token in zone ` + b.zone},
		{`{"objects":[{"kind":"application","spec":{"name":"x","x":1}}]}`, code.ControlInvalid, "invalid", `invalid_state: The document is invalid or contradicts the zone. See details.issues.`},
	} {
		b.refused(b.invoke("state", "plan", flagsOf("document", tt.text, "")), tt.want, tt.kind, tt.why)
	}
	for text, why := range map[string]string{`null`: `spec must be a JSON object`, `[]`: `spec must be a JSON object`, `x`: `flag "spec" must be valid JSON`} {
		b.refused(b.invoke("ensure", "application", flagsOf("spec", text, "")), code.ControlInvalid, "invalid", why)
	}
	b.refused(b.invoke("state", "plan", flagsOf("document", `{"objects":[]}`, `,"dry-run":true`)), code.ControlInvalid, "invalid", `unknown flag "dry-run": the command takes document, prune, mode`)
	raw := b.invoke("ensure", "application", flagsOf("spec", `{"name":"Key","traits":["control:invoke"]}`, ""))
	servertest.Expect(t, raw, 0, code.ControlInvalid)
}
