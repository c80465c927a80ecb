package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
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
	if response.Status != http.StatusOK {
		detail := fmt.Sprintf("The token endpoint returned status %d%s.", response.Status, errorResponse(response.Body, sent))
		return Tokens{}, &ExchangeError{Kind: ExchangeFailed, Detail: detail}
	}
	return parseTokens(response.Body, sent)
}

// tokenRequest returns the HTTP request.
func tokenRequest(config Config, c oauthConfig, r TokenRequest) (egress.Request, error) {
	header := http.Header{"Accept": {"application/json"}}
	for _, headers := range []map[string]string{c.TokenHeaders, config.credentials("token_headers")} {
		for name, value := range headers {
			header.Set(name, value)
		}
	}
	params := url.Values{}
	setAll(params, c.TokenParams, config.credentials("token_params"))
	setNamed(params, c.TokenParamNames, map[string]string{
		"grant_type":    cmp.Or(c.GrantType, "authorization_code"),
		"code":          r.Code.Reveal(),
		"redirect_uri":  c.RedirectURI,
		"code_verifier": r.CodeVerifier.Reveal(),
	})
	if c.Resource != "" {
		params.Set(resourceParam, c.Resource)
	}
	if err := authenticate(config, c, params, header); err != nil {
		return egress.Request{}, err
	}
	query := url.Values{} // the credentials that were separated from the URL
	setAll(query, config.credentials("token_endpoint"))
	var body []byte
	switch c.TokenRequestFormat {
	case "query":
		maps.Copy(query, params)
	case "json":
		header.Set("Content-Type", "application/json")
		fields := map[string]any{}
		for name := range params {
			fields[name] = params.Get(name)
		}
		body = encode(fields)
	default:
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		body = []byte(params.Encode())
	}
	endpoint, err := tokenURL(c, query)
	if err != nil {
		return egress.Request{}, err
	}
	return egress.Request{Method: http.MethodPost, URL: endpoint, AllowedHosts: c.AllowedTokenHosts, Header: header, Body: body}, nil
}

// tokenURL returns the token endpoint with more parameters in its query. Package egress
// checks the URL again, and rejects IP addresses.
func tokenURL(c oauthConfig, query url.Values) (string, error) {
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
	if len(query) > 0 {
		u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+query.Encode(), "&")
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
