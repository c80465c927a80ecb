package server

import (
	"context"
	"net/url"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/issuer"
	"caracal.run/management/store"
	"caracal.run/management/store/controlkey"
)

// publicCache is the Cache-Control of what clients of tokens may cache.
const publicCache = "public, max-age=300, must-revalidate"

// GetAuthorizationServer handles GET /.well-known/oauth-authorization-server/v1/zones/{zoneId}.
func (s *Server) GetAuthorizationServer(ctx context.Context, req api.GetAuthorizationServerRequestObject) (api.GetAuthorizationServerResponseObject, error) {
	if s.issuer.External() || s.config.STSIssuerURL != "" { // then, the URL of the zone is not its issuer (RFC 8414, section 3.3)
		return nil, code.NotFound
	}
	zone, err := s.store.For(store.Actor{Zone: req.ZoneID}).Zone(ctx, req.ZoneID)
	if err != nil {
		return nil, err
	}
	base := s.config.baseURL()
	var registration *string
	if zone.DCREnabled {
		registration = new(base + "/v1/zones/" + zone.ID + "/register")
	}
	return api.GetAuthorizationServer200JSONResponse{
		Body: api.AuthorizationServer{
			Issuer: s.issuer.URL(zone.ID), TokenEndpoint: base + tokenPath, JwksURI: base + "/.well-known/jwks.json?zone_id=" + url.QueryEscape(zone.ID),
			RegistrationEndpoint: registration, ResponseTypesSupported: []string{}, GrantTypesSupported: []string{grantType},
			TokenEndpointAuthMethodsSupported:          []string{"client_secret_basic", "client_secret_post", "private_key_jwt"},
			TokenEndpointAuthSigningAlgValuesSupported: issuer.AssertionAlgorithms(),
			ScopesSupported:                            controlkey.Scopes(), ServiceDocumentation: "https://docs.caracal.run",
		},
		Headers: api.GetAuthorizationServer200ResponseHeaders{CacheControl: publicCache},
	}, nil
}
