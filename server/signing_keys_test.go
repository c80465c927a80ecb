package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// rotateKey rotates the signing key of a zone and returns the ID of the new one.
func rotateKey(t *testing.T, a *servertest.API, zone string) string {
	t.Helper()
	resp, err := a.Admin.RotateSigningKeyWithResponse(t.Context(), zone)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	return resp.JSON200.Kid
}

func TestRotateSigningKey(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, system := a.Zone().ID, a.Zone(func(z *client.NewZone) { z.Name = "caracal.sys/system" }).ID
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		want code.Code // "" is 200
	}{
		{"global token", a.ClientFor("", "write"), zone, ""},
		{"token of the zone", a.ClientFor(zone, "write"), zone, code.AdminTokenZoneMismatch},
		{"read token", a.ClientFor("", "read"), zone, code.AdminTokenReadOnly},
		{"no token", a.Anonymous(), zone, code.InvalidAdminToken},
		{"unknown zone", a.Admin, "unknown", code.ZoneNotFound},
		{"archived zone", a.Admin, a.DB.ArchivedZone(), code.ZoneNotFound},
		{"reserved zone", a.ClientFor("", "write"), system, code.SystemZoneReadOnly},
		{"reserved zone, bootstrap token", a.Admin, system, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.RotateSigningKeyWithResponse(t.Context(), tt.zone)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && (!resp.JSON200.Rotated || resp.JSON200.ZoneID != tt.zone || resp.JSON200.Kid == "") {
				t.Errorf("got %s", resp.Body)
			}
		})
	}
}

func TestGetVerificationKeys(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	first := rotateKey(t, a, zone)
	second := rotateKey(t, a, zone)
	otherKey := rotateKey(t, a, other)
	keysOf := func(zone string) (ids []string) {
		t.Helper()
		resp, err := a.Anonymous().GetVerificationKeysWithResponse(t.Context(), &rawclient.GetVerificationKeysParams{ZoneID: zone})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, "")
		for _, k := range resp.JSON200.Keys {
			if k.Kty != "EC" || k.Crv != "P-256" || k.Alg != "ES256" || k.Use != "sig" || len(k.X) != 43 || len(k.Y) != 43 {
				t.Errorf("got %+v", k)
			}
			ids = append(ids, k.Kid)
		}
		return ids
	}
	if got := keysOf(zone); !slices.Equal(got, []string{second, first}) {
		t.Errorf("got %q, want %q", got, []string{second, first})
	}
	if got := keysOf(other); !slices.Equal(got, []string{otherKey}) {
		t.Errorf("the keys of the other zone are %q", got)
	}
	const path = "/.well-known/jwks.json"
	raw := a.Do("GET", path+"?zone_id="+zone, "")
	for name, want := range map[string]string{"Cache-Control": "public, max-age=300, must-revalidate", "Content-Type": "application/json; charset=utf-8", "X-Content-Type-Options": "nosniff"} {
		if got := raw.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if strings.Contains(string(raw.Body), `"d"`) {
		t.Errorf("the response contains a private key: %s", raw.Body)
	}
	a.DB.Exec("UPDATE signing_keys SET retires_at = now() WHERE id = $1", first)
	if got := keysOf(zone); !slices.Equal(got, []string{second}) {
		t.Errorf("after its retirement, got %q", got)
	}
	a.DB.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", other)
	for query, want := range map[string]code.Code{
		"": code.InvalidQuery, "?zone_id=": code.InvalidQuery, "?zone_id=a&zone_id=b": code.InvalidQuery, "?zone_id=a%00b": code.InvalidQuery,
		"?zone_id=" + strings.Repeat("x", 129): code.InvalidQuery, "?zone_id=*": code.InvalidQuery, "?zone_id=unknown": code.SigningKeyNotFound,
		"?zone_id=" + a.Zone().ID: code.SigningKeyNotFound, "?zone_id=" + other: code.SigningKeyNotFound,
	} {
		raw := a.Do("GET", path+query, "")
		servertest.Expect(t, raw, 0, want)
		if got := raw.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control is %q", query, got)
		}
	}
}

func TestGetVerificationKeysIsRateLimited(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "API_V1_RATE_LIMIT_PER_MIN=3")
	limited := false
	for range 8 { // a minute may end in between
		raw := a.Do("GET", "/.well-known/jwks.json?zone_id=unknown", "")
		limited = limited || raw.StatusCode() == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("8 requests were not limited to 3 per minute")
	}
}

// After its keys were rotated, a replica deletes the previous one when it is due.
func TestRotatedSigningKeyIsDeleted(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	first := rotateKey(t, a, zone)
	second := rotateKey(t, a, zone)
	a.Service.RunJobs(t.Context())
	if got := storetest.Column[string](a.DB, "SELECT id FROM signing_keys ORDER BY id"); !slices.Equal(got, []string{first, second}) {
		t.Errorf("before 24 hours, got %q", got)
	}
	a.DB.Exec("UPDATE signing_keys SET retires_at = retires_at - interval '24 hours 1 second' WHERE retires_at IS NOT NULL")
	a.Service.RunJobs(t.Context())
	if got := storetest.Column[string](a.DB, "SELECT id FROM signing_keys"); !slices.Equal(got, []string{second}) {
		t.Errorf("after 24 hours, got %q", got)
	}
}
