package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/control"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/controlkey"
	"caracal.run/management/store/storetest"
)

// A controlCase is one way to invoke a subcommand.
type controlCase struct {
	flags  string
	want   string                // a part of the body
	scopes []client.ControlScope // of a document; that of another command is in the catalog
}

// controlCases returns a case of each subcommand that succeeds. Each has objects of its
// own, so that their order does not matter.
func controlCases(t *testing.T, b controlBench) map[string]func() controlCase {
	t.Helper()
	serial := 0
	name := func(what string) string { serial++; return fmt.Sprintf("%s %d", what, serial) }
	app := func() string { return newApplication(t, b.API, b.zone).ID }
	provider := func() string { return b.DB.Provider(b.zone) }
	resource := func() string { return b.DB.Resource(b.zone) }
	grant := func() string { return b.DB.Grant(b.zone, app(), resource()) }
	document := documentOf("x")
	policy := func() (string, string) { return b.DB.Policy(b.zone) }
	set := func() (string, string) {
		_, version := policy()
		return b.DB.PolicySet(b.zone, version)
	}
	flags := func(pairs ...any) string {
		all := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			all[pairs[i].(string)] = pairs[i+1]
		}
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	byID := func(create func() string) func() controlCase {
		return func() controlCase { id := create(); return controlCase{flags: flags("id", id), want: `"ok":true`} }
	}
	first := func(create func() (string, string)) func() string {
		return func() string { id, _ := create(); return id }
	}
	always := func(flags, want string) func() controlCase {
		return func() controlCase { return controlCase{flags: flags, want: want} }
	}
	const kindRead, kindWrite = client.ControlScopeControlAppRead, client.ControlScopeControlAppWrite
	stateDocument := flagsOf("document", `{"objects":[{"kind":"application","spec":{"name":"Declared"}}]}`, "")
	ensured := func(command, spec string) func() controlCase {
		scopes := []client.ControlScope{client.ControlScope("control:" + command + ":read"), client.ControlScope("control:" + command + ":write")}
		return func() controlCase { return controlCase{flagsOf("spec", spec, ""), `"action":"create"`, scopes} }
	}
	return map[string]func() controlCase{
		"state plan": func() controlCase {
			return controlCase{stateDocument, `"dryRun":true`, []client.ControlScope{kindRead}}
		},
		"state verify": func() controlCase {
			return controlCase{stateDocument, `"dryRun":true`, []client.ControlScope{kindRead}}
		},
		"state apply": func() controlCase {
			return controlCase{stateDocument, `"dryRun":false`, []client.ControlScope{kindRead, kindWrite}}
		},

		"ensure application":       ensured("app", `{"name":"Ensured"}`),
		"ensure identity-provider": ensured("identity-provider", `{"identifier":"provider://ensured","kind":"none"}`),
		"ensure policy":            ensured("policy", `{"name":"Ensured","content":"# caracal:data-document\npackage caracal.authz\n\nrestrict := []\n"}`),
		"ensure policy-set":        ensured("policy-set", `{"name":"Ensured"}`),
		"ensure resource": func() controlCase {
			return ensured("resource", fmt.Sprintf(`{"identifier":"https://ensured.example.com","upstream_url":"https://up.example.com","scopes":["read"],"credential_provider_id":%q,"gateway_application_id":%q}`, provider(), app()))()
		},
		"ensure grant": func() controlCase {
			client, resource := app(), resource()
			b.DB.Exec("UPDATE applications SET name = 'Granted' WHERE id = $1", client)
			b.DB.Exec("UPDATE resources SET identifier = 'https://granted.example.com' WHERE id = $1", resource)
			return ensured("grant", `{"application":"Granted","user_id":"ada","resource":"https://granted.example.com","scopes":["read"]}`)()
		},

		"app list": always(`{}`, `"result":[`), "app get": byID(app), "app delete": byID(app),
		"app create": func() controlCase {
			return controlCase{flags: flags("name", name("app")), want: `"client_secret":"cs_`}
		},
		"app patch": func() controlCase {
			return controlCase{flags: flags("id", app(), "name", "Renamed"), want: `"name":"Renamed"`}
		},
		"app dcr": func() controlCase {
			return controlCase{flags: flags("name", name("job"), "expires-in", "60"), want: `"registration_method":"dcr"`}
		},

		"resource list": always(`{}`, `"result":[`), "resource get": byID(resource), "resource delete": byID(resource),
		"resource create": func() controlCase {
			return controlCase{flags: flags("name", name("resource"), "scopes", "read, write", "upstream-url", "https://up.example.com", "gateway-application-id", app(),
				"credential-provider-id", provider(), "operations", `[{"method":"GET","path":"/x","scope":"read"}]`), want: `"scopes":["read","write"]`}
		},
		"resource patch": func() controlCase {
			return controlCase{flags: flags("id", resource(), "name", "Renamed"), want: `"name":"Renamed"`}
		},

		"identity-provider list": always(`{}`, `"result":[`), "identity-provider get": byID(provider), "identity-provider delete": byID(provider),
		"identity-provider create": func() controlCase {
			return controlCase{flags: flags("name", name("provider"), "kind", "api_key", "config", `{"header_name":"X-Key","api_key":"hush-1"}`), want: `"secret_config_keys":["api_key"]`}
		},
		"identity-provider patch": func() controlCase {
			return controlCase{flags: flags("id", provider(), "name", "Renamed"), want: `"name":"Renamed"`}
		},

		"policy list": always(`{}`, `"result":[`), "policy get": byID(first(policy)), "policy delete": byID(first(policy)),
		"policy validate": always(flags("content", document), `"valid":true`),
		"policy create": func() controlCase {
			return controlCase{flags: flags("name", name("policy"), "content", document), want: `"created_by":"key"`}
		},
		"policy version": func() controlCase {
			id, _ := policy()
			return controlCase{flags: flags("id", id, "content", document), want: `"version":2`}
		},

		"policy-set list": always(`{}`, `"result":[`), "policy-set get": byID(first(set)), "policy-set delete": byID(first(set)),
		"policy-set create": func() controlCase { return controlCase{flags: flags("name", name("set")), want: `"created_by":"key"`} },
		"policy-set simulate": func() controlCase {
			id, version := set()
			return controlCase{flags: flags("id", id, "version", version, "input", `{}`), want: `"ok":true`}
		},
		"policy-set version": func() controlCase {
			id, _ := set()
			_, version := policy()
			return controlCase{flags: flags("id", id, "policy-versions", []string{version}), want: `"ok":true`}
		},
		"policy-set activate": func() controlCase {
			id, version := set()
			return controlCase{flags: flags("id", id, "version", version), want: `"activated":true`}
		},

		"catalog describe": always(`{}`, `"control:grant:read"`),
		"session list":     always(flags("subject", "user-1", "status", "active", "limit", 5), `"result":[`),
		"audit tail":       always(flags("decision", "deny"), `"result":[`),
		"explain ": func() controlCase {
			request := name("request-")[:8]
			b.DB.AuditEvent(b.zone, map[string]any{"request_id": request, "decision": "deny"})
			return controlCase{flags: flags("request-id", request), want: `"final_decision":"deny"`}
		},

		"grant list": always(flags("user-id", "user-1"), `"result":[`), "grant get": byID(grant), "grant revoke": byID(grant),
		"grant create": func() controlCase {
			return controlCase{flags: flags("application-id", app(), "user-id", "user-9", "resource-id", resource(), "scopes", []string{"read"}), want: `"user_id":"user-9"`}
		},
	}
}

// Each command of the catalog runs with its scope, and is denied with all others.
func TestInvokeControlEveryCommand(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	cases := controlCases(t, b)
	for _, c := range control.Commands {
		for _, s := range c.Subcommands {
			name := c.Name + " " + s.Name
			make := cases[name]
			if make == nil {
				t.Errorf("%s has no case", name)
				continue
			}
			delete(cases, name)
			t.Run(name, func(t *testing.T) {
				b := b
				b.t = t
				tt := make()
				only := append([]client.ControlScope{}, tt.scopes...)
				if s.Scope != "" {
					only = append(only, client.ControlScope(s.Scope))
				}
				for _, required := range only {
					others := slices.DeleteFunc(everyControlScope(), func(scope client.ControlScope) bool { return scope == required })
					b.refused(b.send(b.token(others...), invocation(c.Name, s.Name, tt.flags)), code.ControlDenied, "denied", "missing scope "+string(required))
					if !controlkey.IsScope(string(required)) {
						t.Errorf("no key can have the scope %s", required)
					}
				}
				raw := b.send(b.token(only...), invocation(c.Name, s.Name, tt.flags))
				servertest.Expect(t, raw, http.StatusOK, "")
				if !strings.Contains(string(raw.Body), tt.want) {
					t.Errorf("got %s, want %s", raw.Body, tt.want)
				}
			})
		}
	}
	for name := range cases {
		t.Errorf("%s is not in the catalog", name)
	}
}

// What a command does is recorded as the doing of the key, in one audit entry.
func TestInvokeControlIsAudited(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	raw := b.invoke("app", "create", `{"name":"Billing","idempotency-key":"once"}`)
	servertest.Expect(t, raw, http.StatusOK, "")
	id := decode[struct{ Result struct{ ID string } }](t, raw).Result.ID
	entry := storetest.Value[string](b.DB, `SELECT concat_ws(' | ', operation, method, path, entity_type, actor_id, actor_name, actor_scope, status_code)
		FROM audit_entries WHERE entity_id = $1`, id)
	want := "createApplication | POST | /v1/control/invoke | applications | " + b.key.ID + " | key | zone | 201"
	if entry != want {
		t.Errorf("got  %s\nwant %s", entry, want)
	}
	requestID := raw.Response.Header.Get("X-Request-Id")
	eventually(t, "the audit event is stored", func() bool {
		return storetest.Value[int](b.DB, "SELECT count(*) FROM audit_events WHERE request_id = $1", requestID) == 1
	})
	var metadata map[string]any
	event := storetest.Value[string](b.DB, "SELECT event_type || ' ' || decision || ' ' || zone_id FROM audit_events WHERE request_id = $1", requestID)
	if err := json.Unmarshal([]byte(storetest.Value[string](b.DB, "SELECT metadata FROM audit_events WHERE request_id = $1", requestID)), &metadata); err != nil {
		t.Fatal(err)
	}
	if event != "control.invoke allow "+b.zone || metadata["subject"] != b.key.ID || metadata["outcome"] != "applied" || metadata["idempotency_key"] != "once" ||
		metadata["command"] != "app" || fmt.Sprint(metadata["object_ids"]) != "["+id+"]" {
		t.Errorf("got %s with %v", event, metadata)
	}
}

// Commands that no handler has, and flags that none takes, are errors that say so.
func TestInvokeControlRefusesCommandsAndFlags(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	object := b.zone // any ID
	for _, tt := range []struct {
		body   string
		want   code.Code
		reason string
	}{
		{`{}`, code.ControlDenied, `unknown command ""`},
		{`{"command":"apps"}`, code.ControlDenied, `unknown command "apps"`},
		{`{"command":"zone","subcommand":"list"}`, code.ControlDenied, `command "zone" is not available through zone-bound Control`},
		{`{"command":"doctor"}`, code.ControlDenied, `command "doctor" is not available through zone-bound Control`},
		{`{"command":"debug"}`, code.ControlDenied, `command "debug" not exposed`},
		{`{"command":"agent","subcommand":"list"}`, code.ControlDenied, `command "agent" not exposed`},
		{`{"command":"control"}`, code.ControlDenied, `command "control" is available only on the local control plane`},
		{`{"command":"app","subcommand":"drop"}`, code.ControlDenied, `subcommand "drop" not allowed for "app"`},
		{`{"command":"app"}`, code.ControlDenied, `subcommand "" not allowed for "app"`},
		{`{"command":"explain","subcommand":"get"}`, code.ControlDenied, `command "explain" takes no subcommand`},
		{`{"command":"state","subcommand":"plan"}`, code.ControlInvalid, `flag "document" is required`},
		{`{"command":"ensure","subcommand":"policy"}`, code.ControlInvalid, `flag "spec" is required`},
		{invocation("app", "get", `{}`), code.ControlInvalid, `flag "id" is required`},
		{invocation("app", "get", `{"id":""}`), code.ControlInvalid, `flag "id" is required`},
		{invocation("app", "get", `{"id":7}`), code.ControlInvalid, `flag "id" must be of kind text`},
		{invocation("app", "list", `{"limit":"many"}`), code.ControlInvalid, `flag "limit" must be of kind number`},
		{invocation("app", "list", `{"limit":0}`), code.ControlInvalid, `invalid_query: One or more query parameters are invalid. See details.issues.`},
		{invocation("app", "list", `{"all":true}`), code.ControlInvalid, `unknown flag "all": the command takes limit, cursor`},
		{invocation("app", "create", `{"name":"x","--name":"y"}`), code.ControlInvalid, `unknown flag "--name": the command takes name, idempotency-key`},
		{invocation("catalog", "describe", `{"x":1}`), code.ControlInvalid, `unknown flag "x": the command takes no flags`},
		{invocation("identity-provider", "create", `{"name":"x","kind":"none","config":"{"}`), code.ControlInvalid, `flag "config" must be text that contains a JSON object`},
		{invocation("resource", "create", `{"operations":"{}"}`), code.ControlInvalid, `flag "operations" must be text that contains a JSON array`},
		{invocation("resource", "create", `{"scopes":[1]}`), code.ControlInvalid, `flag "scopes" must be of kind list`},
		{invocation("resource", "create", `{"scopes":[[]]}`), code.ControlInvalid, `flag "scopes" unsupported array element`},
		{invocation("resource", "create", `{"scopes":{}}`), code.ControlInvalid, `flag "scopes" has unsupported type`},
		{invocation("resource", "create", `{"scopes":[`+strings.Repeat(`"a",`, 64)+`"a"]}`), code.ControlInvalid, `flag "scopes" array too long`},
		{invocation("app", "create", `{"name":"`+strings.Repeat("x", 32769)+`"}`), code.ControlInvalid, `flag "name" string too long`},
		{invocation("app", "create", `{"":1}`), code.ControlInvalid, `flag key "" out of range`},
		{invocation("app", "create", `{"name":"`+strings.Repeat("x", 201)+`"}`), code.ControlInvalid, `invalid_application: The application is invalid. See details.issues.`},
		{invocation("app", "get", `{"id":"`+object+`"}`), code.ControlNotFound, `application_not_found: Application not found in this zone.`},
	} {
		status := code.Table[tt.want].Status
		kind := map[int]string{400: "invalid", 403: "denied", 404: "not_found"}[status]
		b.refused(b.send(b.token(everyControlScope()...), tt.body), tt.want, kind, tt.reason)
	}
}

func TestInvokeControlWithManyFlags(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	var many []string
	for i := range 5000 {
		many = append(many, fmt.Sprintf(`"%d":1`, i))
	}
	b.refused(b.send(b.token(), invocation("app", "list", "{"+strings.Join(many, ",")+"}")), code.ControlInvalid, "invalid", "too many flags (max 32)")
	many = append(many, many...)
	b.refusedAndRecorded(b.send(b.token(), invocation("app", "list", "{"+strings.Join(many, ",")+"}")), code.PayloadTooLarge)
	b.refusedAndRecorded(b.send(b.token(), `{"command":`), code.InvalidJSON)
	huge := invocation("app", "list", `{"x":"`+strings.Repeat("x", control.MaxBodyBytes)+`"}`)
	servertest.Expect(t, b.send(b.token(), huge), 0, code.PayloadTooLarge)
}

// refusedAndRecorded checks the error of a request that is no invocation, and its audit event.
func (b controlBench) refusedAndRecorded(raw servertest.RawResponse, want code.Code) {
	b.t.Helper()
	servertest.Expect(b.t, raw, 0, want)
	b.expectOutcome(raw, "deny denied")
	if reason := storetest.Value[string](b.DB, "SELECT metadata::jsonb ->> 'reason' FROM audit_events WHERE request_id = $1", raw.Header.Get("X-Request-Id")); reason != string(want) {
		b.t.Errorf("the reason is %q, want %q", reason, want)
	}
}

// A flag that is like a path reaches no other zone.
func TestInvokeControlPathsInFlags(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	other := b.Zone().ID
	theirs := newApplication(t, b.API, other).ID
	before := everythingOf(b.DB, other)
	identifying := []string{"id", "request-id", "application-id", "resource-id", "gateway-application-id", "credential-provider-id", "version", "shadow", "policy-versions"}
	for _, c := range control.Commands {
		for _, s := range c.Subcommands {
			for _, f := range s.Flags {
				if !slices.Contains(identifying, f.Name) {
					continue
				}
				for _, value := range []string{
					"../../" + other, "..", ".", "/", other + "/applications/" + theirs, "..%2f..%2f" + other, "%2e%2e%2f" + other, "%252e%252e%252f" + other,
					`..\\` + other, "x?zone_id=" + other, "x#" + other, theirs + "\u0000", " " + theirs, strings.Repeat("x", 129),
				} {
					if f.Kind == control.List && strings.HasPrefix(value, " ") {
						continue // texts of a list are trimmed
					}
					flags := map[string]any{f.Name: value}
					for _, required := range s.Flags {
						if required.Required && required.Name != f.Name {
							flags[required.Name] = "x"
						}
					}
					text, err := json.Marshal(flags)
					if err != nil {
						t.Fatal(err)
					}
					raw := b.invoke(c.Name, s.Name, string(text))
					servertest.Expect(t, raw, 0, code.ControlInvalid)
				}
			}
		}
	}
	b.refused(b.invoke("app", "delete", `{"id":"`+theirs+`"}`), code.ControlNotFound, "not_found", "application_not_found: Application not found in this zone.")
	if after := everythingOf(b.DB, other); after != before {
		t.Errorf("the other zone was\n%s\nand is\n%s", before, after)
	}
}

// A Control key cannot give itself, or another key, more than it has.
func TestInvokeControlCannotEscalate(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	forbidden := `trait_forbidden: trait namespace 'control' requires global admin scope`
	for _, tt := range [][2]string{
		{"patch", `{"id":"` + b.key.ID + `","client-secret":"a-secret-of-my-own"}`},
		{"patch", `{"id":"` + b.key.ID + `","name":"x"}`},
		{"delete", `{"id":"` + b.key.ID + `"}`},
	} {
		b.refused(b.invoke("app", tt[0], tt[1]), code.ControlDenied, "denied", forbidden)
	}
	if got := b.result("app", "get", `{"id":"`+b.key.ID+`"}`); got["traits"] != nil {
		t.Errorf("got %v", got)
	}
	resource := storetest.Value[string](b.DB, "SELECT id FROM resources WHERE zone_id = $1 AND identifier = $2", b.zone, controlAudience)
	b.refused(b.invoke("resource", "get", `{"id":"`+resource+`"}`), code.ControlNotFound, "not_found", "resource_not_found: Resource not found in this zone.")
	b.refused(b.invoke("app", "create", `{"name":"caracal.sys/x"}`), code.ControlConflict, "conflict", controlReason(t, b.invoke("app", "create", `{"name":"caracal.sys/x"}`)))
}

func controlReason(t *testing.T, raw servertest.RawResponse) string {
	t.Helper()
	return decode[struct{ Error struct{ Reason string } }](t, raw).Error.Reason
}

func TestInvokeControlPages(t *testing.T) {
	t.Parallel()
	b := newControlBench(t)
	want := []string{b.key.ID}
	for range 4 {
		want = append([]string{newApplication(t, b.API, b.zone).ID}, want...)
	}
	b.DB.Session(b.zone)
	b.DB.Session(b.zone)
	follow := func(command, subcommand string) (ids []string) {
		t.Helper()
		cursor := ""
		for range 10 {
			flags := `{"limit":2}`
			if cursor != "" {
				flags = `{"limit":"2","cursor":"` + cursor + `"}`
			}
			raw := b.invoke(command, subcommand, flags)
			servertest.Expect(t, raw, http.StatusOK, "")
			page := decode[struct {
				Result     []struct{ ID string }
				NextCursor string `json:"next_cursor"`
			}](t, raw)
			for _, item := range page.Result {
				ids = append(ids, item.ID)
			}
			if cursor = page.NextCursor; cursor == "" {
				return ids
			}
		}
		t.Fatal("the list has no end")
		return nil
	}
	if got := follow("app", "list"); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := follow("session", "list"); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}
