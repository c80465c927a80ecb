package server

import (
	"context"
	"slices"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/policy"
)

// ListPolicyTemplates handles GET /v1/policy-templates.
func (s *Server) ListPolicyTemplates(context.Context, api.ListPolicyTemplatesRequestObject) (api.ListPolicyTemplatesResponseObject, error) {
	return api.ListPolicyTemplates200JSONResponse(mapSlice(policy.Templates(), toPolicyTemplate)), nil
}

// GetPolicyTemplate handles GET /v1/policy-templates/{id}.
func (s *Server) GetPolicyTemplate(_ context.Context, req api.GetPolicyTemplateRequestObject) (api.GetPolicyTemplateResponseObject, error) {
	i := slices.IndexFunc(policy.Templates(), func(t policy.Template) bool { return t.ID == req.ID })
	if i < 0 {
		return nil, code.PolicyTemplateNotFound
	}
	return api.GetPolicyTemplate200JSONResponse(toPolicyTemplate(policy.Templates()[i])), nil
}

func toPolicyTemplate(t policy.Template) api.PolicyTemplate {
	return api.PolicyTemplate{ID: t.ID, Name: t.Name, Description: t.Description, Content: t.Content}
}
