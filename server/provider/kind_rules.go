package provider

import "slices"

// A fieldRule is one check of one field of a kind's configuration. A field may have
// several, because the order of all checks is fixed: the first that fails decides
// the error message, which is part of the API.
type fieldRule struct {
	kinds    []Kind
	key      string
	when     condition // nil: always
	presence presence
	rule     rule   // validates and normalizes the value
	fallback string // the default, which is stored if the field is absent
	message  string // of the error, after "<kind> provider config "
	subject  string // replaces the kind in the message, unless it is empty
}

type presence int

const (
	optional       presence = iota // may be absent; the rule applies otherwise
	required                       // must be present, and the rule applies
	forbidden                      // must be absent
	secretRequired                 // must be supplied, unless a sealed value is stored
)

var (
	apiKey = []Kind{APIKey}
	bearer = []Kind{BearerToken}
	client = []Kind{ClientCredentials}
	code   = []Kind{AuthorizationCode}
	oauth  = []Kind{ClientCredentials, AuthorizationCode}
	tokens = []Kind{BearerToken, ClientCredentials, AuthorizationCode}
	all    = []Kind{APIKey, BearerToken, ClientCredentials, AuthorizationCode}
)

// The parameters that the protocol itself sends.
var (
	authorizationParams = []string{"client_id", "code_challenge", "code_challenge_method", "redirect_uri", "response_type", "scope", "state"}
	tokenParams         = []string{"client_assertion", "client_assertion_type", "client_id", "client_secret", "code", "code_verifier",
		"grant_type", "redirect_uri", "refresh_token", "scope"}

	// resourceParam is sent if the configuration has a resource (RFC 8707). Otherwise, it can be an additional parameter.
	resourceParam = "resource"
)

// A condition reports whether a rule applies to a configuration with these values.
// Those that earlier rules have checked are valid and normalized.
type condition func(values map[string]any) bool

// is returns the condition that a field has one of the given values.
func is(key string, allowed ...any) condition {
	return func(values map[string]any) bool { return slices.Contains(allowed, values[key]) }
}

var (
	inHeader         = is("auth_location", "header")
	inQuery          = is("auth_location", "query")
	privateKeyJWT    = is("client_auth_method", "private_key_jwt")
	notPrivateKeyJWT = is("client_auth_method", "client_secret_basic", "client_secret_post", "none")
	clientSecretAuth = is("client_auth_method", "client_secret_basic", "client_secret_post")
)

// rules lists all rules in the order in which they are checked. The kinds none and
// caracal_mandate have no rules, because their configurations have no fields.
var rules = []fieldRule{
	{kinds: apiKey, key: "auth_location", rule: oneOf("header", "query"), fallback: "header", message: "auth_location must be header or query"},
	{kinds: apiKey, key: "header_name", when: inHeader, presence: required, rule: nonBlank, message: "requires header_name"},
	{kinds: apiKey, key: "header_name", when: inHeader, presence: required, rule: headerName, message: "header_name must be an HTTP header name"},
	{kinds: apiKey, key: "query_param_name", when: inQuery, presence: required, rule: nonBlank, message: "requires query_param_name"},
	{kinds: apiKey, key: "query_param_name", when: inQuery, presence: required, rule: paramName, message: "query_param_name must be a query parameter name"},
	{kinds: apiKey, key: "auth_scheme", when: inQuery, presence: forbidden, message: "auth_scheme applies only to header auth"},
	{kinds: apiKey, key: "api_key", presence: secretRequired, message: "requires api_key"},

	{kinds: bearer, key: "bearer_token", presence: secretRequired, message: "requires bearer_token"},

	{kinds: oauth, key: "token_endpoint", presence: required, rule: httpsURL, message: "token_endpoint must be an HTTPS URL"},
	{kinds: oauth, key: "client_id", presence: required, rule: text, message: "requires client_id"},
	{kinds: oauth, key: "allowed_token_hosts", presence: required, rule: listOf(nonBlank), message: "requires allowed_token_hosts"},
	{kinds: tokens, key: "allowed_token_hosts", rule: listOf(hostName), message: "allowed_token_hosts must be DNS hostnames"},
	{kinds: oauth, key: "token_endpoint", presence: required, rule: onAllowedHost, message: "token_endpoint must be on a host in allowed_token_hosts"},
	{kinds: oauth, key: "scopes", rule: listOf(nonBlank), message: "scopes must be a list of strings"},
	{kinds: oauth, key: "token_params", rule: paramsExcept(tokenParams...), message: "token_params must be non-reserved string key/value pairs"},
	{kinds: tokens, key: "auth_header", rule: headerName, message: "auth_header must be an HTTP header name"},
	{kinds: client, key: "audience", rule: text, message: "audience must be a non-empty string"},
	{kinds: client, key: "resource", rule: text, message: "resource must be a non-empty string"},
	{kinds: oauth, key: "key_id", rule: text, message: "key_id must be a non-empty string"},
	{kinds: oauth, key: "client_auth_method", rule: oneOf("client_secret_basic", "client_secret_post", "private_key_jwt", "none"),
		fallback: "client_secret_basic", message: "client_auth_method is invalid", subject: "oauth2"},
	{kinds: code, key: "authorization_endpoint", presence: required, rule: httpsURL, message: "authorization_endpoint must be an HTTPS URL"},
	{kinds: code, key: "redirect_uri", presence: required, rule: absoluteURI, message: "redirect_uri must be an absolute URI"},
	{kinds: code, key: "authorization_params", rule: paramsExcept(authorizationParams...), message: "authorization_params must be non-reserved string key/value pairs"},
	{kinds: oauth, key: "client_secret", when: privateKeyJWT, presence: forbidden, message: "client_secret is not used with private_key_jwt"},
	{kinds: oauth, key: "private_key", when: privateKeyJWT, presence: secretRequired, message: "requires private_key"},
	{kinds: oauth, key: "private_key", when: notPrivateKeyJWT, presence: forbidden, message: "private_key requires private_key_jwt"},
	{kinds: oauth, key: "key_id", when: notPrivateKeyJWT, presence: forbidden, message: "key_id requires private_key_jwt"},
	{kinds: oauth, key: "client_secret", when: clientSecretAuth, presence: secretRequired, message: "requires client_secret"},

	{kinds: all, key: "auth_scheme", rule: authScheme, message: "auth_scheme must be an auth scheme token"},
	{kinds: all, key: "forward_caracal_identity", rule: boolean, message: "forward_caracal_identity must be a boolean"},
	{kinds: all, key: "allow_runtime_injection", rule: boolean, message: "allow_runtime_injection must be a boolean"},

	// header_name may be set even if auth_location is query, and query_param_name even if it is header, but each must
	// be valid. These rules come after the others, whose errors take precedence.
	{kinds: apiKey, key: "header_name", when: inQuery, rule: headerName, message: "header_name must be an HTTP header name"},
	{kinds: apiKey, key: "query_param_name", when: inHeader, rule: paramName, message: "query_param_name must be a query parameter name"},

	// These rules reject values that can never work. They come last, so that every other error takes precedence.
	{kinds: apiKey, key: "header_name", rule: notReserved, message: "header_name must not be a header that HTTP itself sets, such as Host"},
	{kinds: tokens, key: "auth_header", rule: notReserved, message: "auth_header must not be a header that HTTP itself sets, such as Host"},
	{kinds: oauth, key: "token_endpoint", rule: withoutFragment, message: "token_endpoint must not contain a fragment"},
	{kinds: oauth, key: "token_endpoint", rule: withoutRepeatedSecret, message: "token_endpoint must not repeat a credential"},
	{kinds: code, key: "authorization_endpoint", rule: withoutFragment, message: "authorization_endpoint must not contain a fragment"},
	{kinds: code, key: "authorization_endpoint", rule: withoutRepeatedSecret, message: "authorization_endpoint must not repeat a credential"},
	{kinds: code, key: "redirect_uri", rule: withoutFragment, message: "redirect_uri must not contain a fragment"},
	{kinds: code, key: "redirect_uri", rule: safeRedirect, message: "redirect_uri must be https, http on a loopback address, or of a custom scheme"},
	{kinds: oauth, key: "private_key", when: privateKeyJWT, rule: privateKey, message: "private_key must be an unencrypted PEM key: RSA of at least 2048 bits, elliptic curve or Ed25519"},

	// These fields are for services that differ from the standards. A configuration without them has the standard behavior.
	{kinds: code, key: "grant_type", rule: text, message: "grant_type must be a non-empty string"},
	{kinds: code, key: "scope_separator", rule: separator, message: "scope_separator must consist of one to three spaces or the characters , ; + |"},
	{kinds: code, key: "token_request_format", rule: oneOf("form", "json", "query"), message: "token_request_format must be form, json or query"},
	{kinds: code, key: "token_headers", rule: headers, message: "token_headers must be string name/value pairs, without headers that HTTP or the request itself sets"},
	{kinds: code, key: "authorization_param_names", rule: renames([]string{"client_id", "redirect_uri", "response_type", "scope"}, authorizationParams),
		message: "authorization_param_names must map standard parameter names to other names"},
	{kinds: code, key: "token_param_names", rule: renames([]string{"client_id", "client_secret", "code", "grant_type", "redirect_uri"}, tokenParams),
		message: "token_param_names must map standard parameter names to other names"},
	{kinds: code, key: "refresh_endpoint", rule: httpsURL, message: "refresh_endpoint must be an HTTPS URL"},
	{kinds: code, key: "refresh_endpoint", rule: onAllowedHost, message: "refresh_endpoint must be on a host in allowed_token_hosts"},
	{kinds: code, key: "refresh_endpoint", rule: withoutFragment, message: "refresh_endpoint must not contain a fragment"},
	{kinds: code, key: "refresh_endpoint", rule: withoutRepeatedSecret, message: "refresh_endpoint must not repeat a credential"},
	{kinds: code, key: "resource", rule: absoluteURI, message: "resource must be an absolute URI"},
	{kinds: code, key: "resource", rule: withoutFragment, message: "resource must not contain a fragment"},
	{kinds: code, key: "issuer", rule: issuerURL, message: "issuer must be an HTTPS URL without a query or fragment"},

	// The location can change while the key stays sealed, so the rule applies in the query, too.
	{kinds: apiKey, key: "api_key", rule: fieldValue, message: "api_key must not contain control characters or surrounding white space"},
	{kinds: bearer, key: "bearer_token", rule: fieldValue, message: "bearer_token must not contain control characters or surrounding white space"},
}

// rules returns the rules of a kind, in order.
func (k Kind) rules() []fieldRule {
	return slices.DeleteFunc(slices.Clone(rules), func(r fieldRule) bool { return !slices.Contains(r.kinds, k) })
}

// A Field describes one field of a kind's configuration.
type Field struct {
	Name     string
	Secret   bool
	Required bool // in every new provider, regardless of its other fields
}

// Fields returns the fields that a kind's configuration may have, in the order in
// which they are first checked. A test compares them with the spec.
func (k Kind) Fields() []Field {
	var fields []Field
	for _, r := range k.rules() {
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == r.key })
		if i < 0 {
			i = len(fields)
			fields = append(fields, Field{Name: r.key})
		}
		f := &fields[i]
		f.Secret = f.Secret || r.presence == secretRequired
		f.Required = f.Required || r.when == nil && (r.presence == required || r.presence == secretRequired)
	}
	return fields
}
