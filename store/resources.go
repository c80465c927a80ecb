package store

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// Resource is a live resource of a zone, or resource_not_found. The control
// resource is there for global callers only.
func (s *Store) Resource(ctx context.Context, zone, id string) (db.Resource, error) {
	r, err := s.q.GetResource(ctx, db.GetResourceParams{ZoneID: zone, ID: id})
	if err == nil && r.Identifier == s.hidden() {
		return db.Resource{}, code.ResourceNotFound
	}
	return r, missing(err, code.ResourceNotFound)
}

// Resources is a page of a zone's live resources, newest first, without the
// control resource for callers who are not global.
func (s *Store) Resources(ctx context.Context, zone string, p Page) ([]db.Resource, error) {
	return s.q.ListResources(ctx, db.ListResourcesParams{ZoneID: zone, Hidden: s.hidden(), BeforeTime: p.Before.Time, BeforeID: p.Before.ID, RowLimit: p.Rows})
}

// hidden is the identifier of the resource that the actor may not see, or "".
func (s *Store) hidden() string {
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
	base := or(n.Identifier, resourceBase(or(n.Name, "")))
	r := db.Resource{
		Identifier: base, UpstreamURL: n.UpstreamURL, Scopes: n.Scopes, CredentialProviderID: n.CredentialProviderID,
		GatewayApplicationID: n.GatewayApplicationID, OperationEnforcement: n.OperationEnforcement,
	}
	how := together
	if n.CredentialProviderID == "" && base == tx.controlAudience && tx.cause.Actor.Global() {
		how = alone // for noneProvider
	}
	if err := tx.holdNamed(ctx, zone, how, n.CredentialProviderID, n.GatewayApplicationID); err != nil {
		return r, err
	}
	if err := tx.mayBeResource(r, r); err != nil {
		return r, err
	}
	if _, err := tx.settle(ctx, zone, &r, n.Operations); err != nil {
		return r, err
	}
	counted, err := tx.q.CountResourceIn(ctx, db.CountResourceInParams{ZoneID: zone, Bindings: bindings(r), Most: tx.resourcesMost})
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
		row.Name, row.Identifier = or(n.Name, identifier), identifier
		return tx.q.InsertResource(ctx, row)
	}
	if n.Identifier != nil {
		r, err = insert(base)
	} else {
		r, err = underFreeName(base, row.ID, insert, func() (string, error) {
			return tx.q.GetFreeResourceIdentifier(ctx, db.GetFreeResourceIdentifierParams{ZoneID: zone, Base: base})
		})
	}
	if err != nil {
		return r, missing(err, code.ResourceIdentifierConflict)
	}
	tx.record(zone, "resources", r.ID, diff(nil, shownResource(r)))
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

// onlyBinds says whether nothing but the binding to an application is to change.
func (p ResourcePatch) onlyBinds() bool {
	return p.Name == nil && p.Identifier == nil && p.UpstreamURL == nil && p.Scopes == nil &&
		p.CredentialProviderID == nil && p.Operations == nil && p.OperationEnforcement == nil
}

// UpdateResource changes a resource that is still at a version that match
// admits.
func (tx *Tx) UpdateResource(ctx context.Context, zone, id string, match Match, p ResourcePatch) (db.Resource, error) {
	if p.onlyBinds() && p.GatewayApplicationID == nil {
		return db.Resource{}, code.NoFields
	}
	how := together
	if p.CredentialProviderID != nil && *p.CredentialProviderID == "" && tx.cause.Actor.Global() {
		how = alone // for noneProvider
	}
	if err := tx.holdNamed(ctx, zone, how, or(p.CredentialProviderID, ""), or(p.GatewayApplicationID, nil)); err != nil {
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
	after.Name, after.Identifier = or(p.Name, before.Name), or(p.Identifier, before.Identifier)
	after.UpstreamURL = or(p.UpstreamURL, before.UpstreamURL)
	after.CredentialProviderID = or(p.CredentialProviderID, before.CredentialProviderID)
	after.GatewayApplicationID = or(p.GatewayApplicationID, before.GatewayApplicationID)
	after.OperationEnforcement = or(p.OperationEnforcement, before.OperationEnforcement)
	if p.Scopes != nil {
		after.Scopes = p.Scopes
	}
	if p.Operations != nil {
		operations = p.Operations
	}
	if err := tx.mayBeResource(before, after); err != nil {
		return before, err
	}
	settled, err := tx.settle(ctx, zone, &after, operations)
	if err != nil {
		return before, err
	}
	if rebound(before, after) || !slices.Equal(stored, settled) {
		// Before the identifier: whoever creates a resource comes this way too.
		if err := db.New(queued{tx.first}).BumpBindingRevision(ctx, zone); err != nil {
			return before, err
		}
	}
	after, err = tx.q.UpdateResource(ctx, db.UpdateResourceParams{
		ZoneID: zone, ID: id, Name: after.Name, Identifier: after.Identifier, UpstreamURL: after.UpstreamURL, Scopes: after.Scopes,
		CredentialProviderID: after.CredentialProviderID, GatewayApplicationID: after.GatewayApplicationID,
		Operations: after.Operations, OperationEnforcement: after.OperationEnforcement, Touched: !p.onlyBinds(),
	})
	if err != nil {
		return after, err
	}
	tx.record(zone, "resources", id, diff(shownResource(before), shownResource(after)))
	return after, nil
}

// DeleteResource archives a resource: its identifier is free again. The control
// resource stays.
func (tx *Tx) DeleteResource(ctx context.Context, zone, id string, match Match) error {
	if _, err := tx.withinZone(ctx, zone, together); err != nil {
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
	if err := tx.mayName(resourceIdentifier, r.Identifier); err != nil {
		return err
	}
	// Before the identifier: whoever creates a resource comes this way too.
	if err := db.New(queued{tx.first}).CountResourceOut(ctx, db.CountResourceOutParams{ZoneID: zone, Bindings: bindings(r)}); err != nil {
		return err
	}
	tx.record(zone, "resources", id, removed)
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
		tx.record(zone, "resources", id, diff(shown{"gateway_application_id": &application}, shown{"gateway_application_id": (*string)(nil)}))
	}
	return tx.q.BumpBindingRevision(ctx, zone)
}

// holdNamed lets a transaction write below a live zone, and keeps what a
// resource is to name from being archived.
func (tx *Tx) holdNamed(ctx context.Context, zone string, how guard, provider string, application *string) error {
	if _, err := tx.withinZone(ctx, zone, how); err != nil {
		return err
	}
	if provider == "" && application == nil {
		return nil
	}
	held, err := tx.q.HoldNamed(ctx, db.HoldNamedParams{ZoneID: zone, ProviderID: provider, ApplicationID: or(application, "")})
	switch {
	case err != nil:
		return err
	case held.ProviderID != provider:
		return code.ProviderNotFound
	case application == nil || held.RegistrationMethod == managed:
		return nil
	case held.RegistrationMethod == "":
		return code.GatewayApplicationNotFound
	}
	return code.GatewayExchangeApplicationMustBeManaged
}

func (tx *Tx) lockResource(ctx context.Context, zone, id string, match Match) (db.Resource, error) {
	r, err := tx.q.LockResource(ctx, db.LockResourceParams{ZoneID: zone, ID: id})
	if err != nil {
		return r, missing(err, code.ResourceNotFound)
	}
	return r, match.check(r.Version)
}

// mayBeResource refuses an identifier that is none, and one that the actor may
// not use.
func (tx *Tx) mayBeResource(before, after db.Resource) error {
	if err := checkAudience(after.Identifier, tx.controlAudience); err != nil {
		return err
	}
	for _, identifier := range []string{before.Identifier, after.Identifier} {
		if err := tx.mayName(resourceIdentifier, identifier); err != nil {
			return err
		}
	}
	if control := tx.controlAudience; (before.Identifier == control || after.Identifier == control) && !tx.cause.Actor.Global() {
		return code.ProtectedResource.With("detail", "control API resource is managed only through the Control console path")
	}
	return nil
}

// settle brings a resource, as it is to be, into the form in which it is stored,
// or says what it lacks (contract: resources.md). The control resource needs no
// binding and has none; the transaction holds its zone alone if it lacks a
// provider, so that nobody else adds one meanwhile. It answers the operations.
func (tx *Tx) settle(ctx context.Context, zone string, r *db.Resource, operations []ResourceOperation) ([]ResourceOperation, error) {
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
	settled, err := settleOperations(operations, r.Scopes)
	if err != nil {
		return nil, err
	}
	r.Operations, err = json.Marshal(settled)
	return settled, err
}

func bindings(r db.Resource) int64 {
	if r.GatewayApplicationID == nil {
		return 0
	}
	return 1
}

// rebound says whether a change, but for the operations, is one that gateways
// must see.
func rebound(before, after db.Resource) bool {
	return before.Identifier != after.Identifier || or(before.UpstreamURL, "") != or(after.UpstreamURL, "") ||
		before.CredentialProviderID != after.CredentialProviderID || or(before.GatewayApplicationID, "") != or(after.GatewayApplicationID, "") ||
		before.OperationEnforcement != after.OperationEnforcement
}

func shownResource(r db.Resource) shown {
	return shown{
		"name": r.Name, "identifier": r.Identifier, "upstream_url": shownURL(r.UpstreamURL), "scopes": r.Scopes,
		"credential_provider_id": r.CredentialProviderID, "gateway_application_id": r.GatewayApplicationID,
		"operations": r.Operations, "operation_enforcement": r.OperationEnforcement,
	}
}
