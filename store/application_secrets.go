package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// An Application is an application with its client secrets, the oldest first. A secret
// that has expired is among them until it is deleted.
type Application struct {
	db.Application
	Secrets []ApplicationSecret
	Client  *ClientMetadata // of a registered client, in its audit entries; otherwise nil
}

// An ApplicationSecret is a client secret, without its value.
type ApplicationSecret struct {
	ID        string     `json:"id"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at"` // nil: never
	expired   bool       // when it was read
}

// getApplication returns an active application of a zone or application_not_found.
func getApplication(ctx context.Context, q *db.Queries, zone, id string) (Application, error) {
	rows, err := q.GetApplication(ctx, db.GetApplicationParams{ZoneID: zone, ID: id})
	if err != nil {
		return Application{}, err
	}
	if len(rows) == 0 {
		return Application{}, code.ApplicationNotFound
	}
	a := Application{Application: rows[0].Application, Secrets: []ApplicationSecret{}}
	for _, r := range rows {
		if r.SecretID != nil {
			a.Secrets = append(a.Secrets, ApplicationSecret{*r.SecretID, *r.SecretCreatedAt, r.SecretExpiresAt, r.SecretExpired})
		}
	}
	return a, nil
}

// recordApplication adds the audit entry of a created or updated application. Before is
// nil if it was created, and rotated says whether it has a new client secret.
func (tx *Tx) recordApplication(before *Application, after Application, rotated bool) {
	fields := func(a Application) auditFields {
		fields := snapshot(audit.Applications, a.Application)
		fields["secrets"] = a.Secrets
		if a.Client != nil {
			fields["client_metadata"] = *a.Client
		}
		return fields
	}
	change := diff(nil, fields(after))
	if before != nil {
		change = diff(fields(*before), fields(after))
		change.SecretRotated = rotated
	}
	tx.record(after.ZoneID, audit.Applications, after.ID, change)
}

// SecretRotation describes how a new client secret replaces those that an application has.
type SecretRotation struct {
	Overlap int64 // seconds for which the other secrets stay valid
}

// RotateApplicationSecret adds a generated client secret to an application and returns the
// application with the secret, of which only a hash is stored. The other secrets expire
// after the overlap, or earlier if they would anyway. It returns application_not_found,
// version_conflict, trait_forbidden, client_secret_limit_exceeded or an error of the zone.
func (tx *Tx) RotateApplicationSecret(ctx context.Context, zone, id string, precondition Precondition, r SecretRotation) (Application, string, error) {
	const maxValid = 3 // secrets that have not expired, including the new one
	before, err := tx.lockApplication(ctx, zone, id, shared, precondition)
	if err != nil {
		return before, "", err
	}
	valid := 0
	for _, s := range before.Secrets {
		if !s.expired && r.Overlap > 0 {
			valid++
		}
	}
	if valid >= maxValid {
		return before, "", code.ClientSecretLimitExceeded
	}
	secret := newSecret("cs_")
	deferred := db.New(deferredConn{tx.conn})
	err = errors.Join(
		deferred.TouchApplications(ctx, db.TouchApplicationsParams{ZoneID: zone, Ids: []string{id}}),
		deferred.LimitApplicationSecrets(ctx, db.LimitApplicationSecretsParams{ZoneID: zone, ApplicationID: id, Seconds: r.Overlap}),
		deferred.DeleteExpiredSecrets(ctx, db.DeleteExpiredSecretsParams{ZoneID: zone, ApplicationIds: []string{id}}),
		tx.addSecret(ctx, zone, id, newID(), hashGenerated(secret)),
	)
	if err != nil {
		return before, "", err
	}
	after, err := getApplication(ctx, tx.q, zone, id)
	if err != nil {
		return after, "", err
	}
	tx.recordApplication(&before, after, true)
	return after, secret, nil
}

// addSecret queues the insertion of a client secret.
func (tx *Tx) addSecret(ctx context.Context, zone, application, id string, hash SecretHash) error {
	return db.New(deferredConn{tx.conn}).InsertApplicationSecret(ctx, db.InsertApplicationSecretParams{
		ZoneID: zone, ApplicationID: application, ID: id, SecretHash: string(hash),
	})
}

// ExpiredSecrets returns the applications of at most limit expired client secrets, without
// those of excluded zones.
func (s *Store) ExpiredSecrets(ctx context.Context, limit int, excluded []string) ([]Due, error) {
	rows, err := s.q.ListExpiredSecrets(ctx, db.ListExpiredSecretsParams{ExcludedZones: excluded, RowLimit: int32(limit)})
	return dueIn(rows, err, func(r db.ListExpiredSecretsRow) dueRow { return dueRow(r) })
}

// DeleteExpiredSecrets deletes the expired client secrets of applications and returns how
// many. There is one audit entry for each application, with the secrets before and after.
func (tx *Tx) DeleteExpiredSecrets(ctx context.Context, due Due) (int, error) {
	deferred := db.New(deferredConn{tx.conn})
	err := errors.Join(
		tx.lockZoneID(ctx, due.Zone, shared),
		deferred.LockApplications(ctx, db.LockApplicationsParams{ZoneID: due.Zone, Ids: due.IDs}),
	)
	if err != nil {
		return 0, err
	}
	rows, err := tx.q.ListApplicationSecrets(ctx, db.ListApplicationSecretsParams{ZoneID: due.Zone, ApplicationIds: due.IDs})
	if err != nil {
		return 0, err
	}
	before, after := map[string][]ApplicationSecret{}, map[string][]ApplicationSecret{}
	for _, r := range rows {
		s := ApplicationSecret{r.ID, r.CreatedAt, r.ExpiresAt, r.Expired}
		before[r.ApplicationID] = append(before[r.ApplicationID], s)
		if !s.expired {
			after[r.ApplicationID] = append(after[r.ApplicationID], s)
		}
	}
	deleted := 0
	var changed []string
	for _, id := range slices.Sorted(maps.Keys(before)) {
		expired := len(before[id]) - len(after[id])
		if expired == 0 {
			continue
		}
		deleted += expired
		changed = append(changed, id)
		left := append([]ApplicationSecret{}, after[id]...)
		tx.record(due.Zone, audit.Applications, id, diff(auditFields{"secrets": before[id]}, auditFields{"secrets": left}))
	}
	if deleted == 0 {
		return 0, nil
	}
	return deleted, errors.Join(
		deferred.DeleteExpiredSecrets(ctx, db.DeleteExpiredSecretsParams{ZoneID: due.Zone, ApplicationIds: changed}),
		deferred.TouchApplications(ctx, db.TouchApplicationsParams{ZoneID: due.Zone, Ids: changed}),
	)
}
