package store

import (
	"context"
	"strings"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// Zone is a live zone, or zone_not_found.
func (s *Store) Zone(ctx context.Context, id string) (db.Zone, error) {
	zone, err := s.q.GetZone(ctx, id)
	return zone, notFoundAs(err, code.ZoneNotFound)
}

// Zones is a page of live zones that are not Caracal's own, newest first.
func (s *Store) Zones(ctx context.Context, p Page) ([]db.Zone, error) {
	return s.q.ListZones(ctx, db.ListZonesParams{BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// NewZone is what a caller says of a zone to be.
type NewZone struct {
	Name       string
	Slug       *string // nil: made from the name
	DCREnabled bool
}

// CreateZone adds a zone.
func (tx *Tx) CreateZone(ctx context.Context, n NewZone) (db.Zone, error) {
	row := db.InsertZoneParams{ID: newID(), Name: n.Name, DCREnabled: n.DCREnabled}
	if err := tx.checkReservedName(zoneName, n.Name); err != nil {
		return db.Zone{}, err
	}
	var zone db.Zone
	var err error
	if n.Slug != nil {
		if err := tx.checkReservedName(zoneSlug, *n.Slug); err != nil {
			return db.Zone{}, err
		}
		row.Slug, row.Reserved = *n.Slug, reserved(zoneName, n.Name) || reserved(zoneSlug, *n.Slug)
		zone, err = tx.q.InsertZone(ctx, row)
		err = notFoundAs(err, code.ZoneSlugConflict)
	} else {
		row.Reserved = reserved(zoneName, n.Name)
		base := slugOf(n.Name, "zone")
		if reserved(zoneSlug, base+"-") {
			base = "zone-" + base // a name does not lead into the reserved namespace, nor does a number after it
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

// slugOf is a name in lower case with everything but letters and digits made
// into single hyphens, or something else where nothing is left.
func slugOf(name, fallback string) string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	if len(words) == 0 {
		return fallback
	}
	return strings.Join(words, "-")
}

// DCRStatus is whether applications may register themselves in a zone, and how
// many live ones did.
func (s *Store) DCRStatus(ctx context.Context, id string) (db.GetZoneDCRStatusRow, error) {
	status, err := s.q.GetZoneDCRStatus(ctx, id)
	return status, notFoundAs(err, code.ZoneNotFound)
}

// ZonePatch is what a caller wants changed; nil stays as it is.
type ZonePatch struct {
	Name                  *string
	Slug                  *string
	DCREnabled            *bool
	OperatorCoauthorBadge *bool
	DCRShutdown           *string // goes with DCREnabled false: what becomes of live applications
}

// What becomes of the live applications when registration ends.
const (
	keepActive   = "keep_live"
	revokeActive = "revoke_live"
)

// UpdateZone changes a zone that is still at a version that match admits.
func (tx *Tx) UpdateZone(ctx context.Context, id string, match Precondition, p ZonePatch) (db.Zone, error) {
	disables := p.DCREnabled != nil && !*p.DCREnabled
	switch {
	case p.DCRShutdown != nil && !disables:
		return db.Zone{}, code.DCRShutdownNotApplicable
	case p == ZonePatch{}:
		return db.Zone{}, code.NoFields
	}
	if err := tx.checkReservedName(zoneName, valueOr(p.Name, "")); err != nil {
		return db.Zone{}, err
	}
	if err := tx.checkReservedName(zoneSlug, valueOr(p.Slug, "")); err != nil {
		return db.Zone{}, err
	}
	mode := shared
	if disables {
		mode = exclusive
	}
	before, err := tx.lockZone(ctx, id, mode)
	if err != nil {
		return before, err
	}
	if err := match.check(before.Version); err != nil {
		return before, err
	}
	if disables && (before.DCREnabled || p.DCRShutdown != nil) {
		if err := tx.shutDownDCR(ctx, id, p.DCRShutdown); err != nil {
			return before, err
		}
	}
	after, err := tx.q.UpdateZone(ctx, db.UpdateZoneParams{
		ID: id, Name: p.Name, Slug: p.Slug, DCREnabled: p.DCREnabled, OperatorCoauthorBadge: p.OperatorCoauthorBadge,
		Reserved: reserved(zoneName, valueOr(p.Name, before.Name)) || reserved(zoneSlug, valueOr(p.Slug, before.Slug)),
	})
	if err != nil {
		return after, err
	}
	tx.record(id, audit.Zones, id, diff(snapshot(audit.Zones, before), snapshot(audit.Zones, after)))
	return after, nil
}

// A dcrShutdown is what the trail says of the end of registration.
type dcrShutdown struct {
	Disabled     bool   `json:"dcr_registration_disabled"`
	Mode         string `json:"dcr_shutdown_mode"`
	Live         int    `json:"live_dcr_applications"`
	Applications int    `json:"revoked_applications"`
	Sessions     int    `json:"revoked_sessions"`
	Agents       int    `json:"terminated_agents"`
	Delegations  int    `json:"revoked_delegations"`
}

// shutDownDCR decides what becomes of the live applications that registered
// themselves. The zone is held alone: no other registers meanwhile.
func (tx *Tx) shutDownDCR(ctx context.Context, zone string, mode *string) error {
	live, err := tx.q.LockActiveDCRApplications(ctx, zone)
	if err != nil {
		return err
	}
	done := dcrShutdown{Disabled: true, Mode: valueOr(mode, keepActive), Live: len(live)}
	switch {
	case len(live) == 0:
		done.Mode = "no_live"
	case mode == nil:
		return code.DCRShutdownRequired.With("live_dcr_applications", len(live))
	case *mode == revokeActive:
		if err := tx.archiveApplications(ctx, zone, live); err != nil {
			return err
		}
		r, err := tx.revokeForApplications(ctx, zone, applicationIDs(live), "dcr_shutdown")
		if err != nil {
			return err
		}
		done.Applications, done.Sessions, done.Agents, done.Delegations = len(live), len(r.sessions), len(r.agents), len(r.edges)
	}
	tx.entries = append(tx.entries, entry{zone: zone, action: "DCR shutdown " + done.Mode, kind: audit.Zones, id: zone, payload: done})
	return nil
}

// DeleteZone archives a zone and revokes all that lives in it, its tokens among
// them.
func (tx *Tx) DeleteZone(ctx context.Context, id string, match Precondition) error {
	const reason = "zone_archived"
	before, err := tx.lockZone(ctx, id, exclusive)
	if err != nil {
		return err
	}
	if err := match.check(before.Version); err != nil {
		return err
	}
	if err := tx.q.ArchiveZone(ctx, id); err != nil {
		return err
	}
	tokens, err := tx.q.RevokeAdminTokensOfZone(ctx, id)
	if err != nil {
		return err
	}
	if err := tx.recordRevoked(ctx, tokens); err != nil {
		return err
	}
	if err := tx.revokeAll(ctx, id, reason); err != nil {
		return err
	}
	tx.record(id, audit.Zones, id, noFields, event{id, streamPolicyInvalidate, fields{"zone_id": id}})
	return nil
}

func valueOr[T any](value *T, fallback T) T {
	if value == nil {
		return fallback
	}
	return *value
}
