package provider

import (
	"cmp"
	"net/url"
	"strings"

	"caracal.run/management/server/weburl"
)

// An AuthorizationRequest is one request for a user's consent.
type AuthorizationRequest struct {
	State         string // identifies the request in the response
	CodeChallenge string // base64url(SHA-256(code verifier)) (RFC 7636)
}

// AuthorizationURL returns the URL at which a user consents. It contains the
// parameters of the authorization endpoint's own query, then authorization_params, then
// those of the request, each replacing parameters of the same name. The scopes are those
// of the configuration: the upstream service does not know Caracal's.
//
// The error is an [*ExchangeError] of kind [ConfigInvalid] or
// [AuthorizationEndpointInvalid].
func AuthorizationURL(config Config, r AuthorizationRequest) (string, error) {
	c, err := config.oauth()
	if err != nil {
		return "", err
	}
	u, params, err := endpointURL(c.AuthorizationEndpoint)
	if err != nil {
		return "", err
	}
	setAll(params, config.credentials("authorization_endpoint"), c.AuthorizationParams, config.credentials("authorization_params"))
	setNamed(params, c.AuthorizationParamNames, map[string]string{
		"response_type":         "code",
		"client_id":             c.ClientID,
		"redirect_uri":          c.RedirectURI,
		"state":                 r.State,
		"code_challenge":        r.CodeChallenge,
		"code_challenge_method": "S256",
	})
	if len(c.Scopes) > 0 {
		setNamed(params, c.AuthorizationParamNames, map[string]string{"scope": strings.Join(c.Scopes, cmp.Or(c.ScopeSeparator, " "))})
	}
	if c.Resource != "" {
		params.Set(resourceParam, c.Resource)
	}
	u.RawQuery = params.Encode()
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String(), nil
}

// CheckIssuer checks the parameter iss of an authorization response (RFC 9207), which is
// "" if the response has none. It returns an [*ExchangeError] of kind [IssuerMismatch] if
// the parameter differs from the configured issuer, character by character. Without a
// configured issuer, it has nothing to compare the parameter with.
func CheckIssuer(config Config, iss string) error {
	c, err := config.oauth()
	if err != nil {
		return err
	}
	if iss != "" && c.Issuer != "" && iss != c.Issuer {
		return &ExchangeError{Kind: IssuerMismatch, Detail: "The response is not from the configured issuer."}
	}
	return nil
}

// endpointURL parses an authorization endpoint. The details do not quote the URL, which
// can contain a password.
func endpointURL(text string) (*url.URL, url.Values, error) {
	invalid := func(detail string) (*url.URL, url.Values, error) {
		return nil, nil, &ExchangeError{Kind: AuthorizationEndpointInvalid, Detail: detail}
	}
	u, err := weburl.Parse(text)
	switch {
	case err != nil:
		return invalid("The authorization endpoint is not a valid URL.")
	case u.Scheme != "https":
		return invalid("The authorization endpoint must be https.")
	case u.User != nil:
		return invalid("The authorization endpoint must not contain a user name or password.")
	}
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return invalid("The query of the authorization endpoint is malformed.")
	}
	return u, params, nil
}
