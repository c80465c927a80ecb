package store_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/pressly/goose/v3"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store"
	"caracal.run/management/store/migrations"
	"caracal.run/management/store/storetest"
)

const chosenSecret = "a secret of my own: ß"

// newApplication creates an application and returns it with its client secret.
func newApplication(t *testing.T, s *store.Store, zone string) (a db.Application, secret string) {
	t.Helper()
	err := s.InTx(t.Context(), cause, func(tx *store.Tx) (err error) {
		a, secret, err = tx.CreateApplication(t.Context(), zone, store.NewApplication{Name: "Billing"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, secret
}

// rotateSecret returns a new client secret of an application.
func rotateSecret(t *testing.T, s *store.Store, a db.Application, overlap int64) (secret string) {
	t.Helper()
	err := s.InTx(t.Context(), cause, func(tx *store.Tx) (err error) {
		_, secret, err = tx.RotateApplicationSecret(t.Context(), a.ZoneID, a.ID, store.Precondition{}, store.SecretRotation{Overlap: overlap})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// choose replaces the client secrets of an application by one.
func choose(t *testing.T, s *store.Store, a db.Application, secret string) {
	t.Helper()
	hash, err := store.HashChosenSecret(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	err = s.InTx(t.Context(), cause, func(tx *store.Tx) error {
		_, err := tx.UpdateApplication(t.Context(), a.ZoneID, a.ID, store.Precondition{}, store.ApplicationPatch{ClientSecret: &hash})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// verifySecret verifies a client secret of an application, which need not exist.
func verifySecret(t *testing.T, s *store.Store, application, secret string, mayHash func() error) error {
	t.Helper()
	client, err := s.Client(t.Context(), application)
	if err != nil && !errors.Is(err, code.ApplicationNotFound) {
		t.Fatal(err)
	}
	return client.VerifySecret(t.Context(), secret, mayHash)
}

func TestVerifyClientSecret(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store().For(store.System)
	zone, otherZone := newZone(t, s).ID, newZone(t, s).ID
	archivedZone := newZone(t, s).ID
	a, first := newApplication(t, s, zone)
	other, otherSecret := newApplication(t, s, otherZone)
	second := rotateSecret(t, s, a, 3600)
	chosen, generated := newApplication(t, s, zone)
	choose(t, s, chosen, chosenSecret)
	afterChosen := rotateSecret(t, s, chosen, 3600)
	const ofGeneratedForm = "cs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	generatedForm, _ := newApplication(t, s, zone)
	choose(t, s, generatedForm, ofGeneratedForm)
	expired, expiredSecret := newApplication(t, s, zone)
	rotateSecret(t, s, expired, 3600)
	d.Exec("UPDATE application_secrets SET expires_at = now() WHERE application_id = $1 AND expires_at IS NOT NULL", expired.ID)
	archived, archivedSecret := newApplication(t, s, zone)
	d.Exec("UPDATE applications SET archived_at = now() WHERE id = $1", archived.ID)
	ofArchivedZone, ofArchivedZoneSecret := newApplication(t, s, archivedZone)
	d.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", archivedZone)
	registered, registeredSecret := newApplication(t, s, zone)
	d.Exec("UPDATE applications SET registration_method = 'dcr', expires_at = now() WHERE id = $1", registered.ID)
	for _, tt := range []struct {
		name, zone, application, secret string
		valid                           bool
	}{
		{"the oldest", zone, a.ID, first, true},
		{"the newest", zone, a.ID, second, true},
		{"with a space", zone, a.ID, second + " ", false},
		{"another letter", zone, a.ID, second[:45] + "_", false}, // no secret ends like this,
		{"empty", zone, a.ID, "", false},
		{"of another application", zone, a.ID, otherSecret, false},
		{"of another zone", zone, other.ID, otherSecret, false},
		{"in its zone", otherZone, other.ID, otherSecret, true},
		{"unknown application", zone, "unknown", first, false},
		{"unknown application, chosen secret", zone, "unknown", chosenSecret, false},
		{"no bits of the hash of no secret", zone, a.ID, chosenSecret, false},
		{"chosen", zone, chosen.ID, chosenSecret, true},
		{"generated in addition to a chosen one", zone, chosen.ID, afterChosen, true},
		{"replaced by a chosen one", zone, chosen.ID, generated, false},
		{"chosen, wrong", zone, chosen.ID, chosenSecret + "x", false},
		{"chosen like a generated one", zone, generatedForm.ID, ofGeneratedForm, true},
		{"the hash itself", zone, a.ID, storetest.Value[string](d, "SELECT secret_hash FROM application_secrets WHERE application_id = $1 AND expires_at IS NULL", a.ID), false},
		{"expired", zone, expired.ID, expiredSecret, false},
		{"of an archived application", zone, archived.ID, archivedSecret, false},
		{"of an archived zone", archivedZone, ofArchivedZone.ID, ofArchivedZoneSecret, false},
		{"of an expired application", zone, registered.ID, registeredSecret, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := verifySecret(t, d.Store().For(store.Actor{Zone: tt.zone}), tt.application, tt.secret, nil)
			if tt.valid && err != nil || !tt.valid && !errors.Is(err, store.ErrInvalidSecret) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := verifySecret(t, s, a.ID, first, nil); err != nil {
		t.Errorf("the service does not verify the secret: %v", err)
	}
}

// A secret that is not generated is hashed also if there is nothing to compare it with, so
// that the time does not reveal which applications exist.
func TestVerifyClientSecretHashesWithoutChosenSecret(t *testing.T) {
	t.Parallel()
	hash, err := store.HashChosenSecret(t.Context(), chosenSecret)
	if err != nil {
		t.Fatal(err)
	}
	generated := "cs_" + strings.Repeat("x", 43)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // no secret can be hashed, so hashing fails at once
	for _, tt := range []struct {
		name   string
		hashes []string
		secret string
		hashed bool
	}{
		{"unknown application", nil, "wrong", true},
		{"generated secrets only", []string{"sha256$x", "sha256$y"}, "wrong", true},
		{"chosen secret", []string{"sha256$x", string(hash)}, "wrong", true},
		{"unknown application, generated secret", nil, generated, false},
		{"generated secrets only, generated secret", []string{"sha256$x"}, generated, false},
	} {
		var want error = store.ErrInvalidSecret
		if tt.hashed {
			want = code.ServiceUnavailable
		}
		if err := store.VerifySecret(ctx, tt.hashes, tt.secret); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, want)
		}
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store().For(store.System)
	zone, archivedZone := newZone(t, s).ID, newZone(t, s).ID
	a, _ := newApplication(t, s, zone)
	archived, _ := newApplication(t, s, zone)
	d.Exec("UPDATE applications SET archived_at = now() WHERE id = $1", archived.ID)
	ofArchivedZone, _ := newApplication(t, s, archivedZone)
	d.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", archivedZone)
	for _, tt := range []struct {
		name, id string
		actor    store.Actor
		want     error
	}{
		{"by the service", a.ID, store.System, nil},
		{"by an actor of its zone", a.ID, store.Actor{Zone: zone}, nil},
		{"by an actor of another zone", a.ID, store.Actor{Zone: archivedZone}, code.ApplicationNotFound},
		{"unknown", "unknown", store.System, code.ApplicationNotFound},
		{"archived", archived.ID, store.System, code.ApplicationNotFound},
		{"of an archived zone", ofArchivedZone.ID, store.System, code.ApplicationNotFound},
	} {
		got, err := d.Store().For(tt.actor).Client(t.Context(), tt.id)
		if !errors.Is(err, tt.want) || tt.want == nil && (got.ID != a.ID || got.ZoneID != zone) {
			t.Errorf("%s: got %+v, %v", tt.name, got, err)
		}
	}
}

// The secrets of archived applications are deleted, however they are archived.
func TestArchivedApplicationsHaveNoSecrets(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store().For(store.System)
	zone := newZone(t, s).ID
	kept, _ := newApplication(t, s, zone)
	a, _ := newApplication(t, s, zone)
	d.DCRApplications(zone, 2)
	d.Exec("UPDATE applications SET expires_at = now() - interval '25 hours' WHERE id = (SELECT id FROM applications WHERE registration_method = 'dcr' LIMIT 1)")
	due, err := s.ExpiredDCRApplications(t.Context(), 10, []string{})
	if err != nil || len(due) != 1 {
		t.Fatal(due, err)
	}
	for _, archive := range []func(tx *store.Tx) error{
		func(tx *store.Tx) error {
			return tx.DeleteApplication(t.Context(), zone, a.ID, store.Precondition{})
		},
		func(tx *store.Tx) error {
			_, err := tx.ArchiveExpiredApplications(t.Context(), due[0])
			return err
		},
		func(tx *store.Tx) error {
			_, err := tx.UpdateZone(t.Context(), zone, store.Precondition{}, store.ZonePatch{DCREnabled: new(false), DCRShutdown: new("revoke_live")})
			return err
		},
	} {
		if err := s.InTx(t.Context(), cause, archive); err != nil {
			t.Fatal(err)
		}
	}
	if got := storetest.Column[string](d, "SELECT application_id FROM application_secrets"); len(got) != 1 || got[0] != kept.ID {
		t.Errorf("got the secrets of %v, want those of %s", got, kept.ID)
	}
}

// A rotation waits for the one before it, and sees its secret.
func TestConcurrentRotationsKeepTheLimit(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store().For(store.System)
	a, _ := newApplication(t, s, newZone(t, s).ID)
	const requests = 8
	errs := make(chan error, requests)
	for range requests {
		go func() {
			errs <- s.InTx(t.Context(), cause, func(tx *store.Tx) error {
				_, _, err := tx.RotateApplicationSecret(t.Context(), a.ZoneID, a.ID, store.Precondition{}, store.SecretRotation{Overlap: 3600})
				return err
			})
		}()
	}
	succeeded := 0
	for range requests {
		switch err := <-errs; {
		case err == nil:
			succeeded++
		case !errors.Is(err, code.ClientSecretLimitExceeded):
			t.Error(err)
		}
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM application_secrets"); succeeded != 2 || n != 3 {
		t.Errorf("%d rotations succeeded, and %d secrets are stored", succeeded, n)
	}
}

// The migration that adds the table of secrets keeps the secrets, also when it is undone.
func TestMigrationKeepsSecrets(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store().For(store.System)
	zone := newZone(t, s).ID
	a, first := newApplication(t, s, zone)
	chosen, _ := newApplication(t, s, zone)
	choose(t, s, chosen, chosenSecret)
	archived, _ := newApplication(t, s, zone)
	d.Exec("UPDATE applications SET archived_at = now() WHERE id = $1", archived.ID)
	newest := rotateSecret(t, s, a, 3600)
	pool, err := sql.Open("pgx", d.OwnerURL())
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, pool, migrations.FS)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.DownTo(t.Context(), 26); err != nil {
		t.Fatal(err)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = d.Store().For(store.System)
	for _, tt := range []struct {
		application, secret string
		want                error
	}{{a.ID, newest, nil}, {a.ID, first, store.ErrInvalidSecret}, {chosen.ID, chosenSecret, nil}} {
		if err := verifySecret(t, s, tt.application, tt.secret, nil); !errors.Is(err, tt.want) {
			t.Errorf("got %v, want %v", err, tt.want)
		}
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM application_secrets WHERE created_at = (SELECT created_at FROM applications AS a WHERE a.id = application_id)"); n != 2 {
		t.Errorf("%d secrets of active applications are stored, want 2", n)
	}
}

// A guess that has waited for its turn is not hashed if the guesses before it have used up the
// limit.
func TestLimitIsCheckedAgainBeforeHash(t *testing.T) {
	t.Parallel()
	limited := errors.New("limited")
	calls := 0
	err := store.Client{}.VerifySecret(t.Context(), "a guess", func() error {
		if calls++; calls == 2 {
			return limited
		}
		return nil
	})
	if !errors.Is(err, limited) || calls != 2 {
		t.Errorf("got %v after %d calls", err, calls)
	}
}
