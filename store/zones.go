package store

import (
	"context"
	"strings"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// Zone returns an active zone or zone_not_found.
func (s *Store) Zone(ctx context.Context, id string) (db.Zone, error) {
	zone, err := s.shared.GetZone(ctx, id)
	return zone, notFoundAs(err, code.ZoneNotFound)
}

// A ZoneFilter selects zones. A nil field selects all.
type ZoneFilter struct{ Name, Slug *string }

// Zones returns a page of the active zones that match a filter, newest first,
// without reserved ones.
func (s *Store) Zones(ctx context.Context, f ZoneFilter, p Page) ([]db.Zone, error) {
	switch {
	case f.Slug != nil:
		return s.shared.ListZonesBySlug(ctx, db.ListZonesBySlugParams{Slug: *f.Slug, Name: f.Name, BeforeTime: p.After.Time, BeforeID: p.After.ID})
	case f.Name != nil:
		return s.shared.ListZonesByName(ctx, db.ListZonesByNameParams{Name: *f.Name, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
	}
	return s.shared.ListZones(ctx, db.ListZonesParams{BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// NewZone describes a zone to create.
type NewZone struct {
	Name       string
	Slug       *string // nil: generated from the name
	DCREnabled bool
}

// CreateZone creates a zone. It returns reserved_namespace or zone_slug_conflict.
func (tx *Tx) CreateZone(ctx context.Context, n NewZone) (db.Zone, error) {
	row := db.InsertZoneParams{ID: newID(), Name: n.Name, DCREnabled: n.DCREnabled}
	if err := tx.checkReservedName(ZoneName, n.Name); err != nil {
		return db.Zone{}, err
	}
	var zone db.Zone
	var err error
	if n.Slug != nil {
		if err := tx.checkReservedName(ZoneSlug, *n.Slug); err != nil {
			return db.Zone{}, err
		}
		row.Slug, row.Reserved = *n.Slug, reserved(ZoneName, n.Name) || reserved(ZoneSlug, *n.Slug)
		zone, err = tx.q.InsertZone(ctx, row)
		err = notFoundAs(err, code.ZoneSlugConflict)
	} else {
		row.Reserved = reserved(ZoneName, n.Name)
		base := slugOf(n.Name, "zone")
		if reserved(ZoneSlug, base+"-") {
			base = "zone-" + base // neither a generated slug nor a numbered one is in the reserved namespace
		}
		zone, err = insertWithUniqueName(base, row.ID, func(slug string) (db.Zone, error) {
			row.Slug = slug
			return tx.q.InsertZone(ctx, row)
		}, func() (string, error) { return tx.q.GetAvailableZoneSlug(ctx, base) })
	}
	if err != nil {
		return zone, err
	}
	tx.record(zone.ID, audit.Zones, zone.ID, diff(nil, snapshot(audit.Zones, zone)))
	return zone, nil
}

// slugOf returns a name in lower case with every run of characters other than a-z
// and 0-9 replaced by one hyphen and no hyphen at either end, or the fallback if
// nothing is left.
func slugOf(name, fallback string) string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	if len(words) == 0 {
		return fallback
	}
	return strings.Join(words, "-")
}

// DCRStatus returns whether dynamic client registration (DCR) is enabled in a zone
// and the number of active applications that used it, or zone_not_found.
func (s *Store) DCRStatus(ctx context.Context, id string) (db.GetZoneDCRStatusRow, error) {
	status, err := s.shared.GetZoneDCRStatus(ctx, id)
	return status, notFoundAs(err, code.ZoneNotFound)
}

// ZonePatch lists the fields to change; nil leaves a field unchanged.
type ZonePatch struct {
	Name                  *string
	Slug                  *string
	DCREnabled            *bool
	OperatorCoauthorBadge *bool
	OpenRegistration      *bool
	DCRShutdown           *string // requires DCREnabled false: keepActive or revokeActive
	// Verify returns an error if the request contradicts the present zone, whose row
	// is locked.
	Verify func(present db.Zone) error
}

// Values of ZonePatch.DCRShutdown: whether to keep or to revoke the active
// registered applications when registration is disabled.
const (
	keepActive   = "keep_live"
	revokeActive = "revoke_live"
)

// UpdateZone updates an active zone if the precondition accepts its version. If the
// patch changes no field, the zone is not written. UpdateZone returns
// zone_not_found, version_conflict, no_fields, system_zone_read_only,
// reserved_namespace, zone_slug_conflict, dcr_shutdown_not_applicable,
// dcr_shutdown_required or an error of Verify.
func (tx *Tx) UpdateZone(ctx context.Context, id string, precondition Precondition, p ZonePatch) (db.Zone, error) {
	disablesDCR := p.DCREnabled != nil && !*p.DCREnabled
	switch {
	case p.DCRShutdown != nil && !disablesDCR:
		return db.Zone{}, code.DCRShutdownNotApplicable
	case p.Name == nil && p.Slug == nil && p.DCREnabled == nil && p.OperatorCoauthorBadge == nil && p.OpenRegistration == nil:
		return db.Zone{}, code.NoFields
	}
	if err := tx.checkReservedName(ZoneName, valueOr(p.Name, "")); err != nil {
		return db.Zone{}, err
	}
	if err := tx.checkReservedName(ZoneSlug, valueOr(p.Slug, "")); err != nil {
		return db.Zone{}, err
	}
	mode := shared
	if disablesDCR {
		mode = exclusive
	}
	before, err := tx.lockZone(ctx, id, mode)
	if err != nil {
		return before, err
	}
	if err := precondition.check(before.Version); err != nil {
		return before, err
	}
	if err := verify(before, p.Verify); err != nil {
		return before, err
	}
	if disablesDCR && (before.DCREnabled || p.DCRShutdown != nil) {
		if err := tx.shutDownDCR(ctx, id, p.DCRShutdown); err != nil {
			return before, err
		}
	}
	row := db.UpdateZoneParams{
		ID: id, Name: valueOr(p.Name, before.Name), Slug: valueOr(p.Slug, before.Slug),
		DCREnabled: valueOr(p.DCREnabled, before.DCREnabled), OperatorCoauthorBadge: valueOr(p.OperatorCoauthorBadge, before.OperatorCoauthorBadge),
		OpenRegistration: valueOr(p.OpenRegistration, before.OpenRegistration),
	}
	row.Reserved = reserved(ZoneName, row.Name) || reserved(ZoneSlug, row.Slug)
	after := before
	after.Name, after.Slug, after.DCREnabled, after.OperatorCoauthorBadge = row.Name, row.Slug, row.DCREnabled, row.OperatorCoauthorBadge
	after.OpenRegistration = row.OpenRegistration
	if unchanged(audit.Zones, before, after) {
		return before, nil
	}
	after, err = tx.q.UpdateZone(ctx, row)
	if err != nil {
		return after, err
	}
	tx.record(id, audit.Zones, id, diff(snapshot(audit.Zones, before), snapshot(audit.Zones, after)))
	return after, nil
}

// A dcrShutdown is the payload of the audit entry that records that registration
// was disabled in a zone.
type dcrShutdown struct {
	Disabled     bool   `json:"dcr_registration_disabled"`
	Mode         string `json:"dcr_shutdown_mode"`
	Active       int    `json:"live_dcr_applications"`
	Applications int    `json:"revoked_applications"`
	Sessions     int    `json:"revoked_sessions"`
	Agents       int    `json:"terminated_agents"`
	Delegations  int    `json:"revoked_delegations"`
}

// shutDownDCR keeps or revokes the active registered applications when
// registration is disabled. The transaction must have the zone lock in exclusive
// mode, so that no application registers meanwhile.
func (tx *Tx) shutDownDCR(ctx context.Context, zone string, mode *string) error {
	active, err := tx.q.LockActiveDCRApplications(ctx, zone)
	if err != nil {
		return err
	}
	summary := dcrShutdown{Disabled: true, Mode: valueOr(mode, keepActive), Active: len(active)}
	switch {
	case len(active) == 0:
		summary.Mode = "no_live"
	case mode == nil:
		return code.DCRShutdownRequired.With("live_dcr_applications", len(active))
	case *mode == revokeActive:
		if err := tx.archiveApplications(ctx, zone, active); err != nil {
			return err
		}
		r, err := tx.revokeForApplications(ctx, zone, applicationIDs(active), "dcr_shutdown")
		if err != nil {
			return err
		}
		summary.Applications, summary.Sessions, summary.Agents, summary.Delegations = len(active), len(r.sessions), len(r.agents), len(r.edges)
	}
	tx.entries = append(tx.entries, entry{zone: zone, action: "DCR shutdown " + summary.Mode, kind: audit.Zones, id: zone, payload: summary})
	return nil
}

// DeleteZone archives a zone and revokes its admin tokens, sessions, agent
// sessions and delegation edges. It returns zone_not_found, version_conflict or
// system_zone_read_only.
func (tx *Tx) DeleteZone(ctx context.Context, id string, precondition Precondition) error {
	const reason = "zone_archived"
	before, err := tx.lockZone(ctx, id, exclusive)
	if err != nil {
		return err
	}
	if err := precondition.check(before.Version); err != nil {
		return err
	}
	if err := tx.q.ArchiveZone(ctx, id); err != nil {
		return err
	}
	tokens, err := tx.q.RevokeAdminTokensOfZone(ctx, id)
	if err != nil {
		return err
	}
	tx.recordRevoked(tokens)
	if err := tx.revokeAll(ctx, id, reason); err != nil {
		return err
	}
	if err := tx.deactivateZone(ctx, id); err != nil {
		return err
	}
	tx.record(id, audit.Zones, id, deleted, newEvent(id, streamPolicyInvalidate, fields{"zone_id": id}))
	return nil
}

// valueOr returns the value that a pointer points to, or the fallback if it is
// nil.
func valueOr[T any](value *T, fallback T) T {
	if value == nil {
		return fallback
	}
	return *value
}
