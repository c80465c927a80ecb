package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/problem"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/secret"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
	"caracal.run/management/store/oauthstate"
	"caracal.run/management/store/seal"
)

// AuthorizeProviderGrant handles POST /v1/zones/{zoneId}/provider-grants/oauth/authorize.
// The audit entry is committed before the state is stored.
func (s *Server) AuthorizeProviderGrant(ctx context.Context, req api.AuthorizeProviderGrantRequestObject) (api.AuthorizeProviderGrantResponseObject, error) {
	request := store.ProviderGrantRequest{
		ProviderGrantKey: store.ProviderGrantKey{UserID: req.Body.UserID, ResourceID: req.Body.ResourceID, ProviderID: req.Body.ProviderID},
		Scopes:           req.Body.Scopes,
	}
	by := cause(ctx)
	config, err := s.providerOfGrant(ctx, by, req.ZoneID, request)
	if err != nil {
		return nil, withDetail(err, code.ProviderGrantUnsupported, "only oauth2_authorization_code providers use browser authorization")
	}
	state, verifier := oauthstate.NewSecret(), oauthstate.NewSecret()
	to, err := provider.AuthorizationURL(config, provider.AuthorizationRequest{State: state, CodeChallenge: oauthstate.Challenge(verifier)})
	if err != nil {
		return nil, exchangeError(err)
	}
	fingerprint, err := config.Fingerprint()
	if err != nil {
		return nil, exchangeError(err)
	}
	err = s.store.InTx(ctx, by, func(tx *store.Tx) error { return tx.AuthorizeProviderGrant(ctx, req.ZoneID, request) })
	if err != nil {
		return nil, err
	}
	expires, err := s.states.Put(ctx, by, state, oauthstate.Authorization{
		Zone: req.ZoneID, Grant: request, Provider: fingerprint, CodeVerifier: verifier, Actor: by.Actor, RequestID: by.RequestID,
	})
	if err != nil {
		return nil, err
	}
	return api.AuthorizeProviderGrant200JSONResponse{AuthorizationURL: to, State: state, ExpiresAt: timestamp.Time(expires)}, nil
}

// CompleteProviderGrant handles GET /v1/zones/{zoneId}/provider-grants/oauth/callback.
// It acts for the actor who started the authorization.
func (s *Server) CompleteProviderGrant(ctx context.Context, req api.CompleteProviderGrantRequestObject) (api.CompleteProviderGrantResponseObject, error) {
	started, err := s.states.Take(ctx, req.ZoneID, req.Params.State)
	if err != nil {
		return nil, err
	}
	by := cause(ctx)
	by.Actor = started.Actor
	g, err := s.completeAuthorization(ctx, by, started, req.Params)
	if err != nil {
		by.Status = code.Table[problem.Code(err)].Status
		s.denied.add(middleware.DeniedRequest{Cause: by, Zone: started.Zone, EntityKind: "providers", EntityID: started.Grant.ProviderID})
		return nil, err
	}
	if middleware.RequestInfoFrom(ctx).WantsHTML {
		return connectedPage, nil
	}
	return api.CompleteProviderGrant201JSONResponse(toProviderGrant(g)), nil
}

// completeAuthorization exchanges the code and stores the tokens.
func (s *Server) completeAuthorization(ctx context.Context, by store.Cause, started oauthstate.Authorization, params api.CompleteProviderGrantParams) (store.ProviderGrant, error) {
	token, err := s.store.For(store.System).AdminToken(ctx, started.Actor.ID)
	switch {
	case errors.Is(err, code.AdminTokenNotFound), err == nil && token.RevokedAt != nil:
		return store.ProviderGrant{}, code.OAuthStateInvalid
	case err != nil:
		return store.ProviderGrant{}, err
	}
	config, err := s.providerOfGrant(ctx, by, started.Zone, started.Grant)
	if err != nil {
		return store.ProviderGrant{}, err
	}
	if err := checkFingerprint(config, started.Provider); err != nil {
		return store.ProviderGrant{}, err
	}
	if err := provider.CheckIssuer(config, valueOr(params.Iss, "")); err != nil {
		return store.ProviderGrant{}, exchangeError(err)
	}
	switch { // only now, because another issuer can also send an error (RFC 9207, section 2.4)
	case params.Error != nil:
		const maxDetail = 500 // characters
		return store.ProviderGrant{}, code.ProviderOAuthDenied.With("detail", provider.Printable(cmp.Or(valueOr(params.ErrorDescription, ""), *params.Error), maxDetail))
	case params.Code == nil:
		return store.ProviderGrant{}, code.AuthorizationCodeRequired
	}
	// A code can be exchanged once: a browser that disconnects does not lose the tokens. The
	// exchange and the transaction have time limits of their own.
	ctx = context.WithoutCancel(ctx)
	tokens, err := s.exchange.Exchange(ctx, config, provider.TokenRequest{Code: secret.New(*params.Code), CodeVerifier: secret.New(started.CodeVerifier)})
	if err != nil {
		return store.ProviderGrant{}, exchangeError(err)
	}
	n := store.NewProviderGrant{
		ProviderGrantRequest: started.Grant, AuthorizationRequestID: started.RequestID,
		AccessToken: seal.Plaintext(tokens.AccessToken.Reveal()), RefreshToken: seal.Plaintext(tokens.RefreshToken.Reveal()),
		Verify: func(publicConfig json.RawMessage) error {
			return checkFingerprint(provider.Config{Kind: provider.AuthorizationCode, Public: publicConfig}, started.Provider)
		},
	}
	if tokens.ExpiresIn != nil {
		n.ExpiresAt = new(time.Now().Add(*tokens.ExpiresIn))
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.StatementTimeout.duration()+s.config.ConnectTimeout.duration())
	defer cancel()
	g, err := s.store.CreateProviderGrant(ctx, by, started.Zone, n)
	if errCode := problem.Code(err); err != nil && (errCode == code.ServiceUnavailable || errCode == code.InternalError) {
		return g, code.ProviderGrantNotStored.Because(err)
	}
	return g, err
}

// providerOfGrant returns the configuration of the provider of a requested grant, with
// its secrets.
func (s *Server) providerOfGrant(ctx context.Context, by store.Cause, zone string, r store.ProviderGrantRequest) (provider.Config, error) {
	stored, err := s.store.ProviderOfGrant(ctx, by, zone, r)
	if errors.Is(err, store.ErrNotOpened) {
		return provider.Config{}, code.InvalidProviderConfig.Saying("The secrets of the provider cannot be decrypted. Update the provider with its secrets.")
	}
	if err != nil {
		return provider.Config{}, err
	}
	config, err := provider.Open(provider.Kind(stored.Kind), stored.PublicConfig, stored.Secrets)
	return config, exchangeError(err)
}

// checkFingerprint returns oauth_provider_changed unless a provider's configuration has
// the fingerprint that it had when the authorization was started.
func checkFingerprint(config provider.Config, started string) error {
	now, err := config.Fingerprint()
	if err != nil {
		return exchangeError(err)
	}
	if now != started {
		return code.OAuthProviderChanged
	}
	return nil
}

// exchangeError maps an error of package provider to its code.
func exchangeError(err error) error {
	var failed *provider.ExchangeError
	if !errors.As(err, &failed) {
		return err
	}
	switch failed.Kind {
	case provider.ConfigInvalid:
		return code.InvalidProviderConfig.Saying(failed.Detail)
	case provider.AuthorizationEndpointInvalid:
		return code.ProviderAuthorizationEndpointInvalid.With("detail", failed.Detail)
	case provider.TokenEndpointNotAllowed:
		return code.ProviderTokenEndpointNotAllowed.With("detail", failed.Detail)
	case provider.IssuerMismatch:
		return code.OAuthIssuerMismatch
	case provider.ResponseInvalid:
		return code.ProviderTokenResponseInvalid.Because(err)
	}
	return code.ProviderTokenExchangeFailed.Because(err)
}
