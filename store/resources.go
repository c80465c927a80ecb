package store

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// Resource is a live resource of a zone, or resource_not_found. The control
// resource is there for global callers only.
func (s *Store) Resource(ctx context.Context, zone, id string) (db.Resource, error) {
	r, err := s.q.GetResource(ctx, db.GetResourceParams{ZoneID: zone, ID: id})
	if err == nil && r.Identifier == s.excludedIdentifier() {
		return db.Resource{}, code.ResourceNotFound
	}
	return r, notFoundAs(err, code.ResourceNotFound)
}

// Resources is a page of a zone's live resources, newest first, without the
// control resource for callers who are not global.
func (s *Store) Resources(ctx context.Context, zone string, p Page) ([]db.Resource, error) {
	return s.q.ListResources(ctx, db.ListResourcesParams{ZoneID: zone, ExcludedIdentifier: s.excludedIdentifier(), BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// excludedIdentifier is the identifier of the resource that the actor may not see, or "".
func (s *Store) excludedIdentifier() string {
	if s.actor.Global() {
		return ""
	}
	return s.controlAudience
}

// NewResource is what a caller says of a resource to be.
type NewResource struct {
	Name                 *string
	Identifier           *string // nil: made from the name
	UpstreamURL          *string
	Scopes               []string
	CredentialProviderID string // "": none
	GatewayApplicationID *string
	Operations           []ResourceOperation
	OperationEnforcement string
}

// CreateResource adds a resource. What it names is held until the transaction
// ends: nobody archives it meanwhile.
func (tx *Tx) CreateResource(ctx context.Context, zone string, n NewResource) (db.Resource, error) {
	if n.Name == nil && n.Identifier == nil {
		return db.Resource{}, code.InvalidResource.At("is missing, and so is identifier: one of them is needed", "name")
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
		// What was settled under one identifier need not be right under a numbered one.
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

// ResourcePatch is what a caller wants changed; nil stays as it is. What can be
// taken away has a pointer to what it becomes, which is nil then.
type ResourcePatch struct {
	Name                 *string
	Identifier           *string
	UpstreamURL          **string
	Scopes               []string
	CredentialProviderID *string // "": none
	GatewayApplicationID **string
	Operations           []ResourceOperation
	OperationEnforcement *string
}

// onlyBindingChanged says whether nothing but the binding to an application is to change.
func (p ResourcePatch) onlyBindingChanged() bool {
	return p.Name == nil && p.Identifier == nil && p.UpstreamURL == nil && p.Scopes == nil &&
		p.CredentialProviderID == nil && p.Operations == nil && p.OperationEnforcement == nil
}

// UpdateResource changes a resource that is still at a version that match
// admits.
func (tx *Tx) UpdateResource(ctx context.Context, zone, id string, match Precondition, p ResourcePatch) (db.Resource, error) {
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
	before, err := tx.lockResource(ctx, zone, id, match)
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
	normalized, err := tx.normalizeResource(ctx, zone, &after, operations)
	if err != nil {
		return before, err
	}
	if bindingChanged(before, after) || !slices.Equal(stored, normalized) {
		// Before the identifier: whoever creates a resource comes this way too.
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

// DeleteResource archives a resource: its identifier is free again. The control
// resource stays.
func (tx *Tx) DeleteResource(ctx context.Context, zone, id string, match Precondition) error {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return err
	}
	r, err := tx.lockResource(ctx, zone, id, match)
	control := r.Identifier == tx.controlAudience
	if control && !tx.cause.Actor.Global() {
		return code.ResourceNotFound // whatever its version
	}
	if err != nil {
		return err
	}
	if control {
		return code.ProtectedResource.With("detail", "control API resource cannot be deleted")
	}
	if err := tx.checkReservedName(resourceIdentifier, r.Identifier); err != nil {
		return err
	}
	// Before the identifier: whoever creates a resource comes this way too.
	if err := db.New(deferredConn{tx.conn}).DecrementResourceCount(ctx, db.DecrementResourceCountParams{ZoneID: zone, Bindings: bindings(r)}); err != nil {
		return err
	}
	tx.record(zone, audit.Resources, id, noFields)
	return tx.q.ArchiveResource(ctx, db.ArchiveResourceParams{ZoneID: zone, ID: id})
}

// unbindResources takes an application from the resources that it exchanges
// tokens for.
func (tx *Tx) unbindResources(ctx context.Context, zone, application string) error {
	unbound, err := tx.q.UnbindResources(ctx, db.UnbindResourcesParams{ZoneID: zone, ApplicationID: &application})
	if err != nil || len(unbound) == 0 {
		return err
	}
	for _, id := range unbound {
		tx.record(zone, audit.Resources, id, diff(auditFields{"gateway_application_id": &application}, auditFields{"gateway_application_id": (*string)(nil)}))
	}
	return tx.q.BumpBindingRevision(ctx, zone)
}

// lockReferences lets a transaction write below a live zone, and keeps what a
// resource is to name from being archived.
func (tx *Tx) lockReferences(ctx context.Context, zone string, mode lockMode, provider string, application *string) error {
	if _, err := tx.requireZone(ctx, zone, mode); err != nil {
		return err
	}
	if provider == "" && application == nil {
		return nil
	}
	references, err := tx.q.LockReferencesShared(ctx, db.LockReferencesSharedParams{ZoneID: zone, ProviderID: provider, ApplicationID: valueOr(application, "")})
	switch {
	case err != nil:
		return err
	case references.ProviderID != provider:
		return code.ProviderNotFound
	case application == nil || references.RegistrationMethod == managed:
		return nil
	case references.RegistrationMethod == "":
		return code.GatewayApplicationNotFound
	}
	return code.GatewayExchangeApplicationMustBeManaged
}

func (tx *Tx) lockResource(ctx context.Context, zone, id string, match Precondition) (db.Resource, error) {
	r, err := tx.q.LockResource(ctx, db.LockResourceParams{ZoneID: zone, ID: id})
	if err != nil {
		return r, notFoundAs(err, code.ResourceNotFound)
	}
	return r, match.check(r.Version)
}

// checkResourceIdentifier refuses an identifier that is none, and one that the actor may
// not use.
func (tx *Tx) checkResourceIdentifier(before, after db.Resource) error {
	if err := checkAudience(after.Identifier, tx.controlAudience); err != nil {
		return err
	}
	for _, identifier := range []string{before.Identifier, after.Identifier} {
		if err := tx.checkReservedName(resourceIdentifier, identifier); err != nil {
			return err
		}
	}
	if control := tx.controlAudience; (before.Identifier == control || after.Identifier == control) && !tx.cause.Actor.Global() {
		return code.ProtectedResource.With("detail", "control API resource is managed only through the Control console path")
	}
	return nil
}

// normalizeResource brings a resource, as it is to be, into the form in which it is stored,
// or says what it lacks (contract: resources.md). The control resource needs no
// binding and has none; the transaction holds its zone alone if it lacks a
// provider, so that nobody else adds one meanwhile. It answers the operations.
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
	if err := checkUpstream(r.UpstreamURL); err != nil {
		return nil, err
	}
	normalized, err := normalizeOperations(operations, r.Scopes)
	if err != nil {
		return nil, err
	}
	r.Operations, err = json.Marshal(normalized)
	return normalized, err
}

func bindings(r db.Resource) int64 {
	if r.GatewayApplicationID == nil {
		return 0
	}
	return 1
}

// bindingChanged says whether a change, but for the operations, is one that gateways
// must see.
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
