package provider

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"caracal.run/management/server/egress"
	"caracal.run/management/server/secret"
	"caracal.run/management/server/weburl"
)

// An Exchanger exchanges authorization codes for tokens (RFC 6749, section 4.1.3). It
// is safe for concurrent use.
type Exchanger struct{ client *egress.Client }

// NewExchanger returns an Exchanger that sends its requests with a client, which bounds
// their time and the size of the responses.
func NewExchanger(client *egress.Client) *Exchanger { return &Exchanger{client} }

// A TokenRequest is one code to exchange.
type TokenRequest struct {
	Code         secret.String
	CodeVerifier secret.String // of which the authorization request had the challenge (RFC 7636)
}

// Exchange exchanges a code. It sends one request: a code can be used only once, so a
// failed request is not repeated. The error is an [*ExchangeError] of any kind but
// [AuthorizationEndpointInvalid].
func (e *Exchanger) Exchange(ctx context.Context, config Config, r TokenRequest) (Tokens, error) {
	c, err := config.oauth()
	if err != nil {
		return Tokens{}, err
	}
	request, err := tokenRequest(config, c, r)
	if err != nil {
		return Tokens{}, err
	}
	response, err := e.client.Do(ctx, request)
	if err != nil {
		return Tokens{}, egressError(err)
	}
	sent := sentSecrets(config, c, r)
	if response.Status != 200 {
		detail := fmt.Sprintf("The token endpoint returned status %d%s.", response.Status, errorResponse(response.Body, sent))
		return Tokens{}, &ExchangeError{Kind: ExchangeFailed, Detail: detail}
	}
	return parseTokens(response.Body, sent)
}

// tokenRequest returns the HTTP request.
func tokenRequest(config Config, c oauthConfig, r TokenRequest) (egress.Request, error) {
	form := url.Values{}
	setAll(form, c.TokenParams, config.credentials("token_params"), map[string]string{
		"grant_type":    "authorization_code",
		"code":          r.Code.Reveal(),
		"redirect_uri":  c.RedirectURI,
		"code_verifier": r.CodeVerifier.Reveal(),
	})
	header := map[string][]string{
		"Accept":       {"application/json"},
		"Content-Type": {"application/x-www-form-urlencoded"},
	}
	if err := authenticate(config, c, form, header); err != nil {
		return egress.Request{}, err
	}
	endpoint, err := tokenURL(config, c)
	if err != nil {
		return egress.Request{}, err
	}
	return egress.Request{
		Method: "POST", URL: endpoint, AllowedHosts: c.AllowedTokenHosts, Header: header, Body: []byte(form.Encode()),
	}, nil
}

// authenticate adds the client authentication (RFC 6749, section 2.3).
func authenticate(config Config, c oauthConfig, form url.Values, header map[string][]string) error {
	if c.ClientAuthMethod == "none" {
		form.Set("client_id", c.ClientID)
		return nil
	}
	clientSecret, err := config.secret("client_secret")
	if err != nil {
		return err
	}
	switch c.ClientAuthMethod {
	case "", "client_secret_basic":
		header["Authorization"] = []string{"Basic " + basic(c.ClientID, clientSecret.Reveal())}
	case "client_secret_post":
		form.Set("client_id", c.ClientID)
		form.Set("client_secret", clientSecret.Reveal())
	default:
		return &ExchangeError{Kind: ConfigInvalid, Detail: "The configuration of the provider has an unknown client_auth_method."}
	}
	return nil
}

// basic returns Basic credentials, of which each part is form-encoded first (RFC 6749,
// section 2.3.1): otherwise, a colon in the client ID would end it.
func basic(id, clientSecret string) string {
	return base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id) + ":" + url.QueryEscape(clientSecret)))
}

// tokenURL returns the token endpoint with the credentials of its query. Package
// egress checks the URL again: it rejects IP addresses, which have no certificate of a
// public authority as a rule.
func tokenURL(config Config, c oauthConfig) (string, error) {
	notAllowed := func(detail string) (string, error) {
		return "", &ExchangeError{Kind: TokenEndpointNotAllowed, Detail: detail}
	}
	u, err := weburl.Parse(c.TokenEndpoint)
	switch {
	case err != nil:
		return notAllowed("provider token endpoint must be a valid URL")
	case u.Scheme != "https" || u.User != nil:
		return notAllowed("provider token endpoint must be https")
	case len(c.AllowedTokenHosts) == 0:
		return notAllowed("provider has no allowed_token_hosts configured")
	case !slices.ContainsFunc(c.AllowedTokenHosts, func(host string) bool { return strings.EqualFold(trim(host), u.Hostname()) }):
		return notAllowed("provider token endpoint host is not allowlisted")
	}
	params := url.Values{}
	setAll(params, config.credentials("token_endpoint"))
	if len(params) > 0 {
		u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+params.Encode(), "&")
	}
	return u.String(), nil
}

// egressError returns the error of a request that got no response.
func egressError(err error) error {
	var failure *egress.Error
	if !errors.As(err, &failure) {
		return err
	}
	kind := ExchangeFailed
	switch failure.Kind {
	case egress.InvalidURL, egress.NotHTTPS, egress.HasUserinfo, egress.HostNotAName, egress.HostNotAllowed:
		kind = TokenEndpointNotAllowed
	}
	return &ExchangeError{Kind: kind, Detail: failure.Detail(), Cause: err}
}

// sentSecrets returns the secrets that a response must not make visible by quoting
// them.
func sentSecrets(config Config, c oauthConfig, r TokenRequest) []string {
	sent := []string{r.Code.Reveal(), r.CodeVerifier.Reveal(), basic(c.ClientID, config.Secrets["client_secret"].Reveal())}
	for _, text := range config.Secrets {
		sent = append(sent, text.Reveal())
	}
	return sent
}
