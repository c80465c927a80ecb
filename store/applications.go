package store

import (
	"context"
	"errors"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/controlkey"
)

// Registration methods of applications.
const (
	managed = "managed" // created by an administrator
	dcr     = "dcr"     // dynamic client registration; the application expires
)

// Application returns an active application of a zone or application_not_found.
func (s *Store) Application(ctx context.Context, zone, id string) (Application, error) {
	return getApplication(ctx, s.shared, zone, id)
}

// An ApplicationFilter selects applications. A nil field selects all.
type ApplicationFilter struct{ Name, RegistrationMethod *string }

// Applications returns a page of a zone's active applications that match a filter,
// newest first. It is empty if the zone does not exist.
func (s *Store) Applications(ctx context.Context, zone string, f ApplicationFilter, p Page) ([]db.ListApplicationsRow, error) {
	switch {
	case f.Name != nil:
		rows, err := s.shared.ListApplicationsByName(ctx, db.ListApplicationsByNameParams{
			ZoneID: zone, Name: *f.Name, RegistrationMethod: f.RegistrationMethod,
			BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
		return convertRows(rows, err, func(r db.ListApplicationsByNameRow) db.ListApplicationsRow { return db.ListApplicationsRow(r) })
	case f.RegistrationMethod != nil:
		rows, err := s.shared.ListApplicationsByRegistrationMethod(ctx, db.ListApplicationsByRegistrationMethodParams{
			ZoneID: zone, RegistrationMethod: *f.RegistrationMethod, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
		return convertRows(rows, err, func(r db.ListApplicationsByRegistrationMethodRow) db.ListApplicationsRow {
			return db.ListApplicationsRow(r)
		})
	}
	return s.shared.ListApplications(ctx, db.ListApplicationsParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// NewApplication describes a managed application to create.
type NewApplication struct {
	Name   string
	Traits []string
}

// CreateApplication creates a managed application and returns it with its client
// secret, of which only a hash is stored. It returns zone_not_found,
// system_zone_read_only, reserved_namespace or the code of an invalid trait.
func (tx *Tx) CreateApplication(ctx context.Context, zone string, n NewApplication) (db.Application, string, error) {
	if err := tx.checkReservedName(ApplicationName, n.Name); err != nil {
		return db.Application{}, "", err
	}
	if err := CheckTraits(tx.cause.Actor, n.Traits); err != nil {
		return db.Application{}, "", err
	}
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.Application{}, "", err
	}
	return tx.insertApplication(ctx, db.InsertApplicationParams{
		ZoneID: zone, Name: n.Name, RegistrationMethod: managed, Traits: append([]string{}, n.Traits...),
	})
}

// Registration describes an application that registers itself.
type Registration struct {
	Name      string
	ExpiresIn int64 // seconds
}

// RegisterApplication creates an application that expires and returns it with its
// client secret. It locks the zone's row, so that concurrent registrations cannot
// exceed the limit. It returns zone_not_found, system_zone_read_only,
// reserved_namespace, dcr_disabled or dcr_limit_exceeded.
func (tx *Tx) RegisterApplication(ctx context.Context, zone string, r Registration) (db.Application, string, error) {
	if err := tx.checkReservedName(ApplicationName, r.Name); err != nil {
		return db.Application{}, "", err
	}
	z, err := tx.lockZone(ctx, zone, shared)
	if err != nil {
		return db.Application{}, "", err
	}
	if err := tx.checkRegistration(ctx, z); err != nil {
		return db.Application{}, "", err
	}
	return tx.insertApplication(ctx, db.InsertApplicationParams{
		ZoneID: zone, Name: r.Name, RegistrationMethod: dcr, Traits: []string{}, ExpiresIn: &r.ExpiresIn,
	})
}

// checkRegistration returns dcr_disabled or dcr_limit_exceeded if no application can
// register in a zone, whose row is locked.
func (tx *Tx) checkRegistration(ctx context.Context, zone db.Zone) error {
	const maxActive = 1000 // active registered applications per zone
	if !zone.DCREnabled {
		return code.DCRDisabled
	}
	active, err := tx.q.CountActiveDCRApplications(ctx, zone.ID)
	if err == nil && active >= maxActive {
		return code.DCRLimitExceeded
	}
	return err
}

func (tx *Tx) insertApplication(ctx context.Context, p db.InsertApplicationParams) (db.Application, string, error) {
	secret, secretID := newSecret("cs_"), newID()
	p.ID = newID()
	a, err := tx.q.InsertApplication(ctx, p)
	if err != nil {
		return a, "", err
	}
	if err := tx.addSecret(ctx, a.ZoneID, a.ID, secretID, hashGenerated(secret)); err != nil {
		return a, "", err
	}
	tx.recordApplication(nil, Application{Application: a, Secrets: []ApplicationSecret{{ID: secretID, CreatedAt: a.CreatedAt}}}, false)
	return a, secret, nil
}

// ApplicationPatch lists the fields to change; nil leaves a field unchanged.
type ApplicationPatch struct {
	Name         *string
	ClientSecret *SecretHash
	Traits       []string
	// Verify returns an error if the request contradicts the present application,
	// whose row is locked.
	Verify func(present Application) error
}

// UpdateApplication updates an application if the precondition accepts its
// version. If the patch changes no field, the application is not written; a client
// secret is always a change. UpdateApplication returns application_not_found,
// version_conflict, no_fields, reserved_namespace, the code of an invalid trait, an
// error of Verify, or an error of the zone.
func (tx *Tx) UpdateApplication(ctx context.Context, zone, id string, precondition Precondition, p ApplicationPatch) (Application, error) {
	if p.Name == nil && p.ClientSecret == nil && p.Traits == nil {
		return Application{}, code.NoFields
	}
	if p.Name != nil {
		if err := tx.checkReservedName(ApplicationName, *p.Name); err != nil {
			return Application{}, err
		}
	}
	if err := CheckTraits(tx.cause.Actor, p.Traits); err != nil {
		return Application{}, err
	}
	before, err := tx.lockApplication(ctx, zone, id, shared, precondition)
	if err != nil {
		return before, err
	}
	if err := verify(before, p.Verify); err != nil {
		return before, err
	}
	after := before
	after.Name = valueOr(p.Name, before.Name)
	if p.Traits != nil {
		after.Traits = p.Traits
		if _, isKey, _ := controlkey.Parse(p.Traits); isKey && before.RegistrationMethod != managed {
			return before, code.TraitInvalid.With("detail", "only a managed application can be a Control key")
		}
	}
	if p.ClientSecret == nil && unchanged(audit.Applications, before.Application, after.Application) {
		return before, nil
	}
	deferred := db.New(deferredConn{tx.conn})
	err = deferred.UpdateApplication(ctx, db.UpdateApplicationParams{ZoneID: zone, ID: id, Name: after.Name, Traits: after.Traits})
	if err == nil && p.ClientSecret != nil {
		err = errors.Join(
			deferred.DeleteApplicationSecrets(ctx, db.DeleteApplicationSecretsParams{ZoneID: zone, ApplicationIds: []string{id}}),
			tx.addSecret(ctx, zone, id, newID(), *p.ClientSecret),
		)
	}
	if err != nil {
		return before, err
	}
	after, err = getApplication(ctx, tx.q, zone, id)
	if err != nil {
		return after, err
	}
	tx.recordApplication(&before, after, p.ClientSecret != nil)
	return after, nil
}

// DeleteApplication archives an application, removes it from the resources that
// it exchanges tokens for, and revokes its sessions, agent sessions and
// delegation edges. It returns application_not_found, version_conflict,
// trait_forbidden or an error of its zone.
func (tx *Tx) DeleteApplication(ctx context.Context, zone, id string, precondition Precondition) error {
	before, err := tx.lockApplication(ctx, zone, id, exclusive, precondition)
	if err != nil {
		return err
	}
	return tx.endApplications(ctx, zone, []db.Application{before.Application})
}

// endApplications archives applications with all that DeleteApplication says. The
// transaction must have the zone lock in exclusive mode.
func (tx *Tx) endApplications(ctx context.Context, zone string, applications []db.Application) error {
	if err := tx.archiveApplications(ctx, zone, applications); err != nil {
		return err
	}
	ids := applicationIDs(applications)
	if err := tx.unbindResources(ctx, zone, ids); err != nil {
		return err
	}
	_, err := tx.revokeForApplications(ctx, zone, ids, "application_archived")
	return err
}

// archiveApplications archives applications and deletes their client secrets and
// registrations.
func (tx *Tx) archiveApplications(ctx context.Context, zone string, applications []db.Application) error {
	ids := applicationIDs(applications)
	deferred := db.New(deferredConn{tx.conn})
	err := errors.Join(
		deferred.DeleteApplicationSecrets(ctx, db.DeleteApplicationSecretsParams{ZoneID: zone, ApplicationIds: ids}),
		deferred.DeleteClientRegistrations(ctx, db.DeleteClientRegistrationsParams{ZoneID: zone, ApplicationIds: ids}),
	)
	if err != nil {
		return err
	}
	if err := tx.q.ArchiveApplications(ctx, db.ArchiveApplicationsParams{ZoneID: zone, Ids: ids}); err != nil {
		return err
	}
	for _, a := range applications {
		tx.record(zone, audit.Applications, a.ID, deleted)
	}
	return nil
}

// lockApplication takes the zone lock and locks an application's row, if the actor
// is allowed to change it and the precondition accepts its version. The lock is a
// statement before the one that reads, which would otherwise not see the secrets that the
// transaction before this one has added.
func (tx *Tx) lockApplication(ctx context.Context, zone, id string, mode lockMode, precondition Precondition) (Application, error) {
	if _, err := tx.requireZone(ctx, zone, mode); err != nil {
		return Application{}, err
	}
	if err := db.New(deferredConn{tx.conn}).LockApplication(ctx, db.LockApplicationParams{ZoneID: zone, ID: id}); err != nil {
		return Application{}, err
	}
	a, err := getApplication(ctx, tx.q, zone, id)
	if err != nil {
		return a, err
	}
	if err := CheckTraitAccess(tx.cause.Actor, a.Traits); err != nil {
		return a, err
	}
	return a, precondition.check(a.Version)
}

func applicationIDs(applications []db.Application) []string {
	ids := make([]string, len(applications))
	for i, a := range applications {
		ids[i] = a.ID
	}
	return ids
}
