package server

import (
	"bytes"
	"encoding/json"

	"caracal.run/management/gen/db"
	"caracal.run/management/server/policy"
)

// A recordedInput is the input of policies as far as the metadata of an audit event
// records it. STS records an identifier that it does not have as an empty text.
type recordedInput struct {
	zone     string
	metadata map[string]any
}

func readPolicyInput(metadata, zone string) recordedInput {
	r := recordedInput{zone: zone}
	_ = json.Unmarshal([]byte(metadata), &r.metadata) // what is not an object records nothing
	return r
}

// text returns a field of the metadata, or "" if it is not a text.
func (r recordedInput) text(name string) string {
	text, _ := r.metadata[name].(string)
	return text
}

// texts returns a field of the metadata, and whether it is a list of texts.
func (r recordedInput) texts(name string) ([]string, bool) {
	list, ok := r.metadata[name].([]any)
	texts := make([]string, len(list))
	for i, element := range list {
		text, isText := element.(string)
		texts[i], ok = text, ok && isText
	}
	return texts, ok
}

type (
	identified struct {
		ID string `json:"id"`
	}
	inputEdge struct {
		ID     string   `json:"id"`
		Scopes []string `json:"scopes,omitempty"`
	}
)

// input returns the input in JSON.
func (r recordedInput) input() json.RawMessage {
	requested, _ := r.texts("requested_scopes")
	scopes, ok := r.texts("resource_scopes")
	if !ok {
		scopes = requested
	}
	labels, _ := r.texts("agent_labels")
	edgeScopes, _ := r.texts("delegation_edge_scopes")
	resolved, _ := r.metadata["challenge_resolved"].(bool)
	var input struct {
		SchemaVersion string `json:"schema_version"`
		Principal     struct {
			Type               string   `json:"type"`
			ID                 string   `json:"id"`
			ZoneID             string   `json:"zone_id"`
			RegistrationMethod string   `json:"registration_method,omitempty"`
			AgentSessionID     string   `json:"agent_session_id,omitempty"`
			Lifecycle          string   `json:"lifecycle,omitempty"`
			Labels             []string `json:"labels,omitempty"`
		} `json:"principal"`
		Resource struct {
			Type       string   `json:"type"`
			ID         string   `json:"id,omitempty"`
			Identifier string   `json:"identifier"`
			Scopes     []string `json:"scopes"`
		} `json:"resource"`
		Action struct {
			ID     string `json:"id"`
			Method string `json:"method,omitempty"`
			Path   string `json:"path,omitempty"`
		} `json:"action"`
		Session *identified `json:"session,omitempty"`
		Edge    *inputEdge  `json:"delegation_edge,omitempty"`
		Context struct {
			ActorClaims       struct{}       `json:"actor_claims"`
			SubjectClaims     map[string]any `json:"subject_claims,omitzero"`
			SessionID         string         `json:"session_id,omitempty"`
			AgentSessionID    string         `json:"agent_session_id,omitempty"`
			EdgeID            string         `json:"delegation_edge_id,omitempty"`
			ChallengeResolved bool           `json:"challenge_resolved"`
			RequestedScopes   []string       `json:"requested_scopes"`
		} `json:"context"`
	}
	input.SchemaVersion = policy.InputSchemaVersion
	principal, context := &input.Principal, &input.Context
	principal.Type, principal.ID, principal.ZoneID, principal.RegistrationMethod = "Application", r.text("application_id"), r.zone, r.text("application_registration_method")
	principal.AgentSessionID, principal.Lifecycle, principal.Labels = r.text("agent_session_id"), r.text("agent_lifecycle"), labels
	input.Resource.Type, input.Resource.ID, input.Resource.Identifier, input.Resource.Scopes = "Resource", r.text("resource_id"), r.text("resource"), scopes
	input.Action.ID, input.Action.Method, input.Action.Path = "TokenExchange", r.text("method"), r.text("path")
	context.SessionID, context.AgentSessionID, context.EdgeID = r.text("session_id"), r.text("agent_session_id"), r.text("delegation_edge_id")
	context.ChallengeResolved, context.RequestedScopes, context.SubjectClaims = resolved, requested, r.subjectClaims()
	if context.SessionID != "" {
		input.Session = &identified{context.SessionID}
	}
	if context.EdgeID != "" {
		input.Edge = &inputEdge{context.EdgeID, edgeScopes}
	}
	var encoded bytes.Buffer
	encoder := json.NewEncoder(&encoded)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(input); err != nil {
		panic(err) // what was decoded can be encoded
	}
	return encoded.Bytes()
}

// subjectClaims returns the claims of the subject token that policies read, or nil if
// none were recorded. That there are claims has a meaning to policies, too.
func (r recordedInput) subjectClaims() map[string]any {
	recorded, ok := r.metadata["subject_claims"].(map[string]any)
	if !ok {
		return nil
	}
	claims := map[string]any{}
	for _, name := range []string{"delegation_edge_id", "target"} {
		if value, found := recorded[name]; found {
			claims[name] = value
		}
	}
	return claims
}

// whyNotSimulatable returns why the recorded input does not repeat the decision of a
// denied event, or "" if it does.
func (r recordedInput) whyNotSimulatable(e db.AuditEvent) string {
	requested, hasScopes := r.texts("requested_scopes")
	_, hasEdgeScopes := r.texts("delegation_edge_scopes")
	switch {
	case valueOr(e.EvaluationStatus, "") == "interaction_required":
		return "approval_required"
	case valueOr(e.EventType, "") != "token_exchange" || valueOr(e.EvaluationStatus, "") != "complete":
		return "not_decided_by_policies"
	case e.PolicySetVersionID == nil:
		return "no_policy_set"
	case r.text("application_id") == "" || r.text("resource") == "" || !hasScopes:
		return "request_not_recorded"
	case r.text("delegation_edge_id") != "" && !hasEdgeScopes:
		return "edge_scopes_not_recorded"
	case r.subjectClaims() == nil && usesToken(valueOr(e.Diagnostics, ""), len(requested)):
		return "subject_claims_not_recorded"
	}
	return ""
}

// usesToken reports whether a denied request presented a subject token, by what the
// policies read of it and by its number of requested scopes. A request without a scope
// presents one, unless the reason why it was denied is that it requested none.
func usesToken(diagnostics string, scopes int) bool {
	var recorded []struct{ Reason string }
	_ = json.Unmarshal([]byte(diagnostics), &recorded) // what is not a list of reasons has none
	uses := scopes == 0
	for _, d := range recorded {
		switch d.Reason {
		case "outside_target", "scope_requested":
			return true
		case "no_scope_requested":
			uses = false
		}
	}
	return uses
}
