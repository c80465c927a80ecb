package provider_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/server/provider"
)

// The rules as the API's specification has them, copied verbatim. The tests parse
// these tables, so that an error in the package's own table is detected.

// contractMatrix lists the fields of each kind: R is required, S is a secret, * is
// unless it is sealed already.
const contractMatrix = `
| Key | none / caracal_mandate | api_key | bearer_token | oauth2_client_credentials | oauth2_authorization_code |
|---|---|---|---|---|---|
| auth_location (§header§\|§query§) | – | ✓ default §header§ (written) | – | – | – |
| header_name | – | R if header | – | – | – |
| query_param_name | – | R if query | – | – | – |
| api_key | – | S R* | – | – | – |
| bearer_token | – | – | S R* | – | – |
| allowed_token_hosts | – | – | ✓ validated hostnames | R non-empty list | R non-empty list |
| auth_header | – | – | ✓ | ✓ | ✓ |
| auth_scheme | – | ✓ (header location only) | ✓ | ✓ | ✓ |
| token_endpoint | – | – | – | R https | R https |
| client_id | – | – | – | R | R |
| client_auth_method | – | – | – | ✓ 4 values, default §client_secret_basic§ (written) | ✓ not §private_key_jwt§, same default |
| client_secret | – | – | – | S R* unless method none/private_key_jwt | S R* unless method none |
| private_key | – | – | – | S R* iff private_key_jwt | – |
| key_id | – | – | – | ✓ only with private_key_jwt | – |
| scopes | – | – | – | ✓ | ✓ |
| audience, resource | – | – | – | ✓ | – |
| token_params | – | – | – | ✓ | ✓ |
| authorization_endpoint | – | – | – | – | R https |
| redirect_uri | – | – | – | – | R absolute URI |
| authorization_params | – | – | – | – | ✓ |
| forward_caracal_identity, allow_runtime_injection | – | ✓ bool | ✓ bool | ✓ bool | ✓ bool |
`

// addedMatrix lists the fields that are not in the contract. Without them, a
// configuration has the meaning of the contract.
const addedMatrix = `
| resource, issuer, refresh_endpoint, grant_type, scope_separator | – | – | – | – | ✓ |
| token_headers, token_request_format | – | – | – | – | ✓ |
| authorization_param_names, token_param_names | – | – | – | – | ✓ |
| private_key | – | – | – | – | S R* iff private_key_jwt |
| key_id | – | – | – | – | ✓ only with private_key_jwt |
`

// contractSequence lists the checks in order, and the message of each. Check 11, which
// rejected private_key_jwt in the kind oauth2_authorization_code, no longer exists.
const contractSequence = `
| all | 1 | keys outside the matrix (joined §, § in body order) | §has unsupported keys: a, b§ |
| all | 2 | secret key value blank/non-string (body order) | §<key> must be a non-empty string§ |
| api_key | 3 | auth_location not in enum (null included) | §auth_location must be header or query§ |
| | 4h | header: header_name missing/blank | §requires header_name§ |
| | 5h | header: not a header name | §header_name must be an HTTP header name§ |
| | 4q | query: query_param_name missing/blank | §requires query_param_name§ |
| | 5q | query: bad charset | §query_param_name must be a query parameter name§ |
| | 6q | query: auth_scheme present | §auth_scheme applies only to header auth§ |
| | 7 | secrets required and no api_key | §requires api_key§ |
| bearer_token | 3 | secrets required and no bearer_token | §requires bearer_token§ |
| | 4 | host list | §allowed_token_hosts must be DNS hostnames§ |
| | 5 | auth_header | §auth_header must be an HTTP header name§ |
| oauth2_* | 3 | token_endpoint | §token_endpoint must be an HTTPS URL§ |
| | 4 | client_id | §requires client_id§ |
| | 5 | allowed_token_hosts string list | §requires allowed_token_hosts§ |
| | 6 | scopes (if present) string list | §scopes must be a list of strings§ |
| | 7 | token_params | §token_params must be non-reserved string key/value pairs§ |
| | 8 | auth_header | §auth_header must be an HTTP header name§ |
| …_client_credentials | 9 | audience / resource / key_id (in that order) blank or non-string | §<key> must be a non-empty string§ |
| oauth2_* | 10 | client_auth_method unknown | full message §oauth2 provider config client_auth_method is invalid§ |
| …_authorization_code | 12 | authorization_endpoint | §authorization_endpoint must be an HTTPS URL§ |
| | 13 | redirect_uri | §redirect_uri must be an absolute URI§ |
| | 14 | authorization_params | §authorization_params must be non-reserved string key/value pairs§ |
| oauth2_* | 15a | private_key_jwt and client_secret given | §client_secret is not used with private_key_jwt§ |
| | 15b | private_key_jwt, secrets required, none given | §requires private_key§ |
| | 15c | other method and private_key given | §private_key requires private_key_jwt§ |
| | 15d | other method and key_id given | §key_id requires private_key_jwt§ |
| | 15e | method ≠ none, secrets required, no client_secret | §requires client_secret§ |
| all but none/caracal_mandate | 16 | auth_scheme | §auth_scheme must be an auth scheme token§ |
| | 17 | forward_caracal_identity | §forward_caracal_identity must be a boolean§ |
| | 18 | allow_runtime_injection | §allow_runtime_injection must be a boolean§ |
`

// cells returns the cells of a table by row.
func cells(table string) (rows [][]string) {
	for line := range strings.Lines(strings.ReplaceAll(strings.TrimSpace(table), `\|`, "/")) {
		var row []string
		for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			row = append(row, strings.TrimSpace(cell))
		}
		rows = append(rows, row)
	}
	return rows
}

// columns maps a column of contractMatrix to its kinds.
var columns = [][]provider.Kind{
	1: {provider.None, provider.CaracalMandate}, 2: {provider.APIKey}, 3: {provider.BearerToken},
	4: {provider.ClientCredentials}, 5: {provider.AuthorizationCode},
}

// contractFields returns the fields of each kind by name, as contractMatrix has them.
var contractFields = sync.OnceValue(func() map[provider.Kind]map[string]provider.Field {
	unconditional := regexp.MustCompile(`^(S )?R\*?( non-empty list| https| absolute URI)?$`)
	fields := map[provider.Kind]map[string]provider.Field{}
	for _, row := range append(cells(contractMatrix)[2:], cells(addedMatrix)...) {
		names, _, _ := strings.Cut(row[0], " (")
		for column, cell := range row[1:] {
			for _, kind := range columns[column+1] {
				if fields[kind] == nil {
					fields[kind] = map[string]provider.Field{}
				}
				for name := range strings.SplitSeq(names, ", ") {
					if cell != "–" {
						fields[kind][name] = provider.Field{
							Name: name, Secret: strings.HasPrefix(cell, "S"),
							Required: unconditional.MatchString(cell),
						}
					}
				}
			}
		}
	}
	return fields
})

func TestFieldsMatchTheContract(t *testing.T) {
	t.Parallel()
	fields := contractFields()
	for _, kind := range provider.Kinds() {
		got := map[string]provider.Field{}
		for _, f := range kind.Fields() {
			got[f.Name] = f
		}
		if !maps.Equal(got, fields[kind]) {
			t.Errorf("%s has\n%v, want\n%v", kind, got, fields[kind])
		}
	}
}

// A state is a kind with a valid configuration. A kind has several, because some
// rules depend on the values of other fields.
type state struct {
	name   string
	kind   provider.Kind
	config object
	secret string // the name of the required secret; "" if none is
}

var states = []state{
	{"none", provider.None, nil, ""},
	{"mandate", provider.CaracalMandate, nil, ""},
	{"key in header", provider.APIKey, object{{"auth_location", `"header"`}, {"header_name", `"X-Key"`}, {"api_key", `"k3y"`}}, "api_key"},
	{"key in query", provider.APIKey, object{{"auth_location", `"query"`}, {"query_param_name", `"key"`}, {"api_key", `"k3y"`}}, "api_key"},
	{"bearer", provider.BearerToken, object{{"bearer_token", `"t0ken"`}}, "bearer_token"},
	{"client basic", provider.ClientCredentials, with(oauth, "client_auth_method", `"client_secret_basic"`, "client_secret", `"s3cret"`), "client_secret"},
	{"client post", provider.ClientCredentials, with(oauth, "client_auth_method", `"client_secret_post"`, "client_secret", `"s3cret"`), "client_secret"},
	{"client key", provider.ClientCredentials, with(oauth, "client_auth_method", `"private_key_jwt"`, "private_key", pemKey), "private_key"},
	{"client open", provider.ClientCredentials, with(oauth, "client_auth_method", `"none"`), ""},
	{"code basic", provider.AuthorizationCode, with(grant, "client_auth_method", `"client_secret_basic"`, "client_secret", `"s3cret"`), "client_secret"},
	{"code post", provider.AuthorizationCode, with(grant, "client_auth_method", `"client_secret_post"`, "client_secret", `"s3cret"`), "client_secret"},
	{"code key", provider.AuthorizationCode, with(grant, "client_auth_method", `"private_key_jwt"`, "private_key", pemKey), "private_key"},
	{"code open", provider.AuthorizationCode, with(grant, "client_auth_method", `"none"`), ""},
}

// pemKey is the JSON of a private key: the example of RFC 8410, section 10.3.
const pemKey = `"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n"`

var (
	oauth = object{{"token_endpoint", `"https://id.example.com/token"`}, {"client_id", `"billing"`}, {"allowed_token_hosts", `["id.example.com"]`}}
	grant = with(oauth, "authorization_endpoint", `"https://id.example.com/authorize"`, "redirect_uri", `"https://app.example.com/back"`)
)

// tokenEndpoint is a stored configuration with the token endpoint of the states.
var tokenEndpoint = oauth[:1].json()

func stateOf(t *testing.T, name string) state {
	t.Helper()
	i := slices.IndexFunc(states, func(s state) bool { return s.name == name })
	if i < 0 {
		t.Fatalf("there is no state %q", name)
	}
	return states[i]
}

// An object is a JSON object with ordered fields.
type object []struct{ key, value string }

// with sets fields, given as pairs of a key and JSON. "" removes a field.
func with(o object, pairs ...string) object {
	o = slices.Clone(o)
	for pair := range slices.Chunk(pairs, 2) {
		key, value := pair[0], pair[1]
		i := slices.IndexFunc(o, func(f struct{ key, value string }) bool { return f.key == key })
		switch {
		case value == "" && i >= 0:
			o = slices.Delete(o, i, i+1)
		case value != "" && i >= 0:
			o[i].value = value
		case value != "":
			o = append(o, struct{ key, value string }{key, value})
		}
	}
	return o
}

func (o object) json() []byte {
	var fields []string
	for _, f := range o {
		fields = append(fields, `"`+f.key+`":`+f.value)
	}
	return []byte("{" + strings.Join(fields, ",") + "}")
}

// withoutSecrets removes the secrets of a kind.
func (o object) withoutSecrets(kind provider.Kind) object {
	fields := contractFields()[kind]
	return slices.DeleteFunc(slices.Clone(o), func(f struct{ key, value string }) bool { return fields[f.key].Secret })
}
