package server

import (
	"context"
	"encoding/hex"
	"strconv"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
	"caracal.run/management/store/chain"
)

// verifyBudget is how long a request verifies seals or audit events. The deadline of the request leaves
// time for the rest.
const verifyBudget = 10 * time.Second

// GetAuditHead handles GET /v1/zones/{zoneId}/admin-audit/head.
func (s *Server) GetAuditHead(ctx context.Context, req api.GetAuditHeadRequestObject) (api.GetAuditHeadResponseObject, error) {
	head, err := s.storeFor(ctx).AuditHead(ctx, req.ZoneID)
	if err != nil {
		return nil, err
	}
	return api.GetAuditHead200JSONResponse(toAuditHead(req.ZoneID, head)), nil
}

// GetZonelessAuditHead handles GET /v1/admin-audit/head.
func (s *Server) GetZonelessAuditHead(ctx context.Context, _ api.GetZonelessAuditHeadRequestObject) (api.GetZonelessAuditHeadResponseObject, error) {
	head, err := s.storeFor(ctx).AuditHead(ctx, store.NoZone)
	if err != nil {
		return nil, err
	}
	return api.GetZonelessAuditHead200JSONResponse(toAuditHead(store.NoZone, head)), nil
}

// VerifyAuditEntries handles GET /v1/zones/{zoneId}/admin-audit/verify.
func (s *Server) VerifyAuditEntries(ctx context.Context, req api.VerifyAuditEntriesRequestObject) (api.VerifyAuditEntriesResponseObject, error) {
	result, err := s.verifyAudit(ctx, req.ZoneID, req.Params)
	if err != nil {
		return nil, err
	}
	return api.VerifyAuditEntries200JSONResponse(result), nil
}

// VerifyZonelessAuditEntries handles GET /v1/admin-audit/verify.
func (s *Server) VerifyZonelessAuditEntries(ctx context.Context, req api.VerifyZonelessAuditEntriesRequestObject) (api.VerifyZonelessAuditEntriesResponseObject, error) {
	result, err := s.verifyAudit(ctx, store.NoZone, api.VerifyAuditEntriesParams(req.Params))
	if err != nil {
		return nil, err
	}
	return api.VerifyZonelessAuditEntries200JSONResponse(result), nil
}

func (s *Server) verifyAudit(ctx context.Context, zone string, p api.VerifyAuditEntriesParams) (result api.AuditVerification, err error) {
	r := store.SealRange{From: valueOr(p.FromSeq, 1), To: valueOr(p.ToSeq, 0)}
	if p.ToSeq != nil && r.To < r.From {
		return result, code.InvalidQuery.At("must be at least from_seq", "to_seq")
	}
	var earlier *chain.Head
	switch {
	case p.HeadSeq == nil && p.HeadHash == nil:
	case p.HeadSeq == nil:
		return result, code.InvalidQuery.At("must be set with head_hash", "head_seq")
	case p.HeadHash == nil:
		return result, code.InvalidQuery.At("must be set with head_seq", "head_hash")
	default:
		earlier = &chain.Head{Seq: *p.HeadSeq}
		if _, err := hex.Decode(earlier.Hash[:], []byte(*p.HeadHash)); err != nil {
			return result, err // the pattern in the spec excludes it
		}
	}
	v, err := s.storeFor(ctx).VerifyAudit(ctx, zone, s.auditKey, r, earlier, verifyBudget)
	if err != nil {
		return result, err
	}
	result = api.AuditVerification{
		Valid: v.Fault == nil, Complete: v.Complete, EntriesChecked: v.Checked, FromSeq: strconv.FormatInt(r.From, 10), ToSeq: strconv.FormatInt(v.Last, 10),
		Signed: v.Signed, SignaturesChecked: s.auditKey != nil, Head: toAuditHead(zone, v.Head),
	}
	if f := v.Fault; f != nil {
		result.Fault = &api.AuditFault{Reason: api.AuditFaultReason(f.Reason)}
		if f.Seq != 0 {
			result.Fault.Seq = new(strconv.FormatInt(f.Seq, 10))
		}
		if f.ID != "" {
			result.Fault.ID = &f.ID
		}
	}
	return result, nil
}

func toAuditHead(zone string, h *store.SealHead) api.AuditHead {
	head := api.AuditHead{}
	if zone != store.NoZone {
		head.ZoneID = &zone
	}
	if h == nil {
		h = new(store.SealHead)
	} else {
		head.SealedAt = new(timestamp.Time(h.SealedAt))
	}
	head.Seq, head.Hash, head.Mac = strconv.FormatInt(h.Seq, 10), hex.EncodeToString(h.Hash[:]), hexText(h.MAC)
	return head
}
