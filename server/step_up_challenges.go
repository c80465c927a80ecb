package server

import (
	"context"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ListStepUpChallenges handles GET /v1/zones/{zoneId}/step-up-challenges.
func (s *Server) ListStepUpChallenges(ctx context.Context, req api.ListStepUpChallengesRequestObject) (api.ListStepUpChallengesResponseObject, error) {
	scope := "step-up challenges of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, scope)
	if err != nil {
		return nil, err
	}
	challenges, err := s.storeFor(ctx).StepUpChallenges(ctx, req.ZoneID, (*string)(req.Params.Status), page)
	if err != nil {
		return nil, err
	}
	challenges, link := paginate(ctx, challenges, page, scope, func(c store.StepUpChallenge) store.Position {
		if req.Params.Status != nil {
			return store.Position{Time: c.ExpiresAt, ID: c.ID}
		}
		return store.Position{Time: c.CreatedAt, ID: c.ID}
	})
	return api.ListStepUpChallenges200JSONResponse{Body: mapSlice(challenges, toStepUpChallenge), Headers: api.ListStepUpChallenges200ResponseHeaders{Link: link}}, nil
}

// GetStepUpChallenge handles GET /v1/zones/{zoneId}/step-up-challenges/{id}.
func (s *Server) GetStepUpChallenge(ctx context.Context, req api.GetStepUpChallengeRequestObject) (api.GetStepUpChallengeResponseObject, error) {
	c, err := s.storeFor(ctx).StepUpChallenge(ctx, req.ZoneID, req.ID)
	if err != nil {
		return nil, err
	}
	return api.GetStepUpChallenge200JSONResponse{Body: toStepUpChallenge(c), Headers: api.GetStepUpChallenge200ResponseHeaders{ETag: etag(c.Version)}}, nil
}

// SatisfyStepUpChallenge handles POST /v1/zones/{zoneId}/step-up-challenges/{id}/satisfy.
func (s *Server) SatisfyStepUpChallenge(ctx context.Context, req api.SatisfyStepUpChallengeRequestObject) (api.SatisfyStepUpChallengeResponseObject, error) {
	c, err := inTx(ctx, s, func(tx *store.Tx) (db.SatisfyStepUpChallengeRow, error) {
		return tx.SatisfyStepUpChallenge(ctx, req.ZoneID, req.ID, precondition(ctx))
	})
	if err != nil {
		return nil, err
	}
	body := api.StepUpApproval{ID: req.ID, SatisfiedAt: timestamp.Time(*c.SatisfiedAt), ApproverSubjectID: *c.ApproverSubjectID}
	return api.SatisfyStepUpChallenge200JSONResponse{Body: body, Headers: api.SatisfyStepUpChallenge200ResponseHeaders{ETag: etag(c.Version)}}, nil
}

// RejectStepUpChallenge handles POST /v1/zones/{zoneId}/step-up-challenges/{id}/reject.
func (s *Server) RejectStepUpChallenge(ctx context.Context, req api.RejectStepUpChallengeRequestObject) (api.RejectStepUpChallengeResponseObject, error) {
	c, err := inTx(ctx, s, func(tx *store.Tx) (db.RejectStepUpChallengeRow, error) {
		return tx.RejectStepUpChallenge(ctx, req.ZoneID, req.ID, req.Body.Reason, precondition(ctx))
	})
	if err != nil {
		return nil, err
	}
	body := api.StepUpRejection{ID: req.ID, RejectedAt: timestamp.Time(*c.RejectedAt), RejectedBy: *c.RejectedBy, RejectedReason: *c.RejectedReason}
	return api.RejectStepUpChallenge200JSONResponse{Body: body, Headers: api.RejectStepUpChallenge200ResponseHeaders{ETag: etag(c.Version)}}, nil
}

func toStepUpChallenge(c store.StepUpChallenge) api.StepUpChallenge {
	session := c.SessionID
	if valueOr(session, "") == "" { // the STS stores '' if the request named no session
		session = nil
	}
	return api.StepUpChallenge{
		ID: c.ID, ZoneID: c.ZoneID, SessionID: session, ChallengeType: api.StepUpChallengeType(c.ChallengeType),
		Status: api.StepUpChallengeStatus(c.Status), MetadataJSON: c.MetadataJSON,
		CreatedAt: timestamp.Time(c.CreatedAt), ExpiresAt: timestamp.Time(c.ExpiresAt),
		SatisfiedAt: timestamp.Optional(c.SatisfiedAt), ApproverSubjectID: c.ApproverSubjectID,
		RejectedAt: timestamp.Optional(c.RejectedAt), RejectedBy: c.RejectedBy, RejectedReason: c.RejectedReason,
	}
}
