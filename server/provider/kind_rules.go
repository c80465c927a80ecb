package provider

import "slices"

// A ruleRow is one line of the contract's sequence of checks: what a kind asks of
// one of its members. A member may have several rows, because what is asked
// first of it and what is asked later are apart in that sequence.
type ruleRow struct {
	of       []Kind
	key      string
	when     condition // nil is always
	presence presence
	rule     rule   // what the value must follow; it also makes it normal
	fallback string // what is written if the member is absent
	message  string // what a refusal says of the configuration
	subject  string // what it calls the kind, if not by its name
}

type presence int

const (
	optional       presence = iota // absent, or by the rule
	required                       // there, and by the rule
	forbidden                      // absent
	secretRequired                 // supplied now, or sealed before
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

// A condition is about members that were accepted before.
type condition func(values map[string]any) bool

// is holds while a member has one of some values.
func is(key string, among ...any) condition {
	return func(values map[string]any) bool { return slices.Contains(among, values[key]) }
}

var (
	inHeader         = is("auth_location", "header")
	inQuery          = is("auth_location", "query")
	privateKeyJWT    = is("client_auth_method", "private_key_jwt")
	notPrivateKeyJWT = is("client_auth_method", "client_secret_basic", "client_secret_post", "none")
	clientSecretAuth = is("client_auth_method", "client_secret_basic", "client_secret_post")
)

// rules is all there is to say of configurations, in the order in which it is
// checked. The kinds without a row, none and caracal_mandate, have no members.
var rules = []ruleRow{
	{of: apiKey, key: "auth_location", rule: oneOf("header", "query"), fallback: "header", message: "auth_location must be header or query"},
	{of: apiKey, key: "header_name", when: inHeader, presence: required, rule: nonBlank, message: "requires header_name"},
	{of: apiKey, key: "header_name", when: inHeader, presence: required, rule: headerName, message: "header_name must be an HTTP header name"},
	{of: apiKey, key: "query_param_name", when: inQuery, presence: required, rule: nonBlank, message: "requires query_param_name"},
	{of: apiKey, key: "query_param_name", when: inQuery, presence: required, rule: paramName, message: "query_param_name must be a query parameter name"},
	{of: apiKey, key: "auth_scheme", when: inQuery, presence: forbidden, message: "auth_scheme applies only to header auth"},
	{of: apiKey, key: "api_key", presence: secretRequired, message: "requires api_key"},

	{of: bearer, key: "bearer_token", presence: secretRequired, message: "requires bearer_token"},

	{of: oauth, key: "token_endpoint", presence: required, rule: httpsURL, message: "token_endpoint must be an HTTPS URL"},
	{of: oauth, key: "client_id", presence: required, rule: text, message: "requires client_id"},
	{of: oauth, key: "allowed_token_hosts", presence: required, rule: listOf(nonBlank), message: "requires allowed_token_hosts"},
	{of: tokens, key: "allowed_token_hosts", rule: listOf(hostName), message: "allowed_token_hosts must be DNS hostnames"},
	{of: oauth, key: "token_endpoint", presence: required, rule: onAllowedHost, message: "token_endpoint must be on a host in allowed_token_hosts"}, // PR-1
	{of: oauth, key: "scopes", rule: listOf(nonBlank), message: "scopes must be a list of strings"},
	{of: oauth, key: "token_params", rule: paramsExcept("client_assertion", "client_assertion_type", "client_id", "client_secret", "code",
		"code_verifier", "grant_type", "redirect_uri", "refresh_token", "scope"), message: "token_params must be non-reserved string key/value pairs"},
	{of: tokens, key: "auth_header", rule: headerName, message: "auth_header must be an HTTP header name"},
	{of: client, key: "audience", rule: text, message: "audience must be a non-empty string"},
	{of: client, key: "resource", rule: text, message: "resource must be a non-empty string"},
	{of: client, key: "key_id", rule: text, message: "key_id must be a non-empty string"},
	{of: oauth, key: "client_auth_method", rule: oneOf("client_secret_basic", "client_secret_post", "private_key_jwt", "none"),
		fallback: "client_secret_basic", message: "client_auth_method is invalid", subject: "oauth2"},
	{of: code, key: "client_auth_method", when: privateKeyJWT, presence: forbidden, message: "client_auth_method is not supported"},
	{of: code, key: "authorization_endpoint", presence: required, rule: httpsURL, message: "authorization_endpoint must be an HTTPS URL"},
	{of: code, key: "redirect_uri", presence: required, rule: absoluteURI, message: "redirect_uri must be an absolute URI"},
	{of: code, key: "authorization_params", rule: paramsExcept("client_id", "code_challenge", "code_challenge_method", "redirect_uri",
		"response_type", "scope", "state"), message: "authorization_params must be non-reserved string key/value pairs"},
	{of: client, key: "client_secret", when: privateKeyJWT, presence: forbidden, message: "client_secret is not used with private_key_jwt"},
	{of: client, key: "private_key", when: privateKeyJWT, presence: secretRequired, message: "requires private_key"},
	{of: client, key: "private_key", when: notPrivateKeyJWT, presence: forbidden, message: "private_key requires private_key_jwt"},
	{of: client, key: "key_id", when: notPrivateKeyJWT, presence: forbidden, message: "key_id requires private_key_jwt"},
	{of: oauth, key: "client_secret", when: clientSecretAuth, presence: secretRequired, message: "requires client_secret"},

	{of: all, key: "auth_scheme", rule: authScheme, message: "auth_scheme must be an auth scheme token"},
	{of: all, key: "forward_caracal_identity", rule: boolean, message: "forward_caracal_identity must be a boolean"},
	{of: all, key: "allow_runtime_injection", rule: boolean, message: "allow_runtime_injection must be a boolean"},

	// PR-1: what the other place for the key would need may stay, if it is well formed. The contract has no such
	// check, so these come last: whatever it refuses too is refused in its words.
	{of: apiKey, key: "header_name", when: inQuery, rule: headerName, message: "header_name must be an HTTP header name"},
	{of: apiKey, key: "query_param_name", when: inHeader, rule: paramName, message: "query_param_name must be a query parameter name"},
}

// rows are the checks of a kind, in order.
func (k Kind) rows() []ruleRow {
	return slices.DeleteFunc(slices.Clone(rules), func(r ruleRow) bool { return !slices.Contains(r.of, k) })
}

// A Field is what the matrix says of one member of a kind's configuration.
type Field struct {
	Name     string
	Secret   bool
	Required bool // of a new provider, whatever its other members hold
}

// Fields are all that a kind's configuration may have, in the order in which
// they are first checked. The spec is held against them.
func (k Kind) Fields() []Field {
	var members []Field
	for _, r := range k.rows() {
		i := slices.IndexFunc(members, func(m Field) bool { return m.Name == r.key })
		if i < 0 {
			i = len(members)
			members = append(members, Field{Name: r.key})
		}
		m := &members[i]
		m.Secret = m.Secret || r.presence == secretRequired
		m.Required = m.Required || r.when == nil && (r.presence == required || r.presence == secretRequired)
	}
	return members
}
