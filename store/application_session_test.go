package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// createSession creates a session of an application.
func createSession(t *testing.T, s *store.Store, zone, application, id string) error {
	t.Helper()
	return s.InTx(t.Context(), cause, func(tx *store.Tx) error {
		return tx.CreateApplicationSession(t.Context(), zone, application, id, time.Now().Add(time.Minute))
	})
}

func TestCreateApplicationSession(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store().For(store.System)
	zone, other := newZone(t, s).ID, newZone(t, s).ID
	a, _ := newApplication(t, s, zone)
	archived, _ := newApplication(t, s, zone)
	d.Exec("UPDATE applications SET archived_at = now() WHERE id = $1", archived.ID)
	expired, _ := newApplication(t, s, zone)
	d.Exec("UPDATE applications SET registration_method = 'dcr', expires_at = now() WHERE id = $1", expired.ID)
	archivedZone := newZone(t, s).ID
	ofArchivedZone, _ := newApplication(t, s, archivedZone)
	d.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", archivedZone)
	for n, tt := range []struct {
		name, zone, application string
		want                    error
	}{
		{"active", zone, a.ID, nil},
		{"of another zone", other, a.ID, code.ApplicationNotFound},
		{"archived", zone, archived.ID, code.ApplicationNotFound},
		{"expired", zone, expired.ID, code.ApplicationNotFound},
		{"unknown", zone, "unknown", code.ApplicationNotFound},
		{"archived zone", archivedZone, ofArchivedZone.ID, code.ApplicationNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			id := fmt.Sprint("session-", n)
			if err := createSession(t, s, tt.zone, tt.application, id); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			want := 0
			if tt.want == nil {
				want = 1
			}
			for _, count := range []string{"SELECT count(*) FROM sessions WHERE id = $1 AND subject_id = application_id", "SELECT count(*) FROM audit_entries WHERE entity_id = $1 AND entity_type = 'sessions'"} {
				if got := storetest.Value[int](d, count, id); got != want {
					t.Errorf("%s: got %d, want %d", count, got, want)
				}
			}
		})
	}
}

// An application that is archived while it gets sessions has no active session afterwards.
func TestArchivedApplicationHasNoSession(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store().For(store.System)
	zone := newZone(t, s).ID
	for round := range 5 {
		a, _ := newApplication(t, s, zone)
		var all sync.WaitGroup
		for n := range 6 {
			all.Go(func() {
				err := createSession(t, s, zone, a.ID, fmt.Sprint("session-", round, "-", n))
				if err != nil && !errors.Is(err, code.ApplicationNotFound) {
					t.Error(err)
				}
			})
			if n == 2 {
				all.Go(func() {
					err := s.InTx(t.Context(), cause, func(tx *store.Tx) error {
						return tx.DeleteApplication(t.Context(), zone, a.ID, store.Precondition{})
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
		}
		all.Wait()
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM sessions WHERE status = 'active'"); n != 0 {
		t.Errorf("%d sessions of archived applications are active", n)
	}
}

// A limit of failures keeps texts from being hashed, and no generated secret from being
// accepted.
func TestVerifyClientSecretAsksBeforeHashing(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store().For(store.System)
	zone := newZone(t, s).ID
	generated, secret := newApplication(t, s, zone)
	chosen, _ := newApplication(t, s, zone)
	choose(t, s, chosen, chosenSecret)
	limited := errors.New("limited")
	for _, tt := range []struct {
		name, application, secret string
		want                      error
	}{
		{"generated", generated.ID, secret, nil},
		{"wrong, of the form of a generated one", generated.ID, secret[:45] + "_", store.ErrInvalidSecret},
		{"a guess", generated.ID, "a guess", limited},
		{"chosen", chosen.ID, chosenSecret, limited},
		{"of an unknown application", "unknown", "a guess", limited},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := verifySecret(t, s, tt.application, tt.secret, func() error { return limited }); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}
