package provider

import "slices"

// A row is one line of the contract's sequence of checks: what a kind asks of
// one of its members. A member may have several rows, because what is asked
// first of it and what is asked later are apart in that sequence.
type row struct {
	of      []Kind
	key     string
	when    condition // nil is always
	demand  demand
	rule    rule   // what the value must follow; it also makes it normal
	unsaid  string // what is written if the member is absent
	text    string // what a refusal says of the configuration
	subject string // what it calls the kind, if not by its name
}

type demand int

const (
	may    demand = iota // absent, or by the rule
	must                 // there, and by the rule
	mayNot               // absent
	secret               // supplied now, or sealed before
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
	inHeader   = is("auth_location", "header")
	inQuery    = is("auth_location", "query")
	byKey      = is("client_auth_method", "private_key_jwt")
	notByKey   = is("client_auth_method", "client_secret_basic", "client_secret_post", "none")
	byPassword = is("client_auth_method", "client_secret_basic", "client_secret_post")
)

// matrix is all there is to say of configurations, in the order in which it is
// checked. The kinds without a row, none and caracal_mandate, have no members.
var matrix = []row{
	{of: apiKey, key: "auth_location", rule: oneOf("header", "query"), unsaid: "header", text: "auth_location must be header or query"},
	{of: apiKey, key: "header_name", when: inHeader, demand: must, rule: asGiven, text: "requires header_name"},
	{of: apiKey, key: "header_name", when: inHeader, demand: must, rule: headerName, text: "header_name must be an HTTP header name"},
	{of: apiKey, key: "query_param_name", when: inQuery, demand: must, rule: asGiven, text: "requires query_param_name"},
	{of: apiKey, key: "query_param_name", when: inQuery, demand: must, rule: paramName, text: "query_param_name must be a query parameter name"},
	{of: apiKey, key: "auth_scheme", when: inQuery, demand: mayNot, text: "auth_scheme applies only to header auth"},
	{of: apiKey, key: "api_key", demand: secret, text: "requires api_key"},

	{of: bearer, key: "bearer_token", demand: secret, text: "requires bearer_token"},

	{of: oauth, key: "token_endpoint", demand: must, rule: httpsURL, text: "token_endpoint must be an HTTPS URL"},
	{of: oauth, key: "client_id", demand: must, rule: text, text: "requires client_id"},
	{of: oauth, key: "allowed_token_hosts", demand: must, rule: listOf(asGiven), text: "requires allowed_token_hosts"},
	{of: tokens, key: "allowed_token_hosts", rule: listOf(hostName), text: "allowed_token_hosts must be DNS hostnames"},
	{of: oauth, key: "token_endpoint", demand: must, rule: onAllowedHost, text: "token_endpoint must be on a host in allowed_token_hosts"}, // PR-1
	{of: oauth, key: "scopes", rule: listOf(asGiven), text: "scopes must be a list of strings"},
	{of: oauth, key: "token_params", rule: paramsBut("client_assertion", "client_assertion_type", "client_id", "client_secret", "code",
		"code_verifier", "grant_type", "redirect_uri", "refresh_token", "scope"), text: "token_params must be non-reserved string key/value pairs"},
	{of: tokens, key: "auth_header", rule: headerName, text: "auth_header must be an HTTP header name"},
	{of: client, key: "audience", rule: text, text: "audience must be a non-empty string"},
	{of: client, key: "resource", rule: text, text: "resource must be a non-empty string"},
	{of: client, key: "key_id", rule: text, text: "key_id must be a non-empty string"},
	{of: oauth, key: "client_auth_method", rule: oneOf("client_secret_basic", "client_secret_post", "private_key_jwt", "none"),
		unsaid: "client_secret_basic", text: "client_auth_method is invalid", subject: "oauth2"},
	{of: code, key: "client_auth_method", when: byKey, demand: mayNot, text: "client_auth_method is not supported"},
	{of: code, key: "authorization_endpoint", demand: must, rule: httpsURL, text: "authorization_endpoint must be an HTTPS URL"},
	{of: code, key: "redirect_uri", demand: must, rule: absoluteURI, text: "redirect_uri must be an absolute URI"},
	{of: code, key: "authorization_params", rule: paramsBut("client_id", "code_challenge", "code_challenge_method", "redirect_uri",
		"response_type", "scope", "state"), text: "authorization_params must be non-reserved string key/value pairs"},
	{of: client, key: "client_secret", when: byKey, demand: mayNot, text: "client_secret is not used with private_key_jwt"},
	{of: client, key: "private_key", when: byKey, demand: secret, text: "requires private_key"},
	{of: client, key: "private_key", when: notByKey, demand: mayNot, text: "private_key requires private_key_jwt"},
	{of: client, key: "key_id", when: notByKey, demand: mayNot, text: "key_id requires private_key_jwt"},
	{of: oauth, key: "client_secret", when: byPassword, demand: secret, text: "requires client_secret"},

	{of: all, key: "auth_scheme", rule: authScheme, text: "auth_scheme must be an auth scheme token"},
	{of: all, key: "forward_caracal_identity", rule: boolean, text: "forward_caracal_identity must be a boolean"},
	{of: all, key: "allow_runtime_injection", rule: boolean, text: "allow_runtime_injection must be a boolean"},

	// PR-1: what the other place for the key would need may stay, if it is well formed. The contract has no such
	// check, so these come last: whatever it refuses too is refused in its words.
	{of: apiKey, key: "header_name", when: inQuery, rule: headerName, text: "header_name must be an HTTP header name"},
	{of: apiKey, key: "query_param_name", when: inHeader, rule: paramName, text: "query_param_name must be a query parameter name"},
}

// rows are the checks of a kind, in order.
func (k Kind) rows() []row {
	return slices.DeleteFunc(slices.Clone(matrix), func(r row) bool { return !slices.Contains(r.of, k) })
}

// A Member is what the matrix says of one member of a kind's configuration.
type Member struct {
	Name     string
	Secret   bool
	Required bool // of a new provider, whatever its other members hold
}

// Members are all that a kind's configuration may have, in the order in which
// they are first checked. The spec is held against them.
func (k Kind) Members() []Member {
	var members []Member
	for _, r := range k.rows() {
		i := slices.IndexFunc(members, func(m Member) bool { return m.Name == r.key })
		if i < 0 {
			i = len(members)
			members = append(members, Member{Name: r.key})
		}
		m := &members[i]
		m.Secret = m.Secret || r.demand == secret
		m.Required = m.Required || r.when == nil && (r.demand == must || r.demand == secret)
	}
	return members
}
