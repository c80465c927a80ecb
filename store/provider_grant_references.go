package store

import (
	"context"
	"encoding/json"
	"slices"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// A ProviderGrantKey identifies the active grant of a user for a resource and its
// provider: there is at most one.
type ProviderGrantKey struct{ UserID, ResourceID, ProviderID string }

// A ProviderGrantRequest describes a provider grant before it has tokens.
type ProviderGrantRequest struct {
	ProviderGrantKey
	Scopes []string
}

// ProviderOfGrant returns the configuration of the provider of a requested grant, with
// its opened secrets. It returns zone_not_found, provider_not_found,
// provider_grant_unsupported, resource_not_found, provider_resource_mismatch or
// grant_scopes_exceed_resource, or an error that wraps [ErrNotOpened].
func (s *Store) ProviderOfGrant(ctx context.Context, cause Cause, zone string, r ProviderGrantRequest) (ProviderConfig, error) {
	row, err := s.grantReferences(ctx, cause, zone, r)
	if err != nil {
		return ProviderConfig{}, err
	}
	config := ProviderConfig{Kind: row.ProviderKind, PublicConfig: row.ProviderConfig}
	if row.ProviderDataKey == 0 {
		return config, nil
	}
	config.Secrets, err = s.OpenSecret(ctx, cause, row.ProviderDataKey, providerSecrets(zone, r.ProviderID), row.ProviderSecretConfig)
	return config, err
}

// grantReferences reads what a grant references and checks it. It fails like
// checkGrantReferences or with zone_not_found.
func (s *Store) grantReferences(ctx context.Context, cause Cause, zone string, r ProviderGrantRequest) (db.GetProviderGrantReferencesRow, error) {
	row, err := s.For(cause.Actor).shared.GetProviderGrantReferences(ctx, db.GetProviderGrantReferencesParams{
		ZoneID: zone, UserID: r.UserID, ResourceID: r.ResourceID, ProviderID: r.ProviderID,
	})
	if err != nil {
		return row, notFoundAs(err, code.ZoneNotFound)
	}
	references := grantReferences{row.ProviderKind, row.ResourceIdentifier, row.ResourceProviderID, row.ResourceScopes}
	return row, s.checkGrantReferences(cause.Actor, references, r)
}

// AuthorizeProviderGrant checks what a requested grant references, and records in the
// audit log that its authorization begins. It fails like [Store.ProviderOfGrant] or
// with an error of the zone.
func (tx *Tx) AuthorizeProviderGrant(ctx context.Context, zone string, r ProviderGrantRequest) error {
	if _, err := tx.lockGrantReferences(ctx, zone, r); err != nil {
		return err
	}
	tx.record(zone, audit.Providers, r.ProviderID, used)
	return nil
}

// lockGrantReferences takes the zone lock, locks the provider and the resource of a
// grant so that they cannot be archived or changed, and checks them. It returns the
// provider's public configuration. It fails like checkGrantReferences or with an error
// of the zone.
func (tx *Tx) lockGrantReferences(ctx context.Context, zone string, r ProviderGrantRequest) (json.RawMessage, error) {
	if err := tx.lockZoneID(ctx, zone, shared); err != nil {
		return nil, err
	}
	row, err := tx.q.LockProviderGrantReferences(ctx, db.LockProviderGrantReferencesParams{ZoneID: zone, ProviderID: r.ProviderID, ResourceID: r.ResourceID})
	if _, err := tx.checkZoneWritable(row.Zone, err); err != nil {
		return nil, err
	}
	references := grantReferences{row.ProviderKind, row.ResourceIdentifier, row.ResourceProviderID, row.ResourceScopes}
	return row.ProviderConfig, tx.checkGrantReferences(tx.cause.Actor, references, r)
}

// grantReferences are the properties of a provider and a resource that a grant of
// both depends on; "" if there is no such provider or resource.
type grantReferences struct {
	providerKind, resourceIdentifier, resourceProvider string
	resourceScopes                                     []string
}

const kindAuthorizationCode = "oauth2_authorization_code"

// checkGrantReferences returns provider_not_found, provider_grant_unsupported,
// resource_not_found, provider_resource_mismatch or grant_scopes_exceed_resource.
func (c *core) checkGrantReferences(actor Actor, r grantReferences, request ProviderGrantRequest) error {
	switch {
	case r.providerKind == "":
		return code.ProviderNotFound
	case r.providerKind != kindAuthorizationCode:
		return code.ProviderGrantUnsupported
	case r.resourceProvider == "" || r.resourceIdentifier == c.controlAudience && !actor.Global():
		return code.ResourceNotFound
	case r.resourceProvider != request.ProviderID:
		return code.ProviderResourceMismatch
	case slices.ContainsFunc(request.Scopes, func(scope string) bool { return !slices.Contains(r.resourceScopes, scope) }):
		return code.GrantScopesExceedResource
	}
	return nil
}
