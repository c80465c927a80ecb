package state

import (
	"context"
	"fmt"

	"caracal.run/management/store"
)

// zoneSettings plans the settings of the zone.
func (p *planner) zoneSettings(a *Action, spec *ZoneSpec) {
	present := p.zone.Zone
	a.ID = present.ID
	if spec.DCRShutdown != nil && !spec.disablesDCR() {
		p.issue("is allowed only with dcr_enabled: false", "dcr_shutdown")
	}
	var patch store.ZonePatch
	if differs(a, "name", present.Name, spec.Name) {
		patch.Name = spec.Name
		p.check(store.CheckReservedName(p.Actor, store.ZoneName, *spec.Name), "name")
	}
	if differs(a, "slug", present.Slug, spec.Slug) {
		patch.Slug = spec.Slug
		p.check(store.CheckReservedName(p.Actor, store.ZoneSlug, *spec.Slug), "slug")
	}
	if differs(a, "dcr_enabled", present.DCREnabled, spec.DCREnabled) {
		patch.DCREnabled, patch.DCRShutdown = spec.DCREnabled, spec.DCRShutdown
		given(a, "dcr_shutdown", spec.DCRShutdown)
		if p.zone.Registered > 0 {
			p.registered(a, spec.DCRShutdown, p.zone.Registered)
		}
	}
	if differs(a, "operator_coauthor_badge", present.OperatorCoauthorBadge, spec.OperatorCoauthorBadge) {
		patch.OperatorCoauthorBadge = spec.OperatorCoauthorBadge
	}
	if differs(a, "open_registration", present.OpenRegistration, spec.OpenRegistration) {
		patch.OpenRegistration = spec.OpenRegistration
	}
	if len(a.Changes) > 0 {
		a.Verb, a.step = Update, updateZone{patch: patch}
	}
}

// registered says what happens to the active registered applications when registration is
// disabled.
func (p *planner) registered(a *Action, shutdown *string, active int64) {
	switch valueOr(shutdown, "") {
	case "":
		p.issue(fmt.Sprintf("is required to disable dcr_enabled, because registered applications are active: %d", active), "dcr_shutdown")
	case "keep_live":
		a.Warnings = append(a.Warnings, fmt.Sprintf("registered applications that remain active: %d", active))
	case "revoke_live":
		a.Warnings = append(a.Warnings, fmt.Sprintf("registered applications that are archived, with their sessions and agents: %d", active))
	}
}

type updateZone struct {
	unsealed
	patch store.ZonePatch
}

func (s updateZone) effect() any { return s.patch.DCRShutdown }

func (s updateZone) run(ctx context.Context, x *execution) (Result, error) {
	_, err := x.tx.UpdateZone(ctx, x.zone, store.Precondition{}, s.patch)
	return Result{ID: x.zone}, err
}
