package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

func overlap(seconds int64) client.SecretRotation {
	return client.SecretRotation{OverlapSeconds: &seconds}
}

// rotateSecret adds a client secret to an application.
func rotateSecret(t *testing.T, a *servertest.API, zone, id string, body client.SecretRotation) *rawclient.RotateApplicationSecretResponse {
	t.Helper()
	resp, err := a.Admin.RotateApplicationSecretWithResponse(t.Context(), zone, id, nil, body)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusCreated, "")
	return resp
}

// verifies reports whether a secret is valid.
func verifies(t *testing.T, a *servertest.API, zone, id, secret string) bool {
	t.Helper()
	client, err := a.DB.Store().For(store.Actor{Zone: zone}).Client(t.Context(), id)
	return err == nil && client.VerifySecret(t.Context(), secret, nil) == nil
}

func TestRotateApplicationSecret(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, system, archivedZone := a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	archived, ofOtherZone, ofSystemZone := newApplication(t, a, zone).ID, applicationOfOtherZone(t, a), newApplication(t, a, system).ID
	a.DB.Exec(archiveApplication, zone, archived)
	a.DB.DCRApplications(zone, 1)
	dcr := storetest.Value[string](a.DB, "SELECT id FROM applications WHERE zone_id = $1 AND registration_method = 'dcr'", zone)
	full := newApplication(t, a, zone).ID
	for range 2 {
		rotateSecret(t, a, zone, full, overlap(86400))
	}
	zoneToken, globalToken := a.ClientFor(zone, "write"), a.ClientFor("", "write")
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string // id "": a new application
		traits   []string
		body     client.SecretRotation
		want     code.Code // "" is 201
	}{
		{"a day by default", a.Admin, zone, "", nil, client.SecretRotation{}, ""},
		{"a week", a.Admin, zone, "", nil, overlap(604800), ""},
		{"longer than a week", a.Admin, zone, "", nil, overlap(604801), code.InvalidApplication},
		{"negative", a.Admin, zone, "", nil, overlap(-1), code.InvalidApplication},
		{"at once", a.Admin, zone, "", nil, overlap(0), ""},
		{"by a zone token", zoneToken, zone, "", nil, overlap(60), ""},
		{"dynamically registered", zoneToken, zone, dcr, nil, overlap(60), ""},
		{"three secrets", zoneToken, zone, full, nil, overlap(60), code.ClientSecretLimitExceeded},
		{"control trait", globalToken, zone, "", []string{"control:invoke"}, overlap(60), ""},
		{"control trait, zone token", zoneToken, zone, "", []string{"control:invoke"}, overlap(60), code.TraitForbidden},
		{"system trait, zone token", zoneToken, zone, "", []string{"a", "caracal.sys:x"}, overlap(60), code.TraitForbidden},
		{"read token", a.ClientFor(zone, "read"), zone, full, nil, overlap(60), code.AdminTokenReadOnly},
		{"token of another zone", a.ClientFor(system, "write"), zone, full, nil, overlap(60), code.AdminTokenZoneMismatch},
		{"unknown", a.Admin, zone, "unknown", nil, overlap(60), code.ApplicationNotFound},
		{"archived", a.Admin, zone, archived, nil, overlap(60), code.ApplicationNotFound},
		{"of another zone", a.Admin, zone, ofOtherZone, nil, overlap(60), code.ApplicationNotFound},
		{"zone unknown", a.Admin, "nowhere", "unknown", nil, overlap(60), code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, "unknown", nil, overlap(60), code.ZoneNotFound},
		{"system zone", a.Admin, system, ofSystemZone, nil, overlap(60), ""},
		{"system zone, not bootstrap", globalToken, system, ofSystemZone, nil, overlap(60), code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.id == "" {
				tt.id = newApplication(t, a, tt.zone, tt.traits...).ID
			}
			resp, err := tt.as.RotateApplicationSecretWithResponse(t.Context(), tt.zone, tt.id, nil, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			read, err := tt.as.GetApplicationWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(*read.JSON200.Secrets, resp.JSON201.Secrets, sameSecret) || read.HTTPResponse.Header.Get("ETag") != resp.HTTPResponse.Header.Get("ETag") {
				t.Errorf("got %+v, want the secrets of %s", read.JSON200, resp.Body)
			}
			if !verifies(t, a, tt.zone, tt.id, resp.JSON201.ClientSecret) || resp.JSON201.ID != tt.id {
				t.Errorf("the secret is not valid: %+v", resp.JSON201)
			}
			seconds := int64(24 * 3600)
			if tt.body.OverlapSeconds != nil {
				seconds = *tt.body.OverlapSeconds
			}
			last := len(resp.JSON201.Secrets) - 1
			for i, s := range resp.JSON201.Secrets {
				created := resp.JSON201.Secrets[last].CreatedAt
				if want := created.Add(time.Duration(seconds) * time.Second); i < last && (s.ExpiresAt == nil || !s.ExpiresAt.Equal(want)) {
					t.Errorf("an old secret expires at %v, want %v", s.ExpiresAt, want)
				}
			}
			if resp.JSON201.Secrets[last].ExpiresAt != nil || seconds > 0 == (last == 0) {
				t.Errorf("got %+v", resp.JSON201.Secrets)
			}
		})
	}
}

func sameSecret(a, b client.ApplicationSecret) bool {
	return a.ID == b.ID && a.CreatedAt.Equal(b.CreatedAt) && (a.ExpiresAt == nil) == (b.ExpiresAt == nil) && (a.ExpiresAt == nil || a.ExpiresAt.Equal(*b.ExpiresAt))
}

// Old and new secrets are valid until the old ones expire, and a later rotation does not
// prolong that.
func TestRotateApplicationSecretOverlap(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	created := newApplication(t, a, zone)
	second := rotateSecret(t, a, zone, created.ID, overlap(60)).JSON201
	third := rotateSecret(t, a, zone, created.ID, overlap(3600)).JSON201
	for i, s := range third.Secrets[:2] {
		if want := []*time.Time{second.Secrets[0].ExpiresAt, new(third.Secrets[2].CreatedAt.Add(time.Hour))}[i]; !s.ExpiresAt.Equal(*want) {
			t.Errorf("secret %d expires at %v, want %v", i, s.ExpiresAt, want)
		}
	}
	valid := func(secrets ...string) (all []bool) {
		for _, s := range secrets {
			all = append(all, verifies(t, a, zone, created.ID, s))
		}
		return all
	}
	if got := valid(created.ClientSecret, second.ClientSecret, third.ClientSecret); slices.Contains(got, false) {
		t.Errorf("valid: %v", got)
	}
	// One that has expired does not count, and a rotation deletes it.
	a.DB.Exec("UPDATE application_secrets SET expires_at = now() WHERE id = $1", third.Secrets[0].ID)
	fourth := rotateSecret(t, a, zone, created.ID, overlap(60)).JSON201
	if got := valid(created.ClientSecret, second.ClientSecret, third.ClientSecret, fourth.ClientSecret); !slices.Equal(got, []bool{false, true, true, true}) || len(fourth.Secrets) != 3 {
		t.Errorf("valid: %v of %+v", got, fourth.Secrets)
	}
	last := rotateSecret(t, a, zone, created.ID, overlap(0)).JSON201
	if got := valid(second.ClientSecret, third.ClientSecret, fourth.ClientSecret, last.ClientSecret); !slices.Equal(got, []bool{false, false, false, true}) || len(last.Secrets) != 1 {
		t.Errorf("valid: %v of %+v", got, last.Secrets)
	}
	// A chosen secret replaces all.
	next := rotateSecret(t, a, zone, created.ID, overlap(60)).JSON201
	const chosen = "a-secret-of-my-own"
	resp, err := a.Admin.UpdateApplicationWithResponse(t.Context(), zone, created.ID, nil, client.ApplicationPatch{ClientSecret: new(chosen)})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if got := valid(last.ClientSecret, next.ClientSecret, chosen); !slices.Equal(got, []bool{false, false, true}) || len(*resp.JSON200.Secrets) != 1 || (*resp.JSON200.Secrets)[0].ExpiresAt != nil {
		t.Errorf("valid: %v of %s", got, resp.Body)
	}
}

func TestRotateApplicationSecretPrecondition(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := newApplication(t, a, zone).ID
	_, tag := asRead(t, a, "/v1/zones/"+zone+"/applications/"+id)
	rotate := func(ifMatch string) *rawclient.RotateApplicationSecretResponse {
		resp, err := a.Admin.RotateApplicationSecretWithResponse(t.Context(), zone, id, &rawclient.RotateApplicationSecretParams{IfMatch: &ifMatch}, overlap(60))
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	servertest.Expect(t, rotate("x"), 0, code.InvalidIfMatch)
	first := rotate(tag)
	servertest.Expect(t, first, http.StatusCreated, "")
	servertest.Expect(t, rotate(tag), 0, code.VersionConflict)
	servertest.Expect(t, rotate(first.HTTPResponse.Header.Get("ETag")), http.StatusCreated, "")
}

// The audit log names the secrets and when they expire, but neither the secrets nor their
// hashes.
func TestRotateApplicationSecretIsAudited(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := newApplication(t, a, zone).ID
	rotated := rotateSecret(t, a, zone, id, overlap(3600)).JSON201
	a.DB.Exec("UPDATE application_secrets SET expires_at = now() WHERE application_id = $1 AND expires_at IS NOT NULL", id)
	rotateSecret(t, a, zone, id, overlap(0))
	got := storetest.Column[string](a.DB, `SELECT concat_ws(' ', action, payload::jsonb -> 'changed_fields', payload::jsonb -> 'secret_rotated',
			jsonb_path_query_array(payload::jsonb, '$.changes.secrets.from[*].id'), jsonb_path_query_array(payload::jsonb, '$.changes.secrets.to[*].id'),
			jsonb_array_length(jsonb_path_query_array(payload::jsonb, '$.changes.secrets.to[*].expires_at ? (@ != null)')), strpos(payload, 'sha256'))
		FROM audit_entries WHERE entity_type = 'applications' AND entity_id = $1 AND operation = 'rotateApplicationSecret' ORDER BY id`, id)
	action := "POST /v1/zones/" + zone + "/applications/" + id + `/rotate-secret ["secrets"] true `
	first, second, third := rotated.Secrets[0].ID, rotated.Secrets[1].ID, (*readApplication(t, a.Admin, zone, id).Secrets)[0].ID
	want := []string{action + `["` + first + `"] ["` + first + `", "` + second + `"] 1 0`, action + `["` + first + `", "` + second + `"] ["` + third + `"] 0 0`}
	if !slices.Equal(got, want) {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Lists do not contain the secrets.
func TestListApplicationsHasNoSecrets(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	newApplication(t, a, zone)
	resp, err := a.Admin.ListApplicationsWithResponse(t.Context(), zone, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if list := *resp.JSON200; len(list) != 1 || list[0].Secrets != nil {
		t.Errorf("got %s", resp.Body)
	}
}
