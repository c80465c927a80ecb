package server

import (
	"context"
	"errors"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/policy"
)

// ValidatePolicy handles POST /v1/policies/validate.
func (s *Server) ValidatePolicy(ctx context.Context, req api.ValidatePolicyRequestObject) (api.ValidatePolicyResponseObject, error) {
	schemaVersion := valueOr(req.Body.SchemaVersion, policy.InputSchemaVersion)
	v, err := validatePolicy(ctx, req.Body.Content, schemaVersion)
	if err != nil {
		var invalid *code.Error
		if errors.As(err, &invalid) {
			invalid.Fields["valid"] = false
		}
		return nil, err
	}
	warnings := v.Warnings
	if req.Body.ZoneID != nil {
		declared, err := s.storeFor(ctx).DeclaredScopes(ctx, *req.Body.ZoneID, v.Resources)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, v.WarnUndeclared(declared)...)
	}
	return api.ValidatePolicy200JSONResponse{
		Valid: true, SchemaVersion: schemaVersion, InputSchemaVersion: policy.InputSchemaVersion,
		OutputContract: api.PolicyOutputContract{Package: "caracal.authz", Rule: "result", Decision: []string{"allow", "deny"}, EvaluationStatus: []string{"complete"}},
		Preview: api.PolicyPreview{
			Package: v.Preview.Package, Rules: v.Preview.Rules, Decisions: v.Preview.Decisions,
			InputsReferenced: v.Preview.InputsReferenced, DataReferenced: v.Preview.DataReferenced,
		},
		Warnings: mapSlice(warnings, toPolicyIssue),
	}, nil
}

// validatePolicy returns invalid_schema_version, or invalid_rego with every issue of
// the content.
func validatePolicy(ctx context.Context, content, schemaVersion string) (policy.Validation, error) {
	if !policy.SupportedSchemaVersion(schemaVersion) {
		return policy.Validation{}, code.InvalidSchemaVersion.With("detail", unsupportedSchemaVersion(schemaVersion))
	}
	v, err := policy.Validate(ctx, content, schemaVersion)
	var invalid *policy.CompileError
	if errors.As(err, &invalid) {
		return v, &code.Error{Code: code.InvalidRego, Fields: map[string]any{"detail": invalid.Issues[0].Code, "issues": mapSlice(invalid.Issues, toPolicyIssue)}}
	}
	return v, err
}

func toPolicyIssue(i policy.Issue) api.PolicyIssue {
	return api.PolicyIssue{Code: i.Code, Message: i.Message, Row: i.Row, Column: i.Column, Line: i.Line}
}
