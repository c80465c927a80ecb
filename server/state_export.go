package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"caracal.run/management/gen"
	"caracal.run/management/gen/api"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/state"
)

// exportedKinds are the kinds that an export has unless the request names others. The grants
// of a zone can be too many for a document.
var exportedKinds = []state.Kind{state.Zone, state.Application, state.Provider, state.Resource, state.Policy, state.PolicySet}

// ExportState handles GET /v1/zones/{zoneId}/state.
func (s *Server) ExportState(ctx context.Context, req api.ExportStateRequestObject) (api.ExportStateResponseObject, error) {
	kinds := exportedKinds
	if named := req.Params.Kinds; named != nil {
		kinds = mapSlice(named, func(k api.StateKind) state.Kind { return state.Kind(k) })
	}
	document, err := s.state.Export(ctx, cause(ctx).Actor, req.ZoneID, kinds)
	if err != nil {
		return nil, err
	}
	if !middleware.RequestInfoFrom(ctx).WantsYAML {
		text, err := document.JSON()
		return textResponse{"application/json", text}, err
	}
	text, err := document.YAML(fmt.Sprintf("yaml-language-server: $schema=%s/v1/state/schema", s.config.baseURL()))
	return textResponse{"application/yaml; charset=utf-8", text}, err
}

// GetStateSchema handles GET /v1/state/schema.
func (s *Server) GetStateSchema(context.Context, api.GetStateSchemaRequestObject) (api.GetStateSchemaResponseObject, error) {
	return textResponse{"application/schema+json", gen.StateSchema}, nil
}

// A textResponse is a response that is written as it is.
type textResponse struct {
	contentType string
	text        []byte
}

func (r textResponse) write(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", r.contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(r.text)))
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(r.text)
	return err
}

// VisitExportStateResponse writes the response.
func (r textResponse) VisitExportStateResponse(w http.ResponseWriter) error { return r.write(w) }

// VisitGetStateSchemaResponse writes the response.
func (r textResponse) VisitGetStateSchemaResponse(w http.ResponseWriter) error { return r.write(w) }
