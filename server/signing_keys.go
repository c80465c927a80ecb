package server

import (
	"context"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store"
)

// GetVerificationKeys handles GET /.well-known/jwks.json.
func (s *Server) GetVerificationKeys(ctx context.Context, req api.GetVerificationKeysRequestObject) (api.GetVerificationKeysResponseObject, error) {
	zone := req.Params.ZoneID
	keys, err := s.store.For(store.Actor{Zone: zone}).VerificationKeys(ctx, zone)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, code.SigningKeyNotFound
	}
	return api.GetVerificationKeys200JSONResponse{
		Body:    api.VerificationKeySet{Keys: mapSlice(keys, toVerificationKey)},
		Headers: api.GetVerificationKeys200ResponseHeaders{CacheControl: publicCache},
	}, nil
}

// RotateSigningKey handles POST /v1/zones/{zoneId}/signing-key/rotate.
func (s *Server) RotateSigningKey(ctx context.Context, req api.RotateSigningKeyRequestObject) (api.RotateSigningKeyResponseObject, error) {
	sealer, err := s.store.DataKey(ctx, cause(ctx), req.ZoneID)
	if err != nil {
		return nil, err
	}
	key, err := inTx(ctx, s, func(tx *store.Tx) (db.SigningKey, error) {
		return tx.RotateSigningKey(ctx, req.ZoneID, sealer)
	})
	if err != nil {
		return nil, err
	}
	afterCommit(ctx, func(error) { s.issuer.Forget(req.ZoneID) })
	return api.RotateSigningKey200JSONResponse{Rotated: true, ZoneID: req.ZoneID, Kid: key.ID}, nil
}

func toVerificationKey(k store.VerificationKey) api.VerificationKey {
	return api.VerificationKey{
		Kty: api.VerificationKeyKty(k.JWK.Kty), Crv: api.VerificationKeyCrv(k.JWK.Crv), Use: api.VerificationKeyUseSig,
		Kid: k.ID, Alg: api.VerificationKeyAlgES256, X: k.JWK.X, Y: k.JWK.Y,
	}
}
