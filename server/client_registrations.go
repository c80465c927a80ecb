package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/middleware"
	"caracal.run/management/store"
)

// RegisterClient handles POST /v1/zones/{zoneId}/register.
func (s *Server) RegisterClient(ctx context.Context, req api.RegisterClientRequestObject) (api.RegisterClientResponseObject, error) {
	info := middleware.RequestInfoFrom(ctx)
	limited := "address:" + info.Address
	if info.Bearer != "" {
		limited = fmt.Sprintf("token:%x", sha256.Sum256([]byte(info.Bearer)))
	}
	if !s.limits.registrations.Allow(req.ZoneID + ":" + limited) {
		return nil, code.DCRRateLimitExceeded
	}
	metadata, err := clientMetadata(req.Body)
	if err != nil {
		return nil, err
	}
	cause := info.Cause()
	cause.Actor = store.Actor{Name: "open registration", Zone: req.ZoneID} // unless there is a token
	if err := s.store.For(cause.Actor).MayRegister(ctx, req.ZoneID, info.Bearer); err != nil {
		return nil, err
	}
	if info.Bearer == "" && !info.AllowUnstated(s.limits.anonymousRegistrations, req.ZoneID+":"+info.Address) {
		return nil, code.DCRLimitExceeded.Saying("60 clients have registered from this address within the hour without a registration token. Use a token, or retry later.")
	}
	var client store.RegisteredClient
	var token string
	err = s.store.InTx(ctx, cause, func(tx *store.Tx) (err error) {
		client, token, err = tx.RegisterClient(ctx, req.ZoneID, info.Bearer, metadata, defaultRegistrationSeconds)
		return err
	})
	if err != nil {
		return nil, asClientError(err)
	}
	return api.RegisterClient201JSONResponse(s.toClientInformation(client, token)), nil
}

// GetRegisteredClient handles GET /v1/zones/{zoneId}/register/{id}.
func (s *Server) GetRegisteredClient(ctx context.Context, req api.GetRegisteredClientRequestObject) (api.GetRegisteredClientResponseObject, error) {
	client, _, err := s.authenticateRegisteredClient(ctx, req.ZoneID, req.ID)
	if err != nil {
		return nil, err
	}
	return api.GetRegisteredClient200JSONResponse(s.toClientInformation(client, middleware.RequestInfoFrom(ctx).Bearer)), nil
}

// UpdateRegisteredClient handles PUT /v1/zones/{zoneId}/register/{id}.
func (s *Server) UpdateRegisteredClient(ctx context.Context, req api.UpdateRegisteredClientRequestObject) (api.UpdateRegisteredClientResponseObject, error) {
	_, cause, err := s.authenticateRegisteredClient(ctx, req.ZoneID, req.ID)
	if err != nil {
		return nil, err
	}
	u := req.Body
	if u.ClientID != req.ID {
		return nil, code.InvalidClientMetadata.At("must be the id of the client", "client_id")
	}
	if u.ClientSecret != nil {
		// Only a secret that this service has generated is compared, so that no request costs a hash.
		neverHash := func() error { return store.ErrInvalidSecret }
		client, err := s.store.For(cause.Actor).Client(ctx, req.ID)
		if err == nil {
			err = client.VerifySecret(ctx, *u.ClientSecret, neverHash)
		}
		switch {
		case errors.Is(err, store.ErrInvalidSecret):
			return nil, code.InvalidClientMetadata.At("must be the present client secret", "client_secret")
		case err != nil:
			return nil, asClientError(err)
		}
	}
	metadata, err := clientMetadata(&api.ClientMetadata{
		ClientName: u.ClientName, RedirectUris: u.RedirectUris, GrantTypes: u.GrantTypes, ResponseTypes: u.ResponseTypes,
		TokenEndpointAuthMethod: u.TokenEndpointAuthMethod, Scope: u.Scope, Jwks: u.Jwks, ClientURI: u.ClientURI, LogoURI: u.LogoURI,
		Contacts: u.Contacts, TosURI: u.TosURI, PolicyURI: u.PolicyURI, SoftwareID: u.SoftwareID, SoftwareVersion: u.SoftwareVersion,
	})
	if err != nil {
		return nil, err
	}
	var client store.RegisteredClient
	err = s.store.InTx(ctx, cause, func(tx *store.Tx) (err error) {
		client, err = tx.UpdateRegisteredClient(ctx, req.ZoneID, req.ID, metadata)
		return err
	})
	if err != nil {
		return nil, asClientError(err)
	}
	return api.UpdateRegisteredClient200JSONResponse(s.toClientInformation(client, middleware.RequestInfoFrom(ctx).Bearer)), nil
}

// DeleteRegisteredClient handles DELETE /v1/zones/{zoneId}/register/{id}.
func (s *Server) DeleteRegisteredClient(ctx context.Context, req api.DeleteRegisteredClientRequestObject) (api.DeleteRegisteredClientResponseObject, error) {
	_, cause, err := s.authenticateRegisteredClient(ctx, req.ZoneID, req.ID)
	if err != nil {
		return nil, err
	}
	err = s.store.InTx(ctx, cause, func(tx *store.Tx) error {
		return tx.DeleteApplication(ctx, req.ZoneID, req.ID, store.Precondition{})
	})
	if err != nil {
		return nil, asClientError(err)
	}
	return api.DeleteRegisteredClient204Response{}, nil
}

// authenticateRegisteredClient returns the client whose registration access token the request has,
// and the cause of its changes. It returns invalid_registration_token.
func (s *Server) authenticateRegisteredClient(ctx context.Context, zone, id string) (store.RegisteredClient, store.Cause, error) {
	info := middleware.RequestInfoFrom(ctx)
	cause := info.Cause()
	cause.Actor = store.Actor{ID: id, Zone: zone}
	client, err := s.store.For(cause.Actor).RegisteredClient(ctx, zone, id, info.Bearer)
	cause.Actor.Name = client.Name
	return client, cause, err
}

// asClientError maps errors that clients do not know to those of RFC 7591 and RFC 7592.
func asClientError(err error) error {
	switch {
	case errors.Is(err, code.ReservedNamespace):
		return code.InvalidClientMetadata.At("is reserved for Caracal", "client_name")
	case errors.Is(err, code.ApplicationNotFound): // deleted since the token was verified
		return code.InvalidRegistrationToken
	}
	return err
}

func (s *Server) toClientInformation(c store.RegisteredClient, token string) api.ClientInformation {
	m := c.Metadata
	result := api.ClientInformation{
		ClientID: c.ID, ClientIDIssuedAt: c.CreatedAt.Unix(), ClientSecret: optional(c.Secret),
		RegistrationAccessToken: token, RegistrationClientURI: fmt.Sprintf("%s/v1/zones/%s/register/%s", s.config.baseURL(), c.ZoneID, c.ID),
		ClientName: m.Name, RedirectUris: m.RedirectURIs, TokenEndpointAuthMethod: api.ClientAuthMethod(m.TokenEndpointAuthMethod),
		GrantTypes:    mapSlice(m.GrantTypes, func(t string) api.GrantType { return api.GrantType(t) }),
		ResponseTypes: mapSlice(m.ResponseTypes, func(t string) api.ResponseType { return api.ResponseType(t) }),
		Scope:         optional(m.Scope), ClientURI: optional(m.ClientURI), LogoURI: optional(m.LogoURI), Contacts: m.Contacts,
		TosURI: optional(m.TosURI), PolicyURI: optional(m.PolicyURI), SoftwareID: optional(m.SoftwareID), SoftwareVersion: optional(m.SoftwareVersion),
	}
	if m.JWKS != nil {
		result.Jwks = &m.JWKS
	}
	if m.HasSecret() && c.ExpiresAt != nil {
		result.ClientSecretExpiresAt = new(c.ExpiresAt.Unix())
	}
	return result
}

// optional returns nil for an empty text.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
