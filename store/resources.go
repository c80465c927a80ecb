package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// Resource returns an active resource of a zone or resource_not_found. Only global
// actors can access the control resource, which represents the Control API.
func (s *Store) Resource(ctx context.Context, zone, id string) (db.Resource, error) {
	r, err := s.shared.GetResource(ctx, db.GetResourceParams{ZoneID: zone, ID: id})
	if err == nil && r.Identifier == s.excludedIdentifier() {
		return db.Resource{}, code.ResourceNotFound
	}
	return r, notFoundAs(err, code.ResourceNotFound)
}

// A ResourceFilter selects resources. A nil field selects all.
type ResourceFilter struct{ Name, Identifier *string }

// Resources returns a page of a zone's active resources that match a filter, newest
// first, without the control resource if the actor is not global. It is empty if the
// zone does not exist.
func (s *Store) Resources(ctx context.Context, zone string, f ResourceFilter, p Page) ([]db.Resource, error) {
	switch {
	case f.Identifier != nil:
		return s.shared.ListResourcesByIdentifier(ctx, db.ListResourcesByIdentifierParams{
			ZoneID: zone, Identifier: *f.Identifier, ExcludedIdentifier: s.excludedIdentifier(), Name: f.Name,
			BeforeTime: p.After.Time, BeforeID: p.After.ID,
		})
	case f.Name != nil:
		return s.shared.ListResourcesByName(ctx, db.ListResourcesByNameParams{
			ZoneID: zone, Name: *f.Name, ExcludedIdentifier: s.excludedIdentifier(),
			BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	}
	return s.shared.ListResources(ctx, db.ListResourcesParams{ZoneID: zone, ExcludedIdentifier: s.excludedIdentifier(), BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// excludedIdentifier returns the identifier of the resource that the actor cannot
// access, or "".
func (s *Store) excludedIdentifier() string { return s.core.excludedIdentifier(s.actor) }

func (c *core) excludedIdentifier(actor Actor) string {
	if actor.Global() {
		return ""
	}
	return c.controlAudience
}

// NewResource describes a resource to create. The caller has checked the upstream URL.
type NewResource struct {
	Name                 *string // nil: the identifier
	Identifier           *string // nil: generated from the name
	UpstreamURL          *string
	Scopes               []string
	CredentialProviderID string // "": none
	GatewayApplicationID *string
	Operations           []ResourceOperation
	OperationEnforcement string
}

// CreateResource creates a resource. It locks the provider and the application that
// the resource references until the transaction ends, so that they cannot be
// archived meanwhile. It returns zone_not_found, resource_quota_exceeded,
// resource_identifier_conflict or the code of the first violated rule.
func (tx *Tx) CreateResource(ctx context.Context, zone string, n NewResource) (db.Resource, error) {
	if n.Name == nil && n.Identifier == nil {
		return db.Resource{}, code.InvalidResource.At("must be set if identifier is not", "name")
	}
	base := valueOr(n.Identifier, resourceBase(valueOr(n.Name, "")))
	r := db.Resource{
		Identifier: base, UpstreamURL: n.UpstreamURL, Scopes: n.Scopes, CredentialProviderID: n.CredentialProviderID,
		GatewayApplicationID: n.GatewayApplicationID, OperationEnforcement: n.OperationEnforcement,
	}
	mode := shared
	if n.CredentialProviderID == "" && base == tx.controlAudience && tx.cause.Actor.Global() {
		mode = exclusive // for noneProvider
	}
	if err := tx.lockReferences(ctx, zone, mode, n.CredentialProviderID, n.GatewayApplicationID); err != nil {
		return r, err
	}
	if err := tx.checkResourceIdentifier(r, r); err != nil {
		return r, err
	}
	if _, err := tx.normalizeResource(ctx, zone, &r, n.Operations); err != nil {
		return r, err
	}
	counted, err := tx.q.IncrementResourceCount(ctx, db.IncrementResourceCountParams{ZoneID: zone, Bindings: bindings(r), MaxResources: tx.maxResources})
	if err != nil {
		return r, err
	}
	if counted == 0 {
		return r, code.ResourceQuotaExceeded
	}
	row := db.InsertResourceParams{
		ZoneID: zone, ID: newID(), UpstreamURL: r.UpstreamURL, Scopes: r.Scopes, CredentialProviderID: r.CredentialProviderID,
		GatewayApplicationID: r.GatewayApplicationID, Operations: r.Operations, OperationEnforcement: r.OperationEnforcement,
	}
	insert := func(identifier string) (db.Resource, error) {
		// The resource was normalized for the base identifier. A numbered identifier
		// must be valid too, and must not become or stop being the control resource's.
		if checkAudience(identifier, tx.controlAudience) != nil || (identifier == tx.controlAudience) != (base == tx.controlAudience) {
			return db.Resource{}, pgx.ErrNoRows
		}
		row.Name, row.Identifier = valueOr(n.Name, identifier), identifier
		return tx.q.InsertResource(ctx, row)
	}
	if n.Identifier != nil {
		r, err = insert(base)
	} else {
		r, err = insertWithUniqueName(base, row.ID, insert, func() (string, error) {
			return tx.q.GetAvailableResourceIdentifier(ctx, db.GetAvailableResourceIdentifierParams{ZoneID: zone, Base: base})
		})
	}
	if err != nil {
		return r, notFoundAs(err, code.ResourceIdentifierConflict)
	}
	tx.record(zone, audit.Resources, r.ID, diff(nil, auditResource(r)))
	return r, nil
}

// ResourcePatch lists the fields to change; nil leaves a field unchanged. A **string
// that points to nil removes the value. The caller has checked the upstream URL.
type ResourcePatch struct {
	Name                 *string
	Identifier           *string
	UpstreamURL          **string
	Scopes               []string
	CredentialProviderID *string // "": none
	GatewayApplicationID **string
	Operations           []ResourceOperation
	OperationEnforcement *string
	// Verify returns an error if the request contradicts the present resource, whose
	// row is locked.
	Verify func(present db.Resource) error
}

// onlyBindingChanged reports whether the patch changes no field other than
// GatewayApplicationID.
func (p ResourcePatch) onlyBindingChanged() bool {
	return p.Name == nil && p.Identifier == nil && p.UpstreamURL == nil && p.Scopes == nil &&
		p.CredentialProviderID == nil && p.Operations == nil && p.OperationEnforcement == nil
}

// UpdateResource updates a resource if the precondition accepts its version. The
// updated resource must satisfy the rules of a new one. If the patch changes no
// field, the resource is not written. UpdateResource returns resource_not_found,
// version_conflict, no_fields, zone_not_found, resource_identifier_conflict, an
// error of Verify or the code of the first violated rule.
func (tx *Tx) UpdateResource(ctx context.Context, zone, id string, precondition Precondition, p ResourcePatch) (db.Resource, error) {
	if p.onlyBindingChanged() && p.GatewayApplicationID == nil {
		return db.Resource{}, code.NoFields
	}
	mode := shared
	if p.CredentialProviderID != nil && *p.CredentialProviderID == "" && tx.cause.Actor.Global() {
		mode = exclusive // for noneProvider
	}
	if err := tx.lockReferences(ctx, zone, mode, valueOr(p.CredentialProviderID, ""), valueOr(p.GatewayApplicationID, nil)); err != nil {
		return db.Resource{}, err
	}
	before, err := tx.lockResource(ctx, zone, id, precondition)
	if err != nil {
		return before, err
	}
	stored, err := Operations(before)
	if err != nil {
		return before, err
	}
	operations := stored
	after := before
	after.Name, after.Identifier = valueOr(p.Name, before.Name), valueOr(p.Identifier, before.Identifier)
	after.UpstreamURL = valueOr(p.UpstreamURL, before.UpstreamURL)
	after.CredentialProviderID = valueOr(p.CredentialProviderID, before.CredentialProviderID)
	after.GatewayApplicationID = valueOr(p.GatewayApplicationID, before.GatewayApplicationID)
	after.OperationEnforcement = valueOr(p.OperationEnforcement, before.OperationEnforcement)
	if p.Scopes != nil {
		after.Scopes = p.Scopes
	}
	if p.Operations != nil {
		operations = p.Operations
	}
	if err := tx.checkResourceIdentifier(before, after); err != nil {
		return before, err
	}
	if err := verify(before, p.Verify); err != nil {
		return before, err
	}
	// A resource whose application was archived satisfies the rules no longer, but a
	// patch that changes nothing is accepted. Other values change only in form when
	// they are normalized.
	if slices.Equal(stored, operations) && unchanged(audit.Resources, before, after) {
		return before, nil
	}
	normalized, err := tx.normalizeResource(ctx, zone, &after, operations)
	if err != nil {
		return before, err
	}
	if slices.Equal(stored, normalized) {
		after.Operations = before.Operations // Postgres formats JSON differently
	}
	if unchanged(audit.Resources, before, after) {
		return before, nil
	}
	if bindingChanged(before, after) || !slices.Equal(stored, normalized) {
		// Write the totals before the resource, in the same order as CreateResource, to
		// avoid deadlocks.
		if err := db.New(deferredConn{tx.conn}).BumpBindingRevision(ctx, zone); err != nil {
			return before, err
		}
	}
	after, err = tx.q.UpdateResource(ctx, db.UpdateResourceParams{
		ZoneID: zone, ID: id, Name: after.Name, Identifier: after.Identifier, UpstreamURL: after.UpstreamURL, Scopes: after.Scopes,
		CredentialProviderID: after.CredentialProviderID, GatewayApplicationID: after.GatewayApplicationID,
		Operations: after.Operations, OperationEnforcement: after.OperationEnforcement, Touched: !p.onlyBindingChanged(),
	})
	if err != nil {
		return after, err
	}
	tx.record(zone, audit.Resources, id, diff(auditResource(before), auditResource(after)))
	return after, nil
}

// DeleteResource archives a resource, so its identifier becomes available again. It
// returns resource_not_found, version_conflict, protected_resource if it is the
// control resource, reserved_namespace, or an error of the zone.
func (tx *Tx) DeleteResource(ctx context.Context, zone, id string, precondition Precondition) error {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return err
	}
	r, err := tx.lockResource(ctx, zone, id, precondition)
	control := r.Identifier == tx.controlAudience
	if control && !tx.cause.Actor.Global() {
		return code.ResourceNotFound // even if the version does not match
	}
	if err != nil {
		return err
	}
	if control {
		return code.ProtectedResource.With("detail", "control API resource cannot be deleted")
	}
	if err := tx.checkReservedName(ResourceIdentifier, r.Identifier); err != nil {
		return err
	}
	// Write the totals before the resource, in the same order as CreateResource, to
	// avoid deadlocks.
	if err := db.New(deferredConn{tx.conn}).DecrementResourceCount(ctx, db.DecrementResourceCountParams{ZoneID: zone, Bindings: bindings(r)}); err != nil {
		return err
	}
	tx.record(zone, audit.Resources, id, deleted)
	return tx.q.ArchiveResource(ctx, db.ArchiveResourceParams{ZoneID: zone, ID: id})
}

// unbindResources removes applications from the resources that they exchange tokens
// for.
func (tx *Tx) unbindResources(ctx context.Context, zone string, applications []string) error {
	unbound, err := tx.q.UnbindResources(ctx, db.UnbindResourcesParams{ZoneID: zone, ApplicationIds: applications})
	if err != nil || len(unbound) == 0 {
		return err
	}
	for _, r := range unbound {
		tx.record(zone, audit.Resources, r.ID, diff(auditFields{"gateway_application_id": &r.ApplicationID}, auditFields{"gateway_application_id": (*string)(nil)}))
	}
	return tx.q.BumpBindingRevision(ctx, zone)
}

// lockReferences takes the zone lock, and locks the provider and the application
// that a resource references, so that they cannot be archived. It returns
// provider_not_found, gateway_application_not_found,
// gateway_exchange_application_must_be_managed or an error of the zone.
func (tx *Tx) lockReferences(ctx context.Context, zone string, mode lockMode, provider string, application *string) error {
	if err := tx.lockZoneID(ctx, zone, mode); err != nil {
		return err
	}
	references, err := tx.q.GetZoneAndLockReferences(ctx, db.GetZoneAndLockReferencesParams{ZoneID: zone, ProviderID: provider, ApplicationID: valueOr(application, "")})
	if _, err := tx.checkZoneWritable(references.Zone, err); err != nil {
		return err
	}
	switch {
	case references.ProviderID != provider:
		return code.ProviderNotFound
	case application == nil || references.RegistrationMethod == managed:
		return nil
	case references.RegistrationMethod == "":
		return code.GatewayApplicationNotFound
	}
	return code.GatewayExchangeApplicationMustBeManaged
}

// lockResource locks a resource's row if the precondition accepts its version. With
// version_conflict it returns the resource too.
func (tx *Tx) lockResource(ctx context.Context, zone, id string, precondition Precondition) (db.Resource, error) {
	r, err := tx.q.LockResource(ctx, db.LockResourceParams{ZoneID: zone, ID: id})
	if err != nil {
		return r, notFoundAs(err, code.ResourceNotFound)
	}
	return r, precondition.check(r.Version)
}

// CheckResourceIdentifier returns invalid_resource_identifier, reserved_namespace or
// protected_resource if an actor cannot create a resource with an identifier, or change
// one.
func (s *Store) CheckResourceIdentifier(actor Actor, identifier string) error {
	if identifier == s.controlAudience {
		return code.ProtectedResource.With("detail", "control API resource is managed only through the Control console path")
	}
	return errors.Join(checkAudience(identifier, s.controlAudience), CheckReservedName(actor, ResourceIdentifier, identifier))
}

// checkResourceIdentifier returns invalid_resource_identifier if the new identifier
// is invalid, and reserved_namespace or protected_resource if the actor is not
// allowed to use the old or the new one.
func (tx *Tx) checkResourceIdentifier(before, after db.Resource) error {
	if err := checkAudience(after.Identifier, tx.controlAudience); err != nil {
		return err
	}
	for _, identifier := range []string{before.Identifier, after.Identifier} {
		if err := tx.checkReservedName(ResourceIdentifier, identifier); err != nil {
			return err
		}
	}
	if control := tx.controlAudience; (before.Identifier == control || after.Identifier == control) && !tx.cause.Actor.Global() {
		return code.ProtectedResource.With("detail", "control API resource is managed only through the Control console path")
	}
	return nil
}

// normalizeResource brings a resource into the form in which it is stored and
// returns its normalized operations, or the code of the first violated rule.
//
// A resource requires a credential provider, an upstream URL and a gateway
// application. The control resource requires none of them and never has a gateway
// application. If it lacks a provider, it gets the zone's provider of kind none,
// and the transaction must have the zone lock in exclusive mode.
func (tx *Tx) normalizeResource(ctx context.Context, zone string, r *db.Resource, operations []ResourceOperation) ([]ResourceOperation, error) {
	if r.Identifier == tx.controlAudience {
		r.GatewayApplicationID = nil
		if r.CredentialProviderID == "" {
			provider, err := tx.noneProvider(ctx, zone)
			if err != nil {
				return nil, err
			}
			r.CredentialProviderID = provider
		}
	} else {
		switch {
		case r.CredentialProviderID == "":
			return nil, code.CredentialProviderRequired
		case r.UpstreamURL == nil:
			return nil, code.UpstreamURLRequired
		case r.GatewayApplicationID == nil:
			return nil, code.GatewayApplicationRequired
		}
	}
	normalized, err := NormalizeOperations(operations, r.Scopes)
	if err != nil {
		return nil, err
	}
	r.Operations, err = json.Marshal(normalized)
	return normalized, err
}

// bindings returns the number of applications that a resource is bound to.
func bindings(r db.Resource) int64 {
	if r.GatewayApplicationID == nil {
		return 0
	}
	return 1
}

// bindingChanged reports whether a field that gateways read changed. It does not
// compare the operations.
func bindingChanged(before, after db.Resource) bool {
	return before.Identifier != after.Identifier || valueOr(before.UpstreamURL, "") != valueOr(after.UpstreamURL, "") ||
		before.CredentialProviderID != after.CredentialProviderID || valueOr(before.GatewayApplicationID, "") != valueOr(after.GatewayApplicationID, "") ||
		before.OperationEnforcement != after.OperationEnforcement
}

// auditResource returns the audit fields of a resource, with the userinfo of its
// upstream URL removed.
func auditResource(r db.Resource) auditFields {
	r.UpstreamURL = redactURL(r.UpstreamURL)
	return snapshot(audit.Resources, r)
}
