package server_test

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/server/sts"
	"caracal.run/management/store/storetest"
)

// A fakeSTS returns one response to all requests that are signed, and otherwise 401.
type fakeSTS struct {
	url      string
	response atomic.Value // func(http.ResponseWriter)
}

const stsKey = "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"

func newFakeSTS(t *testing.T) *fakeSTS {
	t.Helper()
	key, err := hex.DecodeString(stsKey)
	if err != nil {
		t.Fatal(err)
	}
	fake := &fakeSTS{}
	fake.respond(200, `{"loaded":false}`)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		if h.Get("X-Caracal-Gateway-Signature") != sts.Sign(key, h.Get("X-Caracal-Gateway-Timestamp"), h.Get("X-Caracal-Gateway-Request"), r.Method, r.URL.EscapedPath(), nil) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"access_denied"}`)
			return
		}
		fake.response.Load().(func(http.ResponseWriter))(w)
	}))
	t.Cleanup(server.Close)
	fake.url = server.URL
	return fake
}

func (f *fakeSTS) respond(status int, body string) {
	f.response.Store(func(w http.ResponseWriter) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func (f *fakeSTS) settings() []string {
	return []string{"STS_URL=" + f.url, "GATEWAY_STS_HMAC_KEY=" + stsKey}
}

// status returns the status of an activation. version and event may be "".
func (z policyZone) status(t *testing.T, set, version, event string) client.PolicySetActivationStatus {
	t.Helper()
	resp := getActivationStatus(t, z.Admin, z.zone, set, version, event)
	servertest.Expect(t, resp, http.StatusOK, "")
	return *resp.JSON200
}

func getActivationStatus(t *testing.T, as *rawclient.ClientWithResponses, zone, set, version, event string) *rawclient.GetActivationStatusResponse {
	t.Helper()
	params := &rawclient.GetActivationStatusParams{}
	if version != "" {
		params.VersionID = &version
	}
	if event != "" {
		params.OutboxID = &event
	}
	resp, err := as.GetActivationStatusWithResponse(t.Context(), zone, set, params)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// text returns a string or, of nil, "null".
func text(p *string) string {
	if p == nil {
		return "null"
	}
	return *p
}

func TestGetActivationStatus(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newPolicyZone(a), newPolicyZone(a)
	set, version := z.active(t)
	inactive, archived := z.set(t).ID, z.set(t).ID
	servertest.Expect(t, deletePolicySet(t, a.Admin, z.zone, archived, ""), http.StatusNoContent, "")
	foreign, _ := other.active(t)
	for _, tt := range []struct {
		name               string
		as                 *rawclient.ClientWithResponses
		zone, set, version string
		want               code.Code // "" is 200
	}{
		{"global token", a.ClientFor("", "read"), z.zone, set, "", ""},
		{"token of the zone", a.ClientFor(z.zone, "read"), z.zone, set, version, ""},
		{"unknown version", a.Admin, z.zone, set, "é unknown/version", ""},
		{"inactive policy set and a version", a.Admin, z.zone, inactive, version, ""},
		{"inactive policy set", a.Admin, z.zone, inactive, "", code.ActivePolicySetVersionNotFound},
		{"archived policy set", a.Admin, z.zone, archived, "x", code.PolicySetBindingNotFound},
		{"unknown policy set", a.Admin, z.zone, "unknown", "", code.PolicySetBindingNotFound},
		{"policy set of another zone", a.Admin, z.zone, foreign, "", code.PolicySetBindingNotFound},
		{"unknown zone", a.Admin, "unknown", set, "", code.PolicySetBindingNotFound},
		{"token of another zone", a.ClientFor(other.zone, "read"), z.zone, set, "", code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := getActivationStatus(t, tt.as, tt.zone, tt.set, tt.version, "")
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want != "" {
				return
			}
			got := *resp.JSON200
			if got.ZoneID != tt.zone || got.PolicySetID != tt.set || tt.version != "" && got.VersionID != tt.version || got.Active != (got.VersionID == version && tt.set == set) {
				t.Errorf("got %s", resp.Body)
			}
			if got.STS.State != client.STSPolicyStatusStateNotConfigured || text(got.STS.Detail) != "GATEWAY_STS_HMAC_KEY is not configured" {
				t.Errorf("got %s", resp.Body)
			}
		})
	}
	for _, query := range []string{"version_id=", "outbox_id=", "version_id=a&version_id=b", "outbox_id=a&outbox_id=b", "version_id=%00"} {
		raw := a.Do("GET", "/v1/zones/"+z.zone+"/policy-sets/"+set+"/activation-status?"+query, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, 0, code.InvalidQuery)
	}
}

func TestGetActivationStatusOfEvents(t *testing.T) {
	t.Parallel()
	fake := newFakeSTS(t)
	a := servertest.New(t, append(fake.settings(), "OUTBOX_MAX_ATTEMPTS=1")...)
	z, other := newPolicyZone(a), newPolicyZone(a)
	set := z.set(t).ID
	version, shadow := z.version(t, set), z.version(t, set)
	first := z.activate(t, set, version.ID, "").OutboxID
	second := z.activate(t, set, version.ID, shadow.ID).OutboxID
	foreign, _ := other.active(t)
	ofForeign := other.activate(t, foreign, other.version(t, foreign).ID, "").OutboxID
	fake.respond(200, fmt.Sprintf(`{"loaded":true,"policy_set_version_id":%q}`, version.ID))
	eventually(t, "all events are published", func() bool {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM outbox WHERE dispatched_at IS NULL") == 0
	})
	otherEvent := a.DB.Event(z.zone, "caracal.sessions.revoke")
	check := func(name, version, event, want string) {
		t.Helper()
		s := z.status(t, set, version, event)
		got := fmt.Sprintf("%s %s: %s", text(s.Outbox.ID), s.Outbox.State, s.PropagationStatus)
		if got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if published := s.Outbox.State == client.ActivationEventStatusStateDispatched; !published && s.Outbox.DispatchedAt != nil {
			t.Errorf("%s: got %+v", name, s.Outbox)
		}
		if dead := s.Outbox.State == client.ActivationEventStatusStateDead; dead != (s.Outbox.LastError != nil) || dead != (s.Outbox.Attempts > 0) {
			t.Errorf("%s: got %+v", name, s.Outbox)
		}
	}
	check("active version", "", "", second+" dispatched: loaded")
	check("an earlier event of the version", version.ID, first, first+" dispatched: loaded")
	check("a version that was never active", shadow.ID, "", "null missing: waiting_for_activation")
	check("unknown event", "", "unknown", "unknown missing: waiting_for_outbox")
	check("event of another zone", "", ofForeign, ofForeign+" missing: waiting_for_outbox")
	check("event of another stream", "", otherEvent, otherEvent+" mismatch: failed")
	check("event of another version", shadow.ID, second, second+" mismatch: waiting_for_activation")
	got := z.status(t, set, "", second)
	if text(got.ActiveVersionID) != version.ID || text(got.ShadowVersionID) != shadow.ID || text(got.ManifestSHA256) != version.ManifestSHA256 || got.Outbox.DispatchedAt == nil {
		t.Errorf("got %+v", got)
	}

	// A published event is deleted after its retention; before, only its dead letter can
	// have been discarded.
	a.DB.Exec("DELETE FROM outbox WHERE id IN ($1, $2)", first, second)
	check("discarded", "", "", second+" missing: waiting_for_outbox")
	a.DB.Exec("UPDATE policy_activations SET created_at = now() - interval '169 hours' WHERE zone_id = $1", z.zone)
	check("purged", "", "", second+" dispatched: loaded")
	check("purged, with its ID", version.ID, first, first+" dispatched: loaded")
	check("purged, of another version", shadow.ID, first, first+" mismatch: waiting_for_activation")

	// The event of a deactivation is not that of any version.
	deactivation := deactivatePolicySet(t, a.Admin, z.zone, set)
	servertest.Expect(t, deactivation, http.StatusAccepted, "")
	check("deactivated", version.ID, deactivation.JSON202.OutboxID, deactivation.JSON202.OutboxID+" mismatch: waiting_for_activation")

	const stream = "caracal.policy.invalidate"
	eventually(t, "all events are published", func() bool {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM outbox WHERE dispatched_at IS NULL") == 0
	})
	a.Redis.Del(t.Context(), stream)
	a.Redis.Set(t.Context(), stream, "a string", 0) // Redis rejects XADD to it
	dead := z.activate(t, set, version.ID, "").OutboxID
	eventually(t, "the event is dead", func() bool {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM outbox WHERE id = $1 AND dead_at IS NOT NULL", dead) == 1
	})
	check("dead", "", "", dead+" dead: failed")
	rearmed := func() {
		t.Helper()
		a.Redis.Del(t.Context(), stream)
		resp, err := a.Admin.RearmDeadLetterWithResponse(t.Context(), dead)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusNoContent, "")
	}
	rearmed()
	eventually(t, "the retried event is published", func() bool { return z.status(t, set, "", "").PropagationStatus == client.PropagationStatusLoaded })
}

// An event waits in the outbox while Redis is unreachable.
func TestGetActivationStatusWhileRedisIsUnreachable(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "REDIS_URL=redis://127.0.0.1:1")
	z := newPolicyZone(a)
	set, _ := z.active(t)
	if s := z.status(t, set, "", ""); s.Outbox.State != client.ActivationEventStatusStatePending || s.PropagationStatus != client.PropagationStatusWaitingForOutbox || !s.Active {
		t.Errorf("got %+v", s)
	}
}

func TestGetActivationStatusOfSTS(t *testing.T) {
	t.Parallel()
	fake := newFakeSTS(t)
	a := servertest.New(t, fake.settings()...)
	z := newPolicyZone(a)
	set, version := z.active(t)
	z.published(t, 1)
	eventually(t, "the event is marked as published", func() bool {
		return z.status(t, set, "", "").Outbox.State == client.ActivationEventStatusStateDispatched
	})
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   client.PropagationStatus
		sts    string // JSON
	}{
		{"loaded", 200, `{"zone_id":"Z","loaded":true,"policy_set_version_id":"V","manifest_sha256":"m","loaded_at":"2026-07-01T12:00:00Z","age_seconds":7.5}`,
			client.PropagationStatusLoaded, `{"state":"loaded","loaded":true,"zone_id":"Z","policy_set_version_id":"V","manifest_sha256":"m","loaded_at":"2026-07-01T12:00:00Z","age_seconds":7}`},
		{"another version loaded", 200, `{"loaded":true,"policy_set_version_id":"other"}`, client.PropagationStatusWaitingForSTS, `{"state":"loaded","loaded":true,"policy_set_version_id":"other"}`},
		{"not loaded", 200, `{"loaded":false,"policy_set_version_id":"V"}`, client.PropagationStatusWaitingForSTS, `{"state":"not_loaded","loaded":false,"policy_set_version_id":"V"}`},
		{"not JSON", 200, "<html>", client.PropagationStatusFailed, `{"state":"failed","detail":"invalid STS response: invalid character '<' looking for beginning of value"}`},
		{"401", 401, `{"error":"access_denied","error_description":"bad signature"}`, client.PropagationStatusFailed, `{"state":"failed","detail":"bad signature"}`},
		{"500", 500, `{}`, client.PropagationStatusFailed, `{"state":"failed","detail":"500"}`},
		{"redirect", 302, `{}`, client.PropagationStatusFailed, `{"state":"failed","detail":"302"}`},
	} {
		t.Run(tt.name, func(t *testing.T) { // not parallel: the response is shared
			names := strings.NewReplacer(`"Z"`, `"`+z.zone+`"`, `"V"`, `"`+version+`"`)
			fake.respond(tt.status, names.Replace(tt.body))
			resp := getActivationStatus(t, a.Admin, z.zone, set, version, "")
			servertest.Expect(t, resp, http.StatusOK, "")
			got := decode[struct{ STS map[string]any }](t, servertest.RawResponse{Body: resp.Body}).STS
			want := decode[map[string]any](t, servertest.RawResponse{Body: []byte(names.Replace(tt.sts))})
			if resp.JSON200.PropagationStatus != tt.want || !reflect.DeepEqual(got, want) {
				t.Errorf("got %s", resp.Body)
			}
		})
	}
}

func TestGetActivationStatusOfOtherSTS(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, url, key, detail string
		state                  client.STSPolicyStatusState
		want                   client.PropagationStatus
	}{
		{"unreachable", "http://127.0.0.1:1", stsKey, "connection refused", client.STSPolicyStatusStateUnreachable, client.PropagationStatusWaitingForSTS},
		{"another key", newFakeSTS(t).url, servertest.StreamsKey, "access_denied", client.STSPolicyStatusStateFailed, client.PropagationStatusFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := servertest.New(t, "STS_URL="+tt.url, "GATEWAY_STS_HMAC_KEY="+tt.key)
			z := newPolicyZone(a)
			set, _ := z.active(t)
			eventually(t, "the event is marked as published", func() bool {
				return z.status(t, set, "", "").Outbox.State == client.ActivationEventStatusStateDispatched
			})
			if s := z.status(t, set, "", ""); s.STS.State != tt.state || text(s.STS.Detail) != tt.detail || s.PropagationStatus != tt.want {
				t.Errorf("got %+v with %s", s, text(s.STS.Detail))
			}
			if !strings.Contains(a.Log.String(), "failed to get the policy status of the STS") {
				t.Error("the error is not logged")
			}
		})
	}
}

// The status URL of an activation returns its status.
func TestGetActivationStatusByStatusURL(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	set := z.set(t).ID
	activation := z.activate(t, set, z.version(t, set).ID, "")
	raw := a.Do("GET", activation.StatusURL, "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, http.StatusOK, "")
	if s := decode[client.PolicySetActivationStatus](t, raw); s.VersionID != activation.VersionID || text(s.Outbox.ID) != activation.OutboxID || !s.Active {
		t.Errorf("got %s", raw.Body)
	}
}
