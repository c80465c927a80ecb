package provider

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"caracal.run/management/server/secret"
)

// Open returns a stored configuration with its secrets, of which plaintext is what
// [Secrets.Plaintext] returned; nil if there are none. It returns an [*ExchangeError] of
// kind [ConfigInvalid] if plaintext is malformed.
func Open(kind Kind, public json.RawMessage, plaintext []byte) (Config, error) {
	c := Config{Kind: kind, Public: public, Secrets: Secrets{}}
	if len(plaintext) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(plaintext, &c.Secrets); err != nil {
		// Without the cause, which can quote a secret.
		return Config{}, &ExchangeError{Kind: ConfigInvalid, Detail: "The secrets of the provider are malformed."}
	}
	return c, nil
}

// An ErrorKind classifies an [ExchangeError]. It is itself an error, for
// errors.Is(err, ConfigInvalid).
type ErrorKind string

const (
	// ConfigInvalid: the configuration lacks a field or a secret, or violates a rule,
	// which may be newer than the configuration.
	ConfigInvalid ErrorKind = "config_invalid"
	// AuthorizationEndpointInvalid: the authorization endpoint is no https URL.
	AuthorizationEndpointInvalid ErrorKind = "authorization_endpoint_invalid"
	// TokenEndpointNotAllowed: the token endpoint is no https URL on an allowed host.
	TokenEndpointNotAllowed ErrorKind = "token_endpoint_not_allowed"
	// ExchangeFailed: the token endpoint cannot be reached, does not respond in time,
	// responds with too much, or with a status other than 200.
	ExchangeFailed ErrorKind = "exchange_failed"
	// ResponseInvalid: the response with status 200 contains no usable access token.
	ResponseInvalid ErrorKind = "response_invalid"
	// IssuerMismatch: the authorization response is from another authorization server.
	IssuerMismatch ErrorKind = "issuer_mismatch"
)

func (k ErrorKind) Error() string { return string(k) }

// An ExchangeError reports why there is no authorization URL, or why a code was not
// exchanged. It wraps its kind and its cause.
type ExchangeError struct {
	Kind   ErrorKind
	Detail string // a sentence for the operator; contains no secret and no internal address
	Cause  error  // for the log only: it may contain internal addresses, but no secret
}

func (e *ExchangeError) Error() string {
	text := "provider: " + string(e.Kind)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap returns the kind and the cause.
func (e *ExchangeError) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// An oauthConfig is the configuration of the kind oauth2_authorization_code, without
// secrets.
type oauthConfig struct {
	AuthorizationEndpoint   string            `json:"authorization_endpoint"`
	AuthorizationParams     map[string]string `json:"authorization_params"`
	AuthorizationParamNames map[string]string `json:"authorization_param_names"`
	TokenEndpoint           string            `json:"token_endpoint"`
	TokenParams             map[string]string `json:"token_params"`
	TokenParamNames         map[string]string `json:"token_param_names"`
	TokenHeaders            map[string]string `json:"token_headers"`
	TokenRequestFormat      string            `json:"token_request_format"`
	AllowedTokenHosts       []string          `json:"allowed_token_hosts"`
	GrantType               string            `json:"grant_type"`
	ClientID                string            `json:"client_id"`
	ClientAuthMethod        string            `json:"client_auth_method"`
	KeyID                   string            `json:"key_id"`
	RedirectURI             string            `json:"redirect_uri"`
	Scopes                  []string          `json:"scopes"`
	ScopeSeparator          string            `json:"scope_separator"`
	Resource                string            `json:"resource"`
	Issuer                  string            `json:"issuer"`
}

// oauth returns the public configuration. It requires the fields without which there
// is no authorization request and no token request.
func (c Config) oauth() (oauthConfig, error) {
	var o oauthConfig
	if c.Kind != AuthorizationCode {
		return o, &ExchangeError{Kind: ConfigInvalid, Detail: fmt.Sprintf("Providers of the kind %s have no authorization code.", c.Kind)}
	}
	if err := json.Unmarshal(c.Public, &o); err != nil {
		return o, &ExchangeError{Kind: ConfigInvalid, Detail: "The configuration of the provider is malformed.", Cause: err}
	}
	for _, field := range []struct {
		name string
		text *string
	}{
		{"client_id", &o.ClientID}, {"redirect_uri", &o.RedirectURI},
		{"authorization_endpoint", &o.AuthorizationEndpoint}, {"token_endpoint", &o.TokenEndpoint},
	} {
		*field.text = trim(*field.text)
		if *field.text == "" && field.name != "token_endpoint" { // which has an error of its own
			return o, &ExchangeError{Kind: ConfigInvalid, Detail: fmt.Sprintf("The configuration of the provider has no %s.", field.name)}
		}
	}
	return o, nil
}

// credentials returns the credentials that were separated from a public field, by
// name.
func (c Config) credentials(field string) map[string]string {
	found := map[string]string{}
	for name, text := range c.Secrets {
		if param, ok := strings.CutPrefix(name, field+"."); ok {
			found[param] = text.Reveal()
		}
	}
	return found
}

// secret returns a secret, or an error if it is not stored.
func (c Config) secret(name string) (secret.String, error) {
	text := c.Secrets[name]
	if text.IsZero() {
		return text, &ExchangeError{Kind: ConfigInvalid, Detail: fmt.Sprintf("The provider has no stored %s.", name)}
	}
	return text, nil
}

// setAll sets the parameters of each map.
func setAll(params url.Values, maps ...map[string]string) {
	for _, m := range maps {
		for name, value := range m {
			params.Set(name, value)
		}
	}
}

// setNamed sets parameters of the protocol under the names that a service has for them.
func setNamed(params url.Values, names, values map[string]string) {
	for name, value := range values {
		params.Set(cmp.Or(names[name], name), value)
	}
}
