package server_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestCreateApplicationReturnsTheSecretOnce(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone(func(z *client.NewZone) { z.DCREnabled = new(true) }).ID
	created := newApplication(t, a, zone)
	dcrApplications, err := a.Admin.RegisterApplicationWithResponse(t.Context(), zone, client.ApplicationRegistration{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, dcrApplications, http.StatusCreated, "")
	const chosen = "a secret of my own"
	var later strings.Builder // the bodies of all later responses
	for _, request := range []struct{ method, path, body string }{
		{"GET", "/" + created.ID, ""},
		{"PATCH", "/" + created.ID, `{"client_secret": "` + chosen + `"}`},
		{"PATCH", "/" + created.ID, `{"name": "` + chosen + `", "client_secret": 7}`},
		{"GET", "/" + dcrApplications.JSON201.ID, ""},
		{"GET", "", ""},
	} {
		raw := a.Do(request.method, "/v1/zones/"+zone+"/applications"+request.path, request.body, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		later.Write(raw.Body)
	}
	if err := a.Service.Stop(); err != nil { // flushes the log
		t.Fatal(err)
	}
	for _, secret := range []string{created.ClientSecret, dcrApplications.JSON201.ClientSecret, chosen} {
		if strings.Contains(later.String(), secret) || strings.Contains(a.Log.String(), secret) {
			t.Errorf("%q is in a response or in the log", secret)
		}
		for _, table := range []string{"applications", "application_secrets", "audit_entries", "outbox"} {
			if n := storetest.Value[int](a.DB, "SELECT count(*) FROM "+table+" AS t WHERE strpos(to_jsonb(t)::text, $1) > 0", secret); n > 0 {
				t.Errorf("%q is in %s", secret, table)
			}
		}
	}
	if entries := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE payload LIKE '%argon2id$%' OR payload LIKE '%sha256$%'"); entries > 0 {
		t.Errorf("the hash of a secret is in %d audit entries", entries)
	}
}

func TestCreateApplicationStoresOnlyTheHashOfTheSecret(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	created := newApplication(t, a, zone)
	stored := func() string {
		return storetest.Value[string](a.DB, "SELECT secret_hash FROM application_secrets WHERE application_id = $1", created.ID)
	}
	digest := sha256.Sum256([]byte(created.ClientSecret))
	if want := "sha256$" + base64.RawStdEncoding.EncodeToString(digest[:]); stored() != want {
		t.Errorf("of a generated secret, %q is stored, want %q", stored(), want)
	}
	const chosen = "a secret of my own: ß"
	resp, err := a.Admin.UpdateApplicationWithResponse(t.Context(), zone, created.ID, nil, client.ApplicationPatch{ClientSecret: new(chosen)})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	rest, known := strings.CutPrefix(stored(), "$argon2id$v=19$m=65536,t=3,p=2$")
	salt, hash, both := strings.Cut(rest, "$")
	saltBytes, err := base64.RawStdEncoding.DecodeString(salt)
	want := base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte(chosen), saltBytes, 3, 65536, 2, 32))
	if !known || !both || err != nil || len(saltBytes) != 16 || hash != want {
		t.Errorf("of a chosen secret, %q is stored", stored())
	}
}
