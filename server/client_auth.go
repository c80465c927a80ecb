package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/issuer"
	"caracal.run/management/server/middleware"
	"caracal.run/management/store"
	"caracal.run/management/store/onetime"
)

const (
	tokenPath = "/oauth/2/token"

	// assertionPrefix is the prefix of the keys in Redis of the used client assertions.
	assertionPrefix = "caracal:control:assertion:"
)

// invalidClient is the error of a request with missing or invalid credentials.
func invalidClient() *code.Error {
	return &code.Error{Code: code.AccessDenied, Status: http.StatusUnauthorized, Sentence: "The credentials of the application are missing or invalid."}
}

// clientCredentials are what an application authenticates with: either a secret or an
// assertion. They print as the ID.
type clientCredentials struct{ id, secret, assertion string }

// credentialsOf returns the credentials in a token request. It returns invalid_request if
// they are ambiguous: with more than one method, or with several IDs (RFC 6749, section
// 2.3).
func credentialsOf(authorization []string, body *api.TokenRequest) (clientCredentials, error) {
	text := func(value *string) string {
		if value == nil {
			return ""
		}
		return *value
	}
	var c clientCredentials
	ids := []string{text(body.ClientID), text(body.ApplicationID)}
	methods := 0
	if len(authorization) > 0 {
		methods++
		id, secret, ok := basicCredentials(authorization)
		if !ok {
			return c, invalidClient()
		}
		ids, c.secret = append(ids, id), secret
	}
	if body.ClientSecret != nil {
		methods++
		c.secret = *body.ClientSecret
	}
	if body.ClientAssertion != nil || body.ClientAssertionType != nil {
		methods++
		c.assertion = text(body.ClientAssertion)
		switch {
		case text(body.ClientAssertionType) != issuer.AssertionType:
			return c, code.InvalidRequest.At("must be "+issuer.AssertionType, "client_assertion_type")
		case c.assertion == "":
			return c, code.InvalidRequest.At("is required", "client_assertion")
		}
		ids = append(ids, issuer.AssertionClient(c.assertion))
	}
	if methods > 1 {
		return c, code.InvalidRequest.Saying("The application must authenticate with one method only.")
	}
	for _, id := range ids {
		if id != "" && c.id != "" && id != c.id {
			return c, code.InvalidRequest.Saying("The request has the IDs of two applications.")
		}
		c.id = cmp.Or(c.id, id)
	}
	if methods == 0 || !middleware.IsID(c.id) {
		return c, invalidClient()
	}
	return c, nil
}

// basicCredentials returns the ID and the secret in the header Authorization (RFC 6749,
// section 2.3.1).
func basicCredentials(authorization []string) (id, secret string, ok bool) {
	scheme, encoded, _ := strings.Cut(authorization[0], " ")
	if len(authorization) > 1 || !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return "", "", false
	}
	encodedID, encodedSecret, found := strings.Cut(string(text), ":")
	id, idErr := url.QueryUnescape(encodedID)
	secret, secretErr := url.QueryUnescape(encodedSecret)
	return id, secret, found && id != "" && secret != "" && idErr == nil && secretErr == nil
}

// authenticateClient returns the application that credentials belong to. If they are
// invalid, it returns access_denied, with the application if it exists; if the address of
// the request or the application has failed too often, rate_limited. Then, it does not hash
// secrets any more, but valid secrets that this service has generated are still accepted:
// the IDs of applications are not secret, and guesses must not lock anybody out.
func (s *Server) authenticateClient(ctx context.Context, address string, c clientCredentials) (db.Application, error) {
	failures := s.limits.clientFailures
	byAddress, byClient := "ip:"+address, "client:"+c.id
	mayHash := func() error {
		if failures.Exceeded(byAddress) || failures.Exceeded(byClient) {
			return code.RateLimited
		}
		return nil
	}
	app, err := s.store.For(store.System).Client(ctx, c.id)
	if err != nil && !errors.Is(err, code.ApplicationNotFound) {
		return db.Application{}, err
	}
	if c.assertion != "" {
		err = s.verifyAssertion(ctx, app.Application, c)
	} else {
		err = app.VerifySecret(ctx, c.secret, mayHash) // takes as long if there is no such application
	}
	switch {
	case err == nil:
		return app.Application, nil
	case !errors.Is(err, issuer.ErrInvalid) && !errors.Is(err, store.ErrInvalidSecret):
		return db.Application{}, err
	case !failures.Allow(byAddress) || !failures.Allow(byClient):
		return db.Application{}, code.RateLimited // without the application: guesses must not fill its audit log
	}
	denied := invalidClient()
	denied.Cause = err
	return app.Application, denied
}

// verifyAssertion returns an error that wraps [issuer.ErrInvalid] unless an assertion
// authenticates an application. It can return service_unavailable.
func (s *Server) verifyAssertion(ctx context.Context, app db.Application, c clientCredentials) error {
	now := time.Now()
	if app.ID == "" || app.Jwks == nil || app.ExpiresAt != nil && !now.Before(*app.ExpiresAt) {
		return issuer.ErrInvalid
	}
	audiences := []string{s.config.baseURL() + tokenPath, s.issuer.URL(app.ZoneID)}
	assertion, err := issuer.VerifyAssertion(c.assertion, app.ID, app.Jwks, audiences, now)
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte(app.ID + " " + assertion.ID)) // the client has chosen the ID
	err = s.usedAssertions.Use(ctx, hex.EncodeToString(digest[:]), assertion.ExpiresAt)
	if errors.Is(err, onetime.ErrUsed) {
		return issuer.ErrInvalid
	}
	return err
}
