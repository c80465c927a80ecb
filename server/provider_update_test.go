package server_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// Clients send back what they have read, with a change, and members that the
// service has never known: the contract ignores them.
func TestUpdateProviderAcceptsWhatGetReturned(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	created := newProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "api_key", ConfigJSON: rawConfig(keyConfig)})
	headers := append(bearer(servertest.Bootstrap), "Content-Type", jsonType)
	for _, item := range []string{"/v1/zones/" + zone + "/providers/" + created.ID, "/v1/zones/" + zone + "/resources/" + a.DB.Resource(zone)} {
		whole := decode[map[string]any](t, a.Do("GET", item, "", headers...))
		whole["name"], whole["owner_type"], whole["prefix"], whole["CONFIG_JSON"] = "Renamed", "team", "/x", map[string]any{"api_key": "hush"}
		body, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		raw := a.Do("PATCH", item, string(body), headers...)
		servertest.Expect(t, raw, http.StatusOK, "")
		for _, unknown := range []string{"owner_type", "prefix", "CONFIG_JSON"} {
			delete(whole, unknown)
		}
		resp := decode[map[string]any](t, raw)
		whole["updated_at"] = resp["updated_at"]
		if !reflect.DeepEqual(resp, whole) {
			t.Errorf("it was to be %v and is %v", whole, resp)
		}
	}
	if opened := openedSecrets(t, a.DB, zone, created.ID); opened != `{"api_key":"hush-key"}` {
		t.Errorf("its secret is %s", opened)
	}
}

func TestUpdateProvider(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other, system, archivedZone := a.Zone().ID, a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	archived, ofOtherZone, ofSystemZone := a.DB.Provider(zone), a.DB.Provider(other), a.DB.Provider(system)
	servertest.Expect(t, deleteProvider(t, a.Admin, zone, archived), http.StatusNoContent, "")
	newProvider(t, a, zone, client.NewProvider{Identifier: new("provider://taken"), Kind: "none"})
	reserved := newProvider(t, a, zone, client.NewProvider{Identifier: new("provider://caracal-sys-own"), Kind: "api_key", ConfigJSON: rawConfig(keyConfig)}).ID
	named := client.ProviderPatch{Name: new(" Renamed\u00a0")}
	identified := func(identifier string) client.ProviderPatch { return client.ProviderPatch{Identifier: &identifier} }
	configured := func(kind, config string) (p client.ProviderPatch) {
		if kind != "" {
			p.Kind = new(client.ProviderKind(kind))
		}
		if config != "" {
			p.ConfigJSON = rawConfig(config)
		}
		return p
	}
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string // id "": a new provider of the kind api_key
		body     client.ProviderPatch
		want     code.Code
	}{
		{"name", a.Admin, zone, "", named, ""},
		{"name, by a zone token", a.ClientFor(zone, "write"), zone, "", named, ""},
		{"name, the identifier blank", a.Admin, zone, "", client.ProviderPatch{Name: new("Renamed"), Identifier: new(" ")}, ""},
		{"identifier", a.Admin, zone, "", identified(" provider://new-1"), ""},
		{"identifier of another zone's", a.Admin, zone, "", identified("provider://provider-1"), ""},
		{"identifier, the name blank", a.Admin, zone, "", client.ProviderPatch{Name: new("\ufeff"), Identifier: new("provider://new-2")}, ""},
		{"identifier malformed", a.Admin, zone, "", identified("provider://A"), code.InvalidProviderIdentifier},
		{"identifier malformed, of nothing", a.Admin, zone, "unknown", identified("a"), code.InvalidProviderIdentifier},
		{"identifier taken", a.Admin, zone, "", identified("provider://taken"), code.ProviderIdentifierConflict},
		{"identifier reserved", a.Admin, zone, "", identified("provider://caracal-sys-x"), ""},
		{"identifier reserved, not bootstrap", a.ClientFor("", "write"), zone, "", identified("provider://caracal-sys-y"), code.ReservedNamespace},
		{"identifier reserved as it was, not bootstrap", a.ClientFor("", "write"), zone, reserved, identified("provider://caracal-sys-own"), code.ReservedNamespace},
		{"name of one that has a reserved identifier", a.ClientFor("", "write"), zone, reserved, named, code.ReservedNamespace},
		{"name too long", a.Admin, zone, "", client.ProviderPatch{Name: new(strings.Repeat("x", 1001))}, code.InvalidProvider},
		{"kind unheard of", a.Admin, zone, "", configured("basic", "{}"), code.InvalidProvider},
		{"another kind", a.Admin, zone, "", configured("bearer_token", bearerConfig), ""},
		{"another kind without its configuration", a.Admin, zone, "", configured("none", ""), code.ProviderConfigRequired},
		{"another kind and the old configuration", a.Admin, zone, "", configured("bearer_token", keyConfig), code.InvalidProviderConfig},
		{"the same kind", a.Admin, zone, "", configured("api_key", ""), code.NoFields},
		{"the same kind and a name", a.Admin, zone, "", client.ProviderPatch{Kind: new(client.ProviderKindAPIKey), Name: new("x")}, ""},
		{"configuration", a.Admin, zone, "", configured("", `{"header_name":"X"}`), ""},
		{"configuration of another kind", a.Admin, zone, "", configured("", bearerConfig), code.InvalidProviderConfig},
		{"nothing", a.Admin, zone, "", client.ProviderPatch{}, code.NoFields},
		{"nothing that is not blank", a.Admin, zone, "", client.ProviderPatch{Name: new(" "), Identifier: new("\t")}, code.NoFields},
		{"nothing, of nothing", a.Admin, zone, "unknown", client.ProviderPatch{}, code.NoFields},
		{"unknown", a.Admin, zone, "unknown", named, code.ProviderNotFound},
		{"unknown, its configuration", a.Admin, zone, "unknown", configured("", "{}"), code.ProviderNotFound},
		{"archived", a.Admin, zone, archived, named, code.ProviderNotFound},
		{"archived, its configuration", a.Admin, zone, archived, configured("none", "{}"), code.ProviderNotFound},
		{"of another zone", a.Admin, zone, ofOtherZone, named, code.ProviderNotFound},
		{"zone unknown", a.Admin, "nowhere", "unknown", named, code.ZoneNotFound},
		{"zone unknown, the configuration", a.Admin, "nowhere", "unknown", configured("", "{}"), code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, "unknown", named, code.ZoneNotFound},
		{"token of another zone", a.ClientFor(other, "write"), zone, "", named, code.AdminTokenZoneMismatch},
		{"read token", a.ClientFor("", "read"), zone, "", named, code.AdminTokenReadOnly},
		{"system zone", a.Admin, system, "", named, ""},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system, ofSystemZone, named, code.SystemZoneReadOnly},
		{"system zone, the configuration, not bootstrap", a.ClientFor("", "write"), system, ofSystemZone, configured("", "{}"), code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rejectedBeforeRead := tt.want != "" && tt.id != "" // what there is not cannot be read before and after
			if tt.id == "" {
				tt.id = newProvider(t, a, tt.zone, client.NewProvider{Name: &tt.name, Kind: "api_key", ConfigJSON: rawConfig(keyConfig)}).ID
			}
			if rejectedBeforeRead {
				servertest.Expect(t, updateProvider(t, tt.as, tt.zone, tt.id, tt.body), 0, tt.want)
				return
			}
			want := readProvider(t, a.Admin, tt.zone, tt.id)
			resp := updateProvider(t, tt.as, tt.zone, tt.id, tt.body)
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			now := readProvider(t, a.Admin, tt.zone, tt.id)
			if tt.want == "" {
				if !reflect.DeepEqual(now, *resp.JSON200) || now.UpdatedAt.Before(want.UpdatedAt) {
					t.Errorf("answered %+v, then read %+v", resp.JSON200, now)
				}
				if name := strings.Trim(*cmp.Or(tt.body.Name, new("")), " \u00a0\ufeff"); name != "" {
					want.Name = name
				}
				if identifier := strings.TrimSpace(*cmp.Or(tt.body.Identifier, new(""))); identifier != "" {
					want.Identifier = identifier
				}
				want.Kind = *cmp.Or(tt.body.Kind, &want.Kind)
				if tt.body.ConfigJSON != nil { // what becomes of it has a test of its own
					want.ConfigJSON, want.SecretConfigKeys = now.ConfigJSON, now.SecretConfigKeys
				}
				want.UpdatedAt = now.UpdatedAt
			}
			if !reflect.DeepEqual(now, want) {
				t.Errorf("it is %+v, want %+v", now, want)
			}
		})
	}
}

// A fate is what a change does to what is sealed.
type fate string

const (
	kept     fate = "kept"     // the very same bytes
	replaced fate = "replaced" // other bytes
	erased   fate = "erased"   // none
)

func TestUpdateProviderKeepsOrErasesSecrets(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	basic := `{` + clientPublic + `,"client_auth_method":"client_secret_basic"`
	open := `{` + clientPublic + `,"client_auth_method":"none"`
	byKey := `{` + clientPublic + `,"client_auth_method":"private_key_jwt"`
	withParams := basic + `,"client_secret":"hush-client","token_params":{"tenant":"acme","password":"hush-p"}}`
	params, bothSealed, both := basic+`,"token_params":{"tenant":"acme"}}`, `{"client_secret":"hush-client","token_params.password":"hush-p"}`, []string{"client_secret", "token_params.password"}
	elsewhere := strings.ReplaceAll(basic, "login.example.com", "id.example.com")
	withKey := strings.Replace(basic, "/token", "/token?key=hush-k", 1) + `,"client_secret":"hush-client"}`
	for _, tt := range []struct {
		name         string
		kind         client.ProviderKind
		before       string
		becomes      client.ProviderKind // "" is not sent
		config       string              // "" is not sent
		fate         fate
		public, seal string
		keys         []string
	}{
		{"no secret sent", "api_key", keyConfig, "", `{"header_name":"X"}`, kept, `{"auth_location":"header","header_name":"X"}`, `{"api_key":"hush-key"}`, []string{"api_key"}},
		{"another place for the key", "api_key", keyConfig, "", `{"auth_location":"query","query_param_name":"k"}`, kept, `{"auth_location":"query","query_param_name":"k"}`, `{"api_key":"hush-key"}`, []string{"api_key"}},
		{"a secret sent", "api_key", keyConfig, "", `{"header_name":"X","api_key":"hush-2"}`, replaced, `{"auth_location":"header","header_name":"X"}`, `{"api_key":"hush-2"}`, []string{"api_key"}},
		{"the same secret sent", "api_key", keyConfig, "", keyConfig, replaced, `{"auth_location":"header","header_name":"X-Api-Key"}`, `{"api_key":"hush-key"}`, []string{"api_key"}},
		{"the configuration replaced whole", "bearer_token", `{"bearer_token":"hush","auth_header":"X","auth_scheme":"Y"}`, "", `{"auth_scheme":"Z"}`, kept, `{"auth_scheme":"Z"}`, `{"bearer_token":"hush"}`, []string{"bearer_token"}},
		{"the configuration emptied", "bearer_token", `{"bearer_token":"hush","auth_header":"X"}`, "", `{}`, kept, `{}`, `{"bearer_token":"hush"}`, []string{"bearer_token"}},
		{"the same kind said, no secret sent", "api_key", keyConfig, "api_key", `{"header_name":"X"}`, kept, `{"auth_location":"header","header_name":"X"}`, `{"api_key":"hush-key"}`, []string{"api_key"}},
		{"the same kind said, a secret sent", "api_key", keyConfig, "api_key", `{"header_name":"X","api_key":"hush-2"}`, replaced, `{"auth_location":"header","header_name":"X"}`, `{"api_key":"hush-2"}`, []string{"api_key"}},
		{"the same kind said, of one that has nothing", "none", `{}`, "none", `{}`, erased, `{}`, ``, []string{}},
		{"another kind that has no secrets", "api_key", keyConfig, "none", `{}`, erased, `{}`, ``, []string{}},
		{"another kind with its secret", "api_key", keyConfig, "bearer_token", bearerConfig, replaced, `{}`, `{"bearer_token":"hush-bearer"}`, []string{"bearer_token"}},
		{"from nothing to a secret", "none", `{}`, "bearer_token", bearerConfig, replaced, `{}`, `{"bearer_token":"hush-bearer"}`, []string{"bearer_token"}},
		{"another kind whose secret has the same name", "oauth2_client_credentials", clientConfig, "oauth2_authorization_code", codeConfig, replaced, `{` + codePublic + `,"client_auth_method":"client_secret_basic"}`, `{"client_secret":"hush-code"}`, []string{"client_secret"}},
		{"another kind that needs no secret now", "oauth2_client_credentials", clientConfig, "oauth2_authorization_code", `{` + codePublic + `,"client_auth_method":"none"}`, erased, `{` + codePublic + `,"client_auth_method":"none"}`, ``, []string{}},
		{"another method for the same secret", "oauth2_client_credentials", clientConfig, "", `{` + clientPublic + `,"client_auth_method":"client_secret_post"}`, kept, `{` + clientPublic + `,"client_auth_method":"client_secret_post"}`, `{"client_secret":"hush-client"}`, []string{"client_secret"}},
		{"another method with its secret", "oauth2_client_credentials", clientConfig, "", byKey + `,"private_key":"` + pemKey + `"}`, replaced, byKey + `}`, `{"private_key":"` + pemKey + `"}`, []string{"private_key"}},
		{"the method that needs no secret", "oauth2_client_credentials", clientConfig, "", open + `}`, erased, open + `}`, ``, []string{}},
		{"the method that needs no secret, the kind said", "oauth2_client_credentials", clientConfig, "oauth2_client_credentials", open + `}`, erased, open + `}`, ``, []string{}},
		{"the method that needs no secret, and one all the same", "oauth2_client_credentials", clientConfig, "", open + `,"client_secret":"hush-2"}`, replaced, open + `}`, `{"client_secret":"hush-2"}`, []string{"client_secret"}},
		{"what was read sent back", "oauth2_client_credentials", withParams, "", params, kept, params, bothSealed, both},
		{"a secret, a parameter kept", "oauth2_client_credentials", withParams, "", basic + `,"client_secret":"hush-2","token_params":{}}`, replaced, basic + `,"token_params":{}}`, `{"client_secret":"hush-2","token_params.password":"hush-p"}`, both},
		{"a parameter, a secret kept", "oauth2_client_credentials", withParams, "", basic + `,"token_params":{"password":"hush-3"}}`, replaced, basic + `,"token_params":{}}`, `{"client_secret":"hush-client","token_params.password":"hush-3"}`, both},
		{"the parameters removed", "oauth2_client_credentials", withParams, "", basic + `}`, replaced, basic + `}`, `{"client_secret":"hush-client"}`, []string{"client_secret"}},
		{"everything removed", "oauth2_client_credentials", withParams, "", open + `}`, erased, open + `}`, ``, []string{}},
		{"a key in the URL, the same URL", "oauth2_client_credentials", withKey, "", basic + `,"client_secret":"hush-2"}`, replaced, basic + `}`, `{"client_secret":"hush-2","token_endpoint.key":"hush-k"}`, []string{"client_secret", "token_endpoint.key"}},
		{"a key in the URL, another URL", "oauth2_client_credentials", withKey, "", strings.Replace(basic, "/token", "/other", 1) + `}`, replaced, strings.Replace(basic, "/token", "/other", 1) + `}`, `{"client_secret":"hush-client"}`, []string{"client_secret"}},
		{"another host and its secret", "oauth2_client_credentials", withParams, "", elsewhere + `,"client_secret":"hush-2","token_params":{}}`, replaced, elsewhere + `,"token_params":{}}`, `{"client_secret":"hush-2"}`, []string{"client_secret"}},
		{"a parameter in another spelling", "oauth2_client_credentials", withParams, "", basic + `,"token_params":{"PASSWORD":"hush-3"}}`, replaced, basic + `,"token_params":{}}`, `{"client_secret":"hush-client","token_params.PASSWORD":"hush-3"}`, []string{"client_secret", "token_params.PASSWORD"}},
		{"another key in the same URL", "oauth2_client_credentials", withKey, "", strings.Replace(basic, "/token", "/token?api_key=hush-3", 1) + `}`, replaced, basic + `}`, `{"client_secret":"hush-client","token_endpoint.api_key":"hush-3"}`, []string{"client_secret", "token_endpoint.api_key"}},
		{"the method that needs one again", "oauth2_client_credentials", open + `}`, "", basic + `,"client_secret":"hush-2"}`, replaced, basic + `}`, `{"client_secret":"hush-2"}`, []string{"client_secret"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := newProvider(t, a, zone, client.NewProvider{Name: &tt.name, Kind: tt.kind, ConfigJSON: rawConfig(tt.before)})
			before := sealedSecrets(a.DB, zone, created.ID)
			var patch client.ProviderPatch
			if tt.becomes != "" {
				patch.Kind = &tt.becomes
			}
			if tt.config != "" {
				patch.ConfigJSON = rawConfig(tt.config)
			}
			resp := updateProvider(t, a.Admin, zone, created.ID, patch)
			servertest.Expect(t, resp, http.StatusOK, "")
			after, now := sealedSecrets(a.DB, zone, created.ID), readProvider(t, a.Admin, zone, created.ID)
			got := replaced
			switch {
			case after == nil:
				got = erased
			case bytes.Equal(before, after):
				got = kept
			}
			if opened := openedSecrets(t, a.DB, zone, created.ID); got != tt.fate || opened != tt.seal {
				t.Errorf("what was sealed is %s and is %s now, want %s and %s", got, opened, tt.fate, tt.seal)
			}
			kind := tt.kind
			if tt.becomes != "" {
				kind = tt.becomes
			}
			if now.Kind != kind || !equalJSON(t, now.ConfigJSON, []byte(tt.public)) || !slices.Equal(now.SecretConfigKeys, tt.keys) || now.SecretConfigKeys == nil {
				t.Errorf("it is %+v with %s", now, now.ConfigJSON)
			}
			if bytes.Contains(resp.Body, []byte(secretMarker)) || bytes.Contains(after, []byte(secretMarker)) {
				t.Error("a secret shows")
			}
		})
	}
}

func TestUpdateProviderRequiresSecretsOfTheKind(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	open := `{` + clientPublic + `,"client_auth_method":"none"`
	byKey := `{` + clientPublic + `,"client_auth_method":"private_key_jwt"`
	for _, tt := range []struct {
		name    string
		kind    client.ProviderKind
		before  string
		becomes client.ProviderKind
		config  string
		want    string // what is told, after the kind
		path    string
	}{
		{"from none to basic", "oauth2_client_credentials", open + `}`, "", `{` + clientPublic + `}`, "requires client_secret", "client_secret"},
		{"from none to post, the kind said", "oauth2_client_credentials", open + `}`, "oauth2_client_credentials", `{` + clientPublic + `,"client_auth_method":"client_secret_post"}`, "requires client_secret", "client_secret"},
		{"from none, where one was sealed in vain", "oauth2_client_credentials", open + `,"client_secret":"hush"}`, "", byKey + `}`, "requires private_key", "private_key"},
		{"from basic to a key", "oauth2_client_credentials", clientConfig, "", byKey + `}`, "requires private_key", "private_key"},
		{"from a key to basic", "oauth2_client_credentials", byKey + `,"private_key":"` + pemKey + `"}`, "", `{` + clientPublic + `}`, "requires client_secret", "client_secret"},
		{"of a person", "oauth2_authorization_code", `{` + codePublic + `,"client_auth_method":"none"}`, "", `{` + codePublic + `}`, "requires client_secret", "client_secret"},
		{"of another kind", "oauth2_client_credentials", clientConfig, "oauth2_authorization_code", `{` + codePublic + `}`, "requires client_secret", "client_secret"},
		{"of another host", "oauth2_client_credentials", clientConfig, "", strings.ReplaceAll(`{`+clientPublic+`}`, "login.example.com", "id.example.com"), "requires client_secret", "client_secret"},
		{"the wrong one", "oauth2_client_credentials", clientConfig, "", byKey + `,"client_secret":"hush-2"}`, "client_secret is not used with private_key_jwt", "client_secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := newProvider(t, a, zone, client.NewProvider{Name: &tt.name, Kind: tt.kind, ConfigJSON: rawConfig(tt.before)})
			sealed := openedSecrets(t, a.DB, zone, created.ID)
			patch, kind := client.ProviderPatch{ConfigJSON: rawConfig(tt.config)}, tt.kind
			if tt.becomes != "" {
				patch.Kind, kind = &tt.becomes, tt.becomes
			}
			resp := updateProvider(t, a.Admin, zone, created.ID, patch)
			servertest.Expect(t, resp, 0, code.InvalidProviderConfig)
			expectMessage(t, resp, string(kind)+" provider config "+tt.want, "config_json", tt.path)
			if now := readProvider(t, a.Admin, zone, created.ID); !reflect.DeepEqual(now, created) || openedSecrets(t, a.DB, zone, created.ID) != sealed {
				t.Errorf("it was refused and is %+v", now)
			}
		})
	}
}

func TestUpdateProviderIfMatch(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	created, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("First"), Kind: "api_key", ConfigJSON: rawConfig(keyConfig)})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, created, http.StatusCreated, "")
	id, first := created.JSON201.ID, created.HTTPResponse.Header.Get("ETag")
	update := func(ifMatch string, body client.ProviderPatch) *rawclient.UpdateProviderResponse {
		t.Helper()
		resp, err := a.Admin.UpdateProviderWithResponse(t.Context(), zone, id, &rawclient.UpdateProviderParams{IfMatch: &ifMatch}, body)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	remove := func(ifMatch string) servertest.Response {
		t.Helper()
		resp, err := a.Admin.DeleteProviderWithResponse(t.Context(), zone, id, &rawclient.DeleteProviderParams{IfMatch: &ifMatch})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	changed := update(first, client.ProviderPatch{Name: new("Second")})
	servertest.Expect(t, changed, http.StatusOK, "")
	second := changed.HTTPResponse.Header.Get("ETag")
	sealed := sealedSecrets(a.DB, zone, id)
	servertest.Expect(t, update(first, client.ProviderPatch{Name: new("Third")}), 0, code.VersionConflict)
	servertest.Expect(t, update(first, client.ProviderPatch{ConfigJSON: rawConfig(keyConfig)}), 0, code.VersionConflict)
	servertest.Expect(t, update(first, client.ProviderPatch{Kind: new(client.ProviderKind("none")), ConfigJSON: rawConfig(`{}`)}), 0, code.VersionConflict)
	servertest.Expect(t, remove(first), 0, code.VersionConflict)
	if got := readProvider(t, a.Admin, zone, id); got.Name != "Second" || got.Kind != "api_key" || first == second || !bytes.Equal(sealedSecrets(a.DB, zone, id), sealed) {
		t.Errorf("it is %+v; its version went from %s to %s", got, first, second)
	}
	servertest.Expect(t, update("*", client.ProviderPatch{Name: new("Fourth")}), http.StatusOK, "")
	servertest.Expect(t, remove(second), 0, code.VersionConflict)
	servertest.Expect(t, remove("*"), http.StatusNoContent, "")
}

// inLine runs requests that all wait for the row that a statement locks, until
// the last of them does; then it lets them go. Each of them starts when the one
// before is waiting. The first gets the row first; once it has changed it, the
// others come in any order.
func inLine(t *testing.T, a *servertest.API, lock string, args []any, requests ...func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), a.DB.OwnerURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "SELECT set_config('caracal.zone_id', '*', false)"); err != nil {
		t.Fatal(err)
	}
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if tag, err := tx.Exec(t.Context(), lock, args...); err != nil || tag.RowsAffected() != 1 {
		t.Fatalf("%s: %v %v", lock, tag, err)
	}
	var all sync.WaitGroup
	for i, request := range requests {
		all.Go(request)
		eventually(t, "a request waits for a lock", func() bool {
			return storetest.Value[int](a.DB, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0") == i+1
		})
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	all.Wait()
}

const lockProvider = "SELECT FROM providers WHERE zone_id = $1 AND id = $2 FOR UPDATE"

// TestUpdateProviderConfigAgainstConcurrentKindChange, and not against the one that
// was there when its request came (PR-3).
func TestUpdateProviderConfigAgainstConcurrentKindChange(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := newProvider(t, a, zone, client.NewProvider{Name: new("Torn"), Kind: "api_key", ConfigJSON: rawConfig(keyConfig)}).ID
	change := func(patch client.ProviderPatch, want code.Code) func() {
		return func() {
			resp, err := a.Admin.UpdateProviderWithResponse(t.Context(), zone, id, nil, patch)
			if err != nil {
				t.Error(err)
				return
			}
			if got := code.Code(""); resp.StatusCode() != http.StatusOK {
				got = code.Code(problemOf(t, resp).Error)
				if got != want {
					t.Errorf("answered %s, want %q", resp.Body, want)
				}
			} else if want != "" {
				t.Errorf("answered %s, want %q", resp.Body, want)
			}
		}
	}
	bearerToken := client.ProviderPatch{Kind: new(client.ProviderKind("bearer_token")), ConfigJSON: rawConfig(bearerConfig)}
	for _, two := range [][2]func(){
		{change(client.ProviderPatch{ConfigJSON: rawConfig(`{"header_name":"X"}`)}, ""), change(client.ProviderPatch{Name: new("Renamed")}, "")},
		{change(bearerToken, ""), change(client.ProviderPatch{ConfigJSON: rawConfig(`{"header_name":"Y"}`)}, code.InvalidProviderConfig)},
		{change(client.ProviderPatch{Kind: bearerToken.Kind, Name: new("Renamed")}, ""), change(client.ProviderPatch{ConfigJSON: rawConfig(`{"auth_header":"X"}`)}, "")},
	} {
		inLine(t, a, lockProvider, []any{zone, id}, two[:]...)
	}
	now := readProvider(t, a.Admin, zone, id)
	if now.Name != "Renamed" || now.Kind != "bearer_token" || !equalJSON(t, now.ConfigJSON, []byte(`{"auth_header":"X"}`)) || openedSecrets(t, a.DB, zone, id) != `{"bearer_token":"hush-bearer"}` {
		t.Errorf("it is %+v with %s", now, now.ConfigJSON)
	}
}

func TestUpdateProviderConcurrentIfMatch(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := newProvider(t, a, zone, client.NewProvider{Name: new("Torn"), Kind: "none"}).ID
	read, err := a.Admin.GetProviderWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	etag := read.HTTPResponse.Header.Get("ETag")
	responses := make(chan int, 3)
	change := func() {
		resp, err := a.Admin.UpdateProviderWithResponse(t.Context(), zone, id, &rawclient.UpdateProviderParams{IfMatch: &etag}, client.ProviderPatch{Name: new("x")})
		if err != nil {
			t.Error(err)
		}
		responses <- resp.StatusCode()
	}
	remove := func() {
		resp, err := a.Admin.DeleteProviderWithResponse(t.Context(), zone, id, &rawclient.DeleteProviderParams{IfMatch: &etag})
		if err != nil {
			t.Error(err)
		}
		responses <- resp.StatusCode()
	}
	inLine(t, a, lockProvider, []any{zone, id}, change, change, remove)
	if sum := <-responses + <-responses + <-responses; sum != http.StatusOK+2*http.StatusPreconditionFailed {
		t.Errorf("the statuses add up to %d", sum)
	}
}
