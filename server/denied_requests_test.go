package server_test

import (
	"strings"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// deniedEntities lists, for every path below /v1, the entity that the audit
// entry of a denied request names.
var deniedEntities = map[string]string{
	"/v1/admin-audit":                                          "",
	"/v1/admin-audit/head":                                     "",
	"/v1/admin-audit/verify":                                   "",
	"/v1/admin-tokens":                                         "",
	"/v1/admin-tokens/{id}":                                    "admin-tokens/item-1",
	"/v1/admin-tokens/self":                                    "",
	"/v1/state/schema":                                         "",
	"/v1/zones/{zoneId}/state":                                 "zones/zone-1",
	"/v1/dead-letters":                                         "",
	"/v1/dead-letters/{id}":                                    "dead-letters/item-1",
	"/v1/dead-letters/{id}/rearm":                              "dead-letters/item-1",
	"/v1/policies/validate":                                    "",
	"/v1/providers/discover":                                   "",
	"/v1/policy-templates":                                     "",
	"/v1/policy-templates/{id}":                                "",
	"/v1/zones":                                                "",
	"/v1/zones/{zoneId}":                                       "zones/zone-1",
	"/v1/zones/{zoneId}/dcr-status":                            "zones/zone-1",
	"/v1/zones/{zoneId}/admin-audit":                           "zones/zone-1",
	"/v1/zones/{zoneId}/admin-audit/head":                      "zones/zone-1",
	"/v1/zones/{zoneId}/admin-audit/verify":                    "zones/zone-1",
	"/v1/audit-retention":                                      "",
	"/v1/zones/{zoneId}/audit/head":                            "zones/zone-1",
	"/v1/zones/{zoneId}/audit/verify":                          "zones/zone-1",
	"/v1/zones/{zoneId}/audit":                                 "zones/zone-1",
	"/v1/zones/{zoneId}/audit/by-request/{requestId}":          "zones/zone-1",
	"/v1/zones/{zoneId}/audit/by-request/{requestId}/explain":  "zones/zone-1",
	"/v1/zones/{zoneId}/overview":                              "zones/zone-1",
	"/v1/zones/{zoneId}/agent-sessions":                        "zones/zone-1",
	"/v1/zones/{zoneId}/applications":                          "zones/zone-1",
	"/v1/zones/{zoneId}/applications/dcr":                      "zones/zone-1",
	"/v1/zones/{zoneId}/applications/{id}":                     "applications/item-1",
	"/v1/zones/{zoneId}/applications/{id}/rotate-secret":       "applications/item-1",
	"/v1/control/invoke":                                       "",
	"/v1/zones/{zoneId}/control-keys":                          "zones/zone-1",
	"/v1/zones/{zoneId}/control-keys/{id}":                     "control-keys/item-1",
	"/v1/zones/{zoneId}/events":                                "zones/zone-1",
	"/v1/zones/{zoneId}/grants":                                "zones/zone-1",
	"/v1/zones/{zoneId}/grants/{id}":                           "grants/item-1",
	"/v1/zones/{zoneId}/policies":                              "zones/zone-1",
	"/v1/zones/{zoneId}/policies/{id}":                         "policies/item-1",
	"/v1/zones/{zoneId}/policies/{id}/versions":                "policies/item-1",
	"/v1/zones/{zoneId}/policies/{id}/versions/{versionId}":    "policy-versions/version-1",
	"/v1/zones/{zoneId}/policy-activations":                    "zones/zone-1",
	"/v1/zones/{zoneId}/policy-sets":                           "zones/zone-1",
	"/v1/zones/{zoneId}/policy-sets/{id}":                      "policy-sets/item-1",
	"/v1/zones/{zoneId}/policy-sets/{id}/activate":             "policy-sets/item-1",
	"/v1/zones/{zoneId}/policy-sets/{id}/activation-status":    "policy-sets/item-1",
	"/v1/zones/{zoneId}/policy-sets/{id}/deactivate":           "policy-sets/item-1",
	"/v1/zones/{zoneId}/policy-sets/{id}/compare":              "policy-sets/item-1",
	"/v1/zones/{zoneId}/policy-sets/{id}/rollback":             "policy-sets/item-1",
	"/v1/zones/{zoneId}/policy-sets/{id}/simulate":             "policy-sets/item-1",
	"/v1/zones/{zoneId}/policy-sets/{id}/simulate-batch":       "policy-sets/item-1",
	"/v1/zones/{zoneId}/policy-sets/{id}/versions":             "policy-sets/item-1",
	"/v1/zones/{zoneId}/policy-sets/{id}/versions/{versionId}": "policy-set-versions/version-1",
	"/v1/zones/{zoneId}/provider-grants":                       "zones/zone-1",
	"/v1/zones/{zoneId}/provider-grants/{id}":                  "provider-grants/item-1",
	"/v1/zones/{zoneId}/provider-grants/oauth/authorize":       "zones/zone-1",
	"/v1/zones/{zoneId}/provider-grants/oauth/callback":        "",
	"/v1/zones/{zoneId}/provider-grants/revoke":                "zones/zone-1",
	"/v1/zones/{zoneId}/providers":                             "zones/zone-1",
	"/v1/zones/{zoneId}/providers/{id}":                        "providers/item-1",
	"/v1/zones/{zoneId}/providers/{id}/test":                   "providers/item-1",
	"/v1/zones/{zoneId}/register":                              "",
	"/v1/zones/{zoneId}/register/{id}":                         "",
	"/v1/zones/{zoneId}/registration-tokens":                   "zones/zone-1",
	"/v1/zones/{zoneId}/registration-tokens/{id}":              "registration-tokens/item-1",
	"/v1/zones/{zoneId}/resources":                             "zones/zone-1",
	"/v1/zones/{zoneId}/resources/{id}":                        "resources/item-1",
	"/v1/zones/{zoneId}/sessions":                              "zones/zone-1",
	"/v1/zones/{zoneId}/signing-key/rotate":                    "zones/zone-1",
	"/v1/zones/{zoneId}/state/apply":                           "zones/zone-1",
	"/v1/zones/{zoneId}/state/plan":                            "zones/zone-1",
	"/v1/zones/{zoneId}/step-up-challenges":                    "zones/zone-1",
	"/v1/zones/{zoneId}/step-up-challenges/{id}":               "step-up-challenges/item-1",
	"/v1/zones/{zoneId}/step-up-challenges/{id}/reject":        "step-up-challenges/item-1",
	"/v1/zones/{zoneId}/step-up-challenges/{id}/satisfy":       "step-up-challenges/item-1",
}

// auditedEntity returns kind and id of the entity in a request's audit entry,
// once it is written; "" if it names none.
func auditedEntity(t *testing.T, a *servertest.API, requestID string) string {
	t.Helper()
	var entities []string
	eventually(t, "request "+requestID+" is in the audit log", func() bool {
		entities = storetest.Column[string](a.DB, "SELECT concat_ws('/', nullif(entity_type, ''), nullif(entity_id, '')) FROM audit_entries WHERE request_id = $1", requestID)
		return len(entities) > 0
	})
	return entities[0]
}

func TestDeniedRequestNamesItsEntity(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone()
	token := a.Token(zone.ID, "write", servertest.CanApprove).Token // of another zone than every request below
	path := strings.NewReplacer("{zoneId}", "zone-1", "{id}", "item-1", "{versionId}", "version-1", "{requestId}", "request-1")
	for _, op := range servertest.Operations() {
		if !strings.HasPrefix(op.Path, "/v1/") {
			continue
		}
		want, listed := deniedEntities[op.Path]
		if !listed {
			t.Errorf("%s is not listed in deniedEntities", op.Path)
			continue
		}
		if !scoped(op) {
			continue // every token can call it
		}
		raw := a.Do(op.Method, path.Replace(op.Path), "", bearer(token)...)
		servertest.Expect(t, raw, 0, code.AdminTokenZoneMismatch)
		if got := auditedEntity(t, a, raw.Header.Get("X-Request-Id")); got != want {
			t.Errorf("%s: the audit entry names %q, want %q", op.OperationID, got, want)
		}
	}
}

func TestDeniedRequestWithoutAnEntity(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		name, method, path string
		want               code.Code
		entity             string
	}{
		{"no such path", "GET", "/v1/zones/zone-1/nothing/item-1", code.NotFound, ""},
		{"no such method", "PUT", "/v1/zones/zone-1", code.MethodNotAllowed, ""},
		{"not an id", "GET", "/v1/zones/%20", code.InvalidParams, ""},
		{"an id that is percent-encoded", "GET", "/v1/zones/zone%2D1", code.ZoneNotFound, "zones/zone-1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := a.Do(tt.method, tt.path, "", bearer(servertest.Bootstrap)...)
			servertest.Expect(t, raw, 0, tt.want)
			if got := auditedEntity(t, a, raw.Header.Get("X-Request-Id")); got != tt.entity {
				t.Errorf("the audit entry names %q, want %q", got, tt.entity)
			}
		})
	}
}
