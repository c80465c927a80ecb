package store

import (
	"context"
	"strconv"

	"caracal.run/management/gen/db"
)

// The streams that events go to (contract: events.md §1).
const (
	streamSessionsRevoke        = "caracal.sessions.revoke"
	streamAgentsLifecycle       = "caracal.agents.lifecycle"
	streamDelegationsInvalidate = "caracal.delegations.invalidate"
	streamPolicyInvalidate      = "caracal.policy.invalidate"
)

// revoked is what a revocation has ended.
type revoked struct {
	sessions []db.Session
	agents   []db.AgentSession
	edges    []db.DelegationEdge
}

// revokeOf ends the sessions and agent sessions of applications, what descends
// from them, and the delegation edges that touch those agent sessions. The
// transaction holds the zone alone.
func (tx *Tx) revokeOf(ctx context.Context, zone string, applications []string, reason string) (r revoked, err error) {
	if len(applications) == 0 {
		return r, nil
	}
	r.sessions, err = tx.q.RevokeSessionsOfApplications(ctx, db.RevokeSessionsOfApplicationsParams{ZoneID: zone, ApplicationIds: applications, Reason: reason})
	if err != nil {
		return r, err
	}
	r.agents, err = tx.q.TerminateAgentSessionsOfApplications(ctx, db.TerminateAgentSessionsOfApplicationsParams{ZoneID: zone, ApplicationIds: applications, Reason: reason})
	if err != nil {
		return r, err
	}
	return r, tx.revokeRest(ctx, zone, &r, reason)
}

// revokeAll ends every session, agent session and delegation edge of a zone.
func (tx *Tx) revokeAll(ctx context.Context, zone, reason string) (r revoked, err error) {
	r.sessions, err = tx.q.RevokeSessionsOfZone(ctx, db.RevokeSessionsOfZoneParams{ZoneID: zone, Reason: reason})
	if err != nil {
		return r, err
	}
	r.agents, err = tx.q.TerminateAgentSessionsOfZone(ctx, db.TerminateAgentSessionsOfZoneParams{ZoneID: zone, Reason: reason})
	if err != nil {
		return r, err
	}
	return r, tx.revokeRest(ctx, zone, &r, reason)
}

// revokeRest ends what hangs on ended agent sessions, and tells everybody, in
// the contract's order: sessions, agent sessions, edges (zones.md).
func (tx *Tx) revokeRest(ctx context.Context, zone string, r *revoked, reason string) (err error) {
	epoch := int64(0)
	if len(r.agents) > 0 {
		var ids, parents []string
		for _, a := range r.agents {
			ids = append(ids, a.ID)
			if a.ParentID != nil {
				parents = append(parents, *a.ParentID)
			}
		}
		if err := tx.q.ForgetAgentSessionChildren(ctx, db.ForgetAgentSessionChildrenParams{ZoneID: zone, ParentIds: parents}); err != nil {
			return err
		}
		r.edges, err = tx.q.RevokeDelegationEdgesOf(ctx, db.RevokeDelegationEdgesOfParams{ZoneID: zone, AgentSessionIds: ids})
		if err != nil {
			return err
		}
	}
	if len(r.edges) > 0 {
		if epoch, err = tx.q.BumpDelegationGraphEpoch(ctx, zone); err != nil {
			return err
		}
	}
	tx.tellRevoked(zone, *r, reason, epoch)
	return nil
}

func (tx *Tx) tellRevoked(zone string, r revoked, reason string, epoch int64) {
	// A session may be a user's, or other applications' too: only one that was
	// ended here is named.
	ended := map[string]bool{}
	for _, s := range r.sessions {
		ended[s.ID] = true
		tx.record(zone, "sessions", s.ID, diff(shown{"status": "active"}, shown{"status": s.Status}),
			event{zone, streamSessionsRevoke, fields{"zone_id": zone, "session_id": s.ID, "reason": reason}})
	}
	for _, a := range r.agents {
		f := fields{"event": "terminate", "zone_id": zone, "agent_session_id": a.ID, "reason": reason}
		if a.ParentID != nil {
			f["parent_id"] = *a.ParentID
		}
		tx.record(zone, "agent-sessions", a.ID, diff(shown{"status": "live"}, shown{"status": a.Status}), event{zone, streamAgentsLifecycle, f})
	}
	for _, a := range r.agents {
		f := fields{"zone_id": zone, "agent_session_id": a.ID, "reason": reason}
		if ended[a.SubjectSessionID] {
			f["session_id"] = a.SubjectSessionID
		}
		tx.emit(event{zone, streamSessionsRevoke, f})
	}
	for _, e := range r.edges {
		tx.record(zone, "delegation-edges", e.ID, diff(shown{"status": "active"}, shown{"status": e.Status}),
			event{zone, streamSessionsRevoke, fields{"zone_id": zone, "delegation_edge_id": e.ID, "agent_session_id": e.TargetSessionID, "reason": reason}},
			event{zone, streamDelegationsInvalidate, fields{"event": "edge_revoke", "zone_id": zone, "edge_id": e.ID, "affected_edges": "1", "epoch": strconv.FormatInt(epoch, 10)}})
	}
}
