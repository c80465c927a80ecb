package server

import (
	"context"
	"encoding/json"
	"errors"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/egress"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
	"caracal.run/management/store/seal"
)

// ListProviders handles GET /v1/zones/{zoneId}/providers.
func (s *Server) ListProviders(ctx context.Context, req api.ListProvidersRequestObject) (api.ListProvidersResponseObject, error) {
	scope := "providers of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, scope)
	if err != nil {
		return nil, err
	}
	filter := store.ProviderFilter{Name: req.Params.Name, Identifier: req.Params.Identifier, Kind: (*string)(req.Params.Kind)}
	providers, err := s.storeFor(ctx).Providers(ctx, req.ZoneID, filter, page)
	if err != nil {
		return nil, err
	}
	providers, link := paginate(ctx, providers, page, scope, func(p db.ListProvidersRow) store.Position { return store.Position{Time: p.CreatedAt, ID: p.ID} })
	return api.ListProviders200JSONResponse{Body: mapSlice(providers, toListedProvider), Headers: api.ListProviders200ResponseHeaders{Link: link}}, nil
}

// CreateProvider handles POST /v1/zones/{zoneId}/providers.
func (s *Server) CreateProvider(ctx context.Context, req api.CreateProviderRequestObject) (api.CreateProviderResponseObject, error) {
	n := store.NewProvider{Name: nilIfEmpty(req.Body.Name), Identifier: nilIfEmpty(req.Body.Identifier)}
	if err := errors.Join(n.Check(), checkProviderIdentifier(n.Identifier)); err != nil {
		return nil, err
	}
	config, err := provider.Check(provider.Kind(req.Body.Kind), rawConfig(ctx, json.RawMessage("{}")))
	if err != nil {
		return nil, configError(err)
	}
	n.ProviderConfig = toProviderConfig(config, config.Secrets.Names())
	var key seal.DataKey
	if len(config.Secrets) > 0 {
		if key, err = s.store.DataKey(ctx, cause(ctx), req.ZoneID); err != nil {
			return nil, err
		}
	}
	p, err := inTx(ctx, s, func(tx *store.Tx) (db.Provider, error) {
		return tx.CreateProvider(ctx, req.ZoneID, key, n)
	})
	if err != nil {
		return nil, err
	}
	return api.CreateProvider201JSONResponse{Body: toProvider(p), Headers: api.CreateProvider201ResponseHeaders{ETag: etag(p.Version)}}, nil
}

// GetProvider handles GET /v1/zones/{zoneId}/providers/{id}.
func (s *Server) GetProvider(ctx context.Context, req api.GetProviderRequestObject) (api.GetProviderResponseObject, error) {
	p, err := s.storeFor(ctx).Provider(ctx, req.ZoneID, req.ID)
	if err != nil {
		return nil, err
	}
	return api.GetProvider200JSONResponse{Body: toProvider(p), Headers: api.GetProvider200ResponseHeaders{ETag: etag(p.Version)}}, nil
}

// UpdateProvider handles PATCH /v1/zones/{zoneId}/providers/{id}.
func (s *Server) UpdateProvider(ctx context.Context, req api.UpdateProviderRequestObject) (api.UpdateProviderResponseObject, error) {
	patch := store.ProviderPatch{
		Name: nilIfEmpty(req.Body.Name), Identifier: nilIfEmpty(req.Body.Identifier),
		Verify: func(present db.Provider) error { return checkReadOnly(ctx, toProvider(present)) },
	}
	if err := checkProviderIdentifier(patch.Identifier); err != nil {
		return nil, err
	}
	config := rawConfig(ctx, nil)
	if req.Body.Kind != nil || config != nil {
		patch.Configure = func(stored store.ProviderConfig) (store.ProviderConfig, error) {
			current := provider.Stored{Kind: provider.Kind(stored.Kind), Public: stored.PublicConfig, SecretKeys: stored.SecretKeys}
			changed, err := provider.Change(current, (*provider.Kind)(req.Body.Kind), config)
			if err != nil {
				return stored, configError(err)
			}
			switch {
			case changed.Public != nil:
			case config == nil && patch.Name == nil && patch.Identifier == nil: // only the kind, which is the stored one
				return stored, code.NoFields
			default:
				return stored, nil
			}
			c := toProviderConfig(changed.Config, changed.SecretKeys)
			c.EndsGrants = changed.EndsGrants
			return c, nil
		}
	}
	var key seal.DataKey
	if provider.HasSecrets(config) { // of any kind: that of the provider is not known before its row is locked
		var err error
		if key, err = s.store.DataKey(ctx, cause(ctx), req.ZoneID); err != nil {
			return nil, err
		}
	}
	p, err := inTx(ctx, s, func(tx *store.Tx) (db.Provider, error) {
		return tx.UpdateProvider(ctx, req.ZoneID, req.ID, precondition(ctx), key, patch)
	})
	if err != nil {
		return nil, err
	}
	return api.UpdateProvider200JSONResponse{Body: toProvider(p), Headers: api.UpdateProvider200ResponseHeaders{ETag: etag(p.Version)}}, nil
}

// DeleteProvider handles DELETE /v1/zones/{zoneId}/providers/{id}.
func (s *Server) DeleteProvider(ctx context.Context, req api.DeleteProviderRequestObject) (api.DeleteProviderResponseObject, error) {
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error {
		return tx.DeleteProvider(ctx, req.ZoneID, req.ID, precondition(ctx))
	})
	if err != nil {
		return nil, err
	}
	return api.DeleteProvider204Response{}, nil
}

// TestProvider handles POST /v1/zones/{zoneId}/providers/{id}/test. The audit
// entry is committed before the request to the token endpoint is sent.
func (s *Server) TestProvider(ctx context.Context, req api.TestProviderRequestObject) (api.TestProviderResponseObject, error) {
	var endpoint provider.Endpoint
	var invalidConfig *provider.Error // set if the configuration violates a rule that is newer than it
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error {
		invalidConfig = nil
		p, err := tx.TestProvider(ctx, req.ZoneID, req.ID)
		if err != nil {
			return err
		}
		endpoint, err = provider.EndpointOf(provider.Kind(p.Kind), p.ConfigJSON)
		switch {
		case errors.Is(err, provider.ErrNoEndpoint):
			return code.ProviderTestUnsupported
		case errors.As(err, &invalidConfig):
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if invalidConfig != nil {
		return api.TestProvider200JSONResponse{Detail: invalidConfig.Message}, nil
	}
	response, err := s.egress.Probe(ctx, endpoint.URL, endpoint.Hosts)
	result := api.TestProvider200JSONResponse{DurationMs: response.Duration.Milliseconds()}
	if egressErr := new(egress.Error); errors.As(err, &egressErr) {
		result.Detail = egressErr.Detail()
		return result, nil
	}
	if err != nil {
		return nil, err
	}
	result.Reachable, result.Status, result.Detail = true, &response.Status, "The token endpoint responded."
	return result, nil
}

// DiscoverProvider handles POST /v1/providers/discover.
func (s *Server) DiscoverProvider(ctx context.Context, req api.DiscoverProviderRequestObject) (api.DiscoverProviderResponseObject, error) {
	config, err := provider.Discover(ctx, s.egress, req.Body.Resource)
	var notFound *provider.DiscoveryError
	switch {
	case errors.As(err, &notFound):
		return api.DiscoverProvider200JSONResponse{Detail: notFound.Detail}, nil
	case err != nil:
		return nil, err
	}
	return api.DiscoverProvider200JSONResponse{Found: true, Detail: "The metadata is valid.", ConfigJSON: &config}, nil
}

// rawConfig returns config_json as it was sent, or fallback if it is absent.
// Package provider validates it and reports the first violation.
func rawConfig(ctx context.Context, fallback json.RawMessage) json.RawMessage {
	var body map[string]json.RawMessage // not a struct: field names of structs match case-insensitively
	if err := json.Unmarshal(middleware.RequestInfoFrom(ctx).Body, &body); err != nil || body["config_json"] == nil {
		return fallback
	}
	return body["config_json"]
}

func toProviderConfig(c provider.Config, secretKeys []string) store.ProviderConfig {
	config := store.ProviderConfig{Kind: string(c.Kind), PublicConfig: c.Public, SecretKeys: secretKeys}
	if len(c.Secrets) > 0 {
		config.Secrets = seal.Plaintext(c.Secrets.Plaintext())
	}
	return config
}

// configError maps an error of package provider to its code.
func configError(err error) error {
	var violation *provider.Error
	switch {
	case errors.Is(err, provider.ErrConfigRequired):
		return code.ProviderConfigRequired
	case errors.As(err, &violation):
		path := []string{"config_json"}
		if violation.Key != "" {
			path = append(path, violation.Key)
		}
		return errorWithMessage(code.InvalidProviderConfig, violation.Message, path...)
	}
	return err
}

func checkProviderIdentifier(identifier *string) error {
	if identifier == nil || provider.ValidIdentifier(*identifier) {
		return nil
	}
	return errorWithMessage(code.InvalidProviderIdentifier,
		"provider identifier must start with provider:// and use lowercase letters, numbers, or hyphens", "identifier")
}

// errorWithMessage returns an error that has the message both as an issue and in
// the field "message", which existing clients read.
func errorWithMessage(errCode code.Code, message string, path ...string) error {
	err := errCode.At(message, path...)
	err.Fields = map[string]any{"message": message}
	return err
}

// nilIfEmpty returns nil for an empty string, which counts as absent.
func nilIfEmpty(text *string) *string {
	if text == nil || *text == "" { // validation has trimmed white space
		return nil
	}
	return text
}

func toProvider(p db.Provider) api.Provider {
	return toListedProvider(db.ListProvidersRow{
		ZoneID: p.ZoneID, ID: p.ID, Name: p.Name, Identifier: p.Identifier, Kind: p.Kind, ConfigJSON: p.ConfigJSON,
		SecretConfigKeys: p.SecretConfigKeys, CreatedAt: p.CreatedAt, UpdatedAt: p.UpdatedAt,
	})
}

func toListedProvider(p db.ListProvidersRow) api.Provider {
	return api.Provider{
		ID: p.ID, ZoneID: p.ZoneID, Name: p.Name, Identifier: p.Identifier, Kind: api.ProviderKind(p.Kind), ConfigJSON: p.ConfigJSON,
		SecretConfigKeys: p.SecretConfigKeys, CreatedAt: timestamp.Time(p.CreatedAt), UpdatedAt: timestamp.Time(p.UpdatedAt),
	}
}
