package server

import (
	"context"
	"strconv"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/store"
	"caracal.run/management/store/auditchain"
)

// GetAuditEventHead handles GET /v1/zones/{zoneId}/audit/head.
func (s *Server) GetAuditEventHead(ctx context.Context, req api.GetAuditEventHeadRequestObject) (api.GetAuditEventHeadResponseObject, error) {
	head, err := s.storeFor(ctx).AuditChainHead(ctx, req.ZoneID)
	if err != nil {
		return nil, err
	}
	return api.GetAuditEventHead200JSONResponse(toAuditEventHead(req.ZoneID, head)), nil
}

// VerifyAuditEvents handles GET /v1/zones/{zoneId}/audit/verify.
func (s *Server) VerifyAuditEvents(ctx context.Context, req api.VerifyAuditEventsRequestObject) (api.VerifyAuditEventsResponseObject, error) {
	p := req.Params
	r := store.ChainRange{First: valueOr(p.FromSeq, 1), Last: valueOr(p.ToSeq, 0), Budget: verifyBudget}
	switch {
	case p.ToSeq != nil && r.Last < r.First:
		return nil, code.InvalidQuery.At("must be at least from_seq", "to_seq")
	case p.HeadSeq == nil && p.HeadHash != nil:
		return nil, code.InvalidQuery.At("must be set with head_hash", "head_seq")
	case p.HeadSeq != nil && p.HeadHash == nil:
		return nil, code.InvalidQuery.At("must be set with head_seq", "head_hash")
	case p.HeadSeq != nil:
		r.EarlierHead = &auditchain.Head{Seq: *p.HeadSeq, ContentHash: *p.HeadHash}
	}
	v, err := s.storeFor(ctx).VerifyAuditChain(ctx, s.auditKey, req.ZoneID, r)
	if err != nil {
		return nil, err
	}
	result := api.AuditEventVerification{
		Valid: v.Fault == nil, Complete: v.Complete, EventsChecked: v.Events, EventsDeleted: v.Dropped,
		FromSeq: strconv.FormatInt(v.First, 10), ToSeq: strconv.FormatInt(v.Last, 10),
		Signed: v.Signed, SignaturesChecked: s.auditKey != nil, Head: toAuditEventHead(req.ZoneID, v.Head),
	}
	if f := v.Fault; f != nil {
		result.Fault = &api.AuditEventFault{Seq: strconv.FormatInt(f.Seq, 10), Reason: api.AuditEventFaultReason(f.Reason), Detail: f.Detail}
		if f.EventID != "" {
			result.Fault.ID = &f.EventID
		}
	}
	return api.VerifyAuditEvents200JSONResponse(result), nil
}

func toAuditEventHead(zone string, h auditchain.Head) api.AuditEventHead {
	head := api.AuditEventHead{ZoneID: zone, Seq: strconv.FormatInt(h.Seq, 10)}
	if h.Seq > 0 {
		head.Hash = &h.ContentHash
	}
	if h.MAC != "" {
		head.Mac = &h.MAC
	}
	return head
}
