package server_test

import (
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestGetHealthAndGetReadiness(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	ready := decode[client.Readiness](t, a.Do("GET", "/ready", ""))
	if !ready.OK || ready.Redis != client.ReadinessRedisReachable {
		t.Errorf("/ready returned %+v", ready)
	}
	a.DB.Disable()
	raw := a.Do("GET", "/ready", "")
	if unready := decode[client.Unreadiness](t, raw); raw.StatusCode() != http.StatusServiceUnavailable || *unready.Error != client.UnreadinessErrorPostgresUnreachable {
		t.Errorf("answered %d %s", raw.StatusCode(), raw.Body)
	}
	servertest.Expect(t, a.Do("GET", "/health", ""), http.StatusOK, "")
	resp := a.Do("GET", "/v1/zones", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, resp, 0, code.ServiceUnavailable)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("Retry-After is missing")
	}
	a.DB.Enable()
	eventually(t, "requests succeed again", func() bool {
		return a.Do("GET", "/v1/zones", "", bearer(servertest.Bootstrap)...).StatusCode() == http.StatusOK
	})
}

func TestGetReadinessWithoutRedis(t *testing.T) {
	t.Parallel()
	a := servertest.NewReplica(t, storetest.New(t), "redis://127.0.0.1:1/0")
	ready := decode[client.Readiness](t, a.Do("GET", "/ready", ""))
	if !ready.OK || ready.Redis != client.ReadinessRedisUnreachable {
		t.Errorf("/ready returned %+v", ready)
	}
	a.Zone()
}

func TestInternalErrorIsLoggedAndNotReturned(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	a.DB.Exec("ALTER TABLE zones RENAME COLUMN dcr_enabled TO elsewhere")
	raw := a.Do("GET", "/v1/zones", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, 0, code.InternalError)
	if strings.Contains(string(raw.Body), "elsewhere") || strings.Contains(string(raw.Body), "dcr_enabled") {
		t.Errorf("the response contains the cause: %s", raw.Body)
	}
	id := raw.Header.Get("X-Request-Id")
	eventually(t, "the cause is logged", func() bool {
		for line := range strings.Lines(a.Log.String()) {
			if strings.Contains(line, id) && strings.Contains(line, "dcr_enabled") {
				return true
			}
		}
		return false
	})
}

func TestGetMetrics(t *testing.T) {
	t.Parallel()
	open := servertest.New(t)
	raw := open.Do("GET", "/metrics", "")
	servertest.Expect(t, raw, http.StatusOK, "")
	if kind := raw.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Errorf("the content type is %q", kind)
	}
	zone := open.Zone()
	servertest.Expect(t, open.Do("DELETE", "/v1/zones/"+zone.ID, "", bearer(servertest.Bootstrap)...), http.StatusNoContent, "")
	servertest.Expect(t, open.Do("GET", "/v1/zones/"+zone.ID, "", bearer(servertest.Bootstrap)...), 0, code.ZoneNotFound)
	for _, line := range []string{
		`caracal_api_request_duration_seconds_count{operation="createZone"} 1`,
		`caracal_api_requests_total{operation="getZone",status="4xx"} 1`,
		`caracal_api_errors_total{code="zone_not_found",operation="getZone"} 1`,
		`caracal_api_limit_decisions_total{decision="refused",limit="address"} 0`,
		"caracal_api_db_pool_max_connections 8",
		"caracal_api_outbox_latency_seconds_count 1", // the event of the archived zone
		"caracal_api_outbox_pending_total 0",
	} {
		eventually(t, line, func() bool { return containsLine(string(open.Do("GET", "/metrics", "").Body), line) })
	}
	if all := string(open.Do("GET", "/metrics", "").Body); !strings.Contains(all, "caracal_api_build_info{") || !strings.Contains(all, "caracal_api_token_cache_hits_total") {
		t.Error("the metrics of the build or of the token cache are missing")
	}
	for _, tt := range []struct {
		name     string
		settings []string
		bearer   string
		want     code.Code
	}{
		{"stable mode without METRICS_BEARER", []string{"CARACAL_MODE=stable", "HOST=127.0.0.1"}, "x", code.Unauthorized},
		{"valid token", []string{"METRICS_BEARER=secret"}, "secret", ""},
		{"invalid token", []string{"METRICS_BEARER=secret"}, "Secret", code.Unauthorized},
		{"no token", []string{"METRICS_BEARER=secret"}, "", code.Unauthorized},
		{"admin token", []string{"METRICS_BEARER=secret"}, servertest.Bootstrap, code.Unauthorized},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := servertest.New(t, tt.settings...)
			servertest.Expect(t, a.Do("GET", "/metrics", "", bearer(tt.bearer)...), http.StatusOK, tt.want)
		})
	}
}

func TestGetOpenAPIJSONAndGetOpenAPIYAML(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	spec := decode[struct{ Paths map[string]any }](t, a.Do("GET", "/openapi.json", ""))
	if spec.Paths["/v1/zones"] == nil {
		t.Error("/openapi.json does not describe /v1/zones")
	}
	if yaml := a.Do("GET", "/openapi.yaml", ""); !strings.Contains(string(yaml.Body), "operationId: listZones") {
		t.Error("/openapi.yaml does not describe listZones")
	}
}
