package server

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/oapi-codegen/nullable"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/secret"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/server/weburl"
	"caracal.run/management/store"
)

// ListResources handles GET /v1/zones/{zoneId}/resources.
func (s *Server) ListResources(ctx context.Context, req api.ListResourcesRequestObject) (api.ListResourcesResponseObject, error) {
	scope := "resources of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, scope)
	if err != nil {
		return nil, err
	}
	filter := store.ResourceFilter{Name: req.Params.Name, Identifier: req.Params.Identifier}
	resources, err := s.storeFor(ctx).Resources(ctx, req.ZoneID, filter, page)
	if err != nil {
		return nil, err
	}
	resources, link := paginate(ctx, resources, page, scope, func(r db.Resource) store.Position { return store.Position{Time: r.CreatedAt, ID: r.ID} })
	body := make([]api.Resource, len(resources))
	for i, r := range resources {
		if body[i], err = toResource(r); err != nil {
			return nil, err
		}
	}
	return api.ListResources200JSONResponse{Body: body, Headers: api.ListResources200ResponseHeaders{Link: link}}, nil
}

// CreateResource handles POST /v1/zones/{zoneId}/resources.
func (s *Server) CreateResource(ctx context.Context, req api.CreateResourceRequestObject) (api.CreateResourceResponseObject, error) {
	n := store.NewResource{
		Name: req.Body.Name, Identifier: req.Body.Identifier, UpstreamURL: req.Body.UpstreamURL, Scopes: req.Body.Scopes,
		CredentialProviderID: valueOr(req.Body.CredentialProviderID, ""), GatewayApplicationID: req.Body.GatewayApplicationID,
		Operations: mapSlice(req.Body.Operations, toStoredOperation), OperationEnforcement: string(valueOr(req.Body.OperationEnforcement, api.OperationEnforcementEnforced)),
	}
	if err := checkUpstream(n.UpstreamURL); err != nil {
		return nil, err
	}
	r, err := inTx(ctx, s, func(tx *store.Tx) (db.Resource, error) {
		return tx.CreateResource(ctx, req.ZoneID, n)
	})
	if err != nil {
		return nil, err
	}
	body, err := toResource(r)
	return api.CreateResource201JSONResponse{Body: body, Headers: api.CreateResource201ResponseHeaders{ETag: etag(r.Version)}}, err
}

// GetResource handles GET /v1/zones/{zoneId}/resources/{id}.
func (s *Server) GetResource(ctx context.Context, req api.GetResourceRequestObject) (api.GetResourceResponseObject, error) {
	r, err := s.storeFor(ctx).Resource(ctx, req.ZoneID, req.ID)
	if err != nil {
		return nil, err
	}
	body, err := toResource(r)
	return api.GetResource200JSONResponse{Body: body, Headers: api.GetResource200ResponseHeaders{ETag: etag(r.Version)}}, err
}

// UpdateResource handles PATCH /v1/zones/{zoneId}/resources/{id}.
func (s *Server) UpdateResource(ctx context.Context, req api.UpdateResourceRequestObject) (api.UpdateResourceResponseObject, error) {
	upstream := fromNullable(req.Body.UpstreamURL)
	patch := store.ResourcePatch{
		Name: req.Body.Name, Identifier: req.Body.Identifier, UpstreamURL: upstream, Scopes: valueOr(req.Body.Scopes, nil),
		GatewayApplicationID: fromNullable(req.Body.GatewayApplicationID), OperationEnforcement: (*string)(req.Body.OperationEnforcement),
		Verify: func(present db.Resource) error {
			// A stored URL may be older than a rule that it violates, and is accepted as it was read.
			if url := valueOr(upstream, nil); valueOr(url, "") != valueOr(present.UpstreamURL, "") {
				if err := checkUpstream(url); err != nil {
					return err
				}
			}
			r, err := toResource(present)
			return errors.Join(err, checkReadOnly(ctx, r))
		},
	}
	if provider := fromNullable(req.Body.CredentialProviderID); provider != nil {
		patch.CredentialProviderID = new(valueOr(*provider, ""))
	}
	if req.Body.Operations != nil {
		patch.Operations = mapSlice(*req.Body.Operations, toStoredOperation)
	}
	r, err := inTx(ctx, s, func(tx *store.Tx) (db.Resource, error) {
		return tx.UpdateResource(ctx, req.ZoneID, req.ID, precondition(ctx), patch)
	})
	if err != nil {
		return nil, err
	}
	body, err := toResource(r)
	return api.UpdateResource200JSONResponse{Body: body, Headers: api.UpdateResource200ResponseHeaders{ETag: etag(r.Version)}}, err
}

// DeleteResource handles DELETE /v1/zones/{zoneId}/resources/{id}.
func (s *Server) DeleteResource(ctx context.Context, req api.DeleteResourceRequestObject) (api.DeleteResourceResponseObject, error) {
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error {
		return tx.DeleteResource(ctx, req.ZoneID, req.ID, precondition(ctx))
	})
	if err != nil {
		return nil, err
	}
	return api.DeleteResource204Response{}, nil
}

// checkUpstream returns invalid_resource if an upstream URL is not an http or https URL
// with a host, or contains credentials: these belong in a provider, which encrypts them.
func checkUpstream(upstream *string) error {
	if upstream == nil {
		return nil
	}
	const field = "upstream_url"
	u, err := weburl.Parse(*upstream)
	switch {
	case err != nil:
		return code.InvalidResource.At("must be an http or https URL with a host", field)
	case u.User != nil:
		return code.InvalidResource.At("must not contain a user name or password; use a credential provider", field)
	}
	if _, credentials := weburl.SplitQuery(*upstream, secret.IsName); len(credentials) > 0 {
		return code.InvalidResource.At("must not contain credentials, such as the parameter "+credentials[0].Name+"; use a credential provider", field)
	}
	return nil
}

// fromNullable returns nil if the field is absent, a pointer to nil if it is null,
// and otherwise a pointer to a pointer to its value.
func fromNullable(n nullable.Nullable[string]) **string {
	if !n.IsSpecified() {
		return nil
	}
	var value *string
	if v, err := n.Get(); err == nil {
		value = &v
	}
	return &value
}

func toStoredOperation(o api.NewResourceOperation) store.ResourceOperation {
	return store.ResourceOperation{Method: o.Method, Path: o.Path, Scope: o.Scope}
}

func toResource(r db.Resource) (api.Resource, error) {
	operations, err := toOperations(string(r.Operations))
	return api.Resource{
		ID: r.ID, ZoneID: r.ZoneID, Name: r.Name, Identifier: r.Identifier, UpstreamURL: r.UpstreamURL, Scopes: r.Scopes,
		CredentialProviderID: r.CredentialProviderID, GatewayApplicationID: r.GatewayApplicationID,
		Operations: operations, OperationEnforcement: api.OperationEnforcement(r.OperationEnforcement),
		CreatedAt: timestamp.Time(r.CreatedAt), UpdatedAt: timestamp.Time(r.UpdatedAt),
	}, err
}

// toOperations decodes the operations of a resource. A page may contain thousands
// of them, so toOperations parses the text of the jsonb column itself: Postgres
// always writes shorter keys first and the same white space. encoding/json decodes
// any other text, such as one with an escape in a string.
func toOperations(text string) ([]api.ResourceOperation, error) {
	operations := make([]api.ResourceOperation, 0, strings.Count(text, `{"path"`))
	for rest, next := text, `[{"path": "`; ; next = `, {"path": "` {
		var o api.ResourceOperation
		var okPath, okScope, okMethod, okEnd bool
		o.Path, rest, okPath = splitString(rest, next)
		o.Scope, rest, okScope = splitString(rest, `, "scope": "`)
		o.Method, rest, okMethod = splitString(rest, `, "method": "`)
		rest, okEnd = strings.CutPrefix(rest, "}")
		if !okPath || !okScope || !okMethod || !okEnd {
			break
		}
		operations = append(operations, o)
		if rest == "]" {
			return operations, nil
		}
	}
	decoded := []api.ResourceOperation{}
	if text == "[]" {
		return decoded, nil
	}
	err := json.Unmarshal([]byte(text), &decoded)
	return decoded, err
}

// splitString removes prefix from text and splits the rest at the next quote: value
// is the JSON string before it. It returns false if text does not start with prefix
// or the string contains an escape.
func splitString(text, prefix string) (value, rest string, ok bool) {
	text, ok = strings.CutPrefix(text, prefix)
	value, rest, found := strings.Cut(text, `"`)
	return value, rest, ok && found && !strings.Contains(value, `\`)
}
