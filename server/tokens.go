package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/issuer"
	"caracal.run/management/server/middleware"
	"caracal.run/management/store"
	"caracal.run/management/store/controlkey"
	"caracal.run/management/store/ingest"
)

const (
	grantType       = "client_credentials" // RFC 6749, section 4.4
	tokensPerMinute = 1000                 // of one Control key
)

// IssueToken handles POST /oauth/2/token.
func (s *Server) IssueToken(ctx context.Context, req api.IssueTokenRequestObject) (api.IssueTokenResponseObject, error) {
	info := middleware.RequestInfoFrom(ctx)
	if s.issuer.External() {
		return nil, code.NotFound
	}
	if req.Body.GrantType != grantType {
		return nil, code.UnsupportedGrantType
	}
	credentials, err := credentialsOf(info.Credentials, req.Body)
	if err != nil {
		return nil, err
	}
	x := exchange{resources: req.Body.Resource, scopes: distinct(strings.Fields(req.Body.Scope)), evaluation: "exchange_denied"}
	x.application, err = s.authenticateClient(ctx, info.Address, credentials)
	var token string
	if err == nil {
		token, err = s.issueToken(ctx, &x, req.Body)
	}
	s.recordExchange(info.RequestID, x, err)
	if err != nil {
		return nil, err
	}
	return api.IssueToken200JSONResponse{
		AccessToken: token, TokenType: api.IssuedTokenTokenTypeBearer, ExpiresIn: int64(x.lifetime / time.Second), Scope: strings.Join(x.scopes, " "),
		IssuedTokenType: "urn:ietf:params:oauth:token-type:access_token", TargetResources: []string{s.config.ControlAudience},
	}, nil
}

// An exchange is a token request of an application, as it is recorded.
type exchange struct {
	application db.Application // zero: not known
	resources   []string
	scopes      []string
	lifetime    time.Duration
	session     string // of the issued token
	evaluation  string // the evaluation_status of the audit event
}

// deny returns access_denied with a reason, and sets the evaluation status.
func (x *exchange) deny(evaluation, reason string) error {
	x.evaluation = evaluation
	return code.AccessDenied.Saying(reason)
}

// issueToken issues a token to an application that has authenticated, and creates its
// session. It returns zone_invalid, access_denied or rate_limited.
func (s *Server) issueToken(ctx context.Context, x *exchange, body *api.TokenRequest) (string, error) {
	app := x.application
	if body.ZoneID != nil && *body.ZoneID != app.ZoneID {
		return "", code.ZoneInvalid
	}
	if !middleware.RequestInfoFrom(ctx).Allow(s.applicationLimit, app.ZoneID+":"+app.ID) {
		return "", code.RateLimited
	}
	if err := s.authorizeExchange(x, body.TTLSeconds); err != nil {
		return "", err
	}
	session, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	x.session = session.String()
	token, claims, err := s.issuer.Issue(ctx, cause(ctx).RequestID, issuer.Request{
		Zone: app.ZoneID, Application: app.ID, Scopes: x.scopes, Session: x.session, Lifetime: x.lifetime,
	})
	if err == nil {
		by := cause(ctx)
		by.Actor = store.Actor{Name: "application " + app.ID, Zone: app.ZoneID, Bootstrap: true} // reserved zones have keys, too
		err = s.store.InTx(ctx, by, func(tx *store.Tx) error {
			return tx.CreateApplicationSession(ctx, app.ZoneID, app.ID, x.session, claims.ExpiresAt)
		})
	}
	switch {
	case errors.Is(err, code.ApplicationNotFound), errors.Is(err, code.ZoneNotFound): // archived meanwhile
		return "", invalidClient()
	case err != nil:
		return "", err
	}
	x.evaluation = "complete"
	return token, nil
}

// authorizeExchange checks that an application is a Control key that has the requested
// scopes, and sets the lifetime of the token. It returns access_denied.
func (s *Server) authorizeExchange(x *exchange, ttl *int64) error {
	for _, resource := range x.resources {
		if resource != s.config.ControlAudience {
			return x.deny("resource_not_found", "The resource must be the control resource.")
		}
	}
	now := time.Now()
	key, isKey, err := controlkey.Parse(x.application.Traits)
	switch {
	case err != nil || !isKey:
		return x.deny("exchange_denied", "The application is not a Control key.")
	case key.Expired(now):
		return x.deny("exchange_denied", "The Control key has expired.")
	case len(x.scopes) == 0:
		return x.deny("scope_mismatch", "At least one scope must be requested.")
	}
	for _, scope := range x.scopes {
		if !slices.Contains(key.Scopes, scope) { // all of them begin with "control:"
			return x.deny("scope_mismatch", "The Control key does not have all requested scopes.")
		}
	}
	x.lifetime = min(key.MaxTTL, controlkey.MaxTTL)
	if ttl != nil {
		x.lifetime = min(x.lifetime, time.Duration(*ttl)*time.Second)
	}
	if key.ExpiresAt != nil {
		x.lifetime = min(x.lifetime, max(key.ExpiresAt.Sub(now).Truncate(time.Second), time.Second))
	}
	return nil
}

// recorded returns the beginning of a list as text, because the caller chooses
// how long it is.
func recorded(list []string) string {
	const maxBytes = 2048
	text := strings.Join(list, " ")
	return strings.ToValidUTF8(text[:min(len(text), maxBytes)], "")
}

// recordExchange publishes the audit event of a token request. There is none if the
// application is not known, because it would belong to no zone, or if the request failed
// for another reason than its own. Requests above a limit are not recorded.
func (s *Server) recordExchange(requestID string, x exchange, err error) {
	denied := errors.Is(err, code.AccessDenied) || errors.Is(err, code.ZoneInvalid)
	if x.application.ID == "" || err != nil && !denied {
		return
	}
	id, idErr := uuid.NewV7()
	if idErr != nil {
		s.auditEvents.dropped.Add(1)
		return
	}
	metadata := map[string]any{
		"application_id": x.application.ID, "application_name": x.application.Name, "application_registration_method": x.application.RegistrationMethod,
		"resource": recorded(distinct(x.resources)), "requested_scopes": x.scopes,
	}
	event := ingest.Event{
		ID: id.String(), ZoneID: x.application.ZoneID, EventType: "token_exchange", RequestID: requestID, Decision: "allow",
		EvaluationStatus: x.evaluation, DeterminingPolicies: []any{map[string]string{"policy": "control-key"}}, Diagnostics: []any{},
		Metadata: metadata, OccurredAt: time.Now(),
	}
	if err != nil {
		event.Decision, event.DeterminingPolicies = "deny", []any{}
		metadata["reason"] = err.Error()
		if saying, ok := errors.AsType[*code.Error](err); ok && saying.Sentence != "" {
			metadata["reason"] = saying.Sentence
		}
	} else {
		metadata["session_id"] = x.session
	}
	s.auditEvents.add(event)
}

// distinct returns the distinct texts of a list, in their order.
func distinct(texts []string) []string {
	all := []string{}
	for _, text := range texts {
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}
