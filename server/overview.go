package server

import (
	"context"

	"caracal.run/management/gen/api"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// GetOverview handles GET /v1/zones/{zoneId}/overview.
func (s *Server) GetOverview(ctx context.Context, req api.GetOverviewRequestObject) (api.GetOverviewResponseObject, error) {
	o, err := s.storeFor(ctx).Overview(ctx, req.ZoneID)
	if err != nil {
		return nil, err
	}
	sets := api.OverviewPolicySets{Total: int(o.PolicySets)}
	if o.ActivePolicySet != "" {
		sets.Enforcing, sets.ActiveName = 1, &o.ActivePolicySet
	}
	return api.GetOverview200JSONResponse{
		ZoneID: req.ZoneID, GeneratedAt: timestamp.Time(o.GeneratedAt),
		Applications: api.OverviewApplications{Total: int(o.Applications), Expired: int(o.ExpiredApplications), ExpiringSoon: int(o.ExpiringApplications)},
		Resources:    api.OverviewResources{Total: int(o.Resources), Unenforced: int(o.UnenforcedResources)},
		Providers:    api.OverviewProviders{Total: int(o.Providers)},
		PolicySets:   sets,
		Sessions:     api.OverviewSessions{Active: int(o.ActiveSessions)},
		Decisions24H: api.OverviewDecisions{Allowed: int(o.Allowed), Denied: int(o.Denied)},
		RecentEvents: mapSlice(o.Events, func(e store.OverviewEvent) api.OverviewEvent {
			return api.OverviewEvent{
				ID: e.ID, EventType: e.EventType, RequestID: e.RequestID, Decision: e.Decision, MetadataJSON: redactedOr(e.Metadata, ""), OccurredAt: timestamp.Time(e.OccurredAt),
			}
		}),
	}, nil
}
