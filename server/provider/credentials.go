package provider

import (
	"encoding/json"
	"slices"
	"strings"

	"caracal.run/management/server/secret"
	"caracal.run/management/server/weburl"
)

// Some fields are public but can contain credentials: parameters whose name says that
// their value is a secret ([secret.IsName]). These are separated from the field, and
// sealed under the name of the field and of the parameter, such as
// token_params.password. Code that uses the configuration adds them again.
var (
	paramFields    = []string{"token_params", "authorization_params"}
	endpointFields = []string{"token_endpoint", "authorization_endpoint"} // in the query of the URL
)

// separate returns the public part of the value of a field, and its credentials by name.
func separate(field string, value any) (public any, credentials map[string]string) {
	credentials = map[string]string{}
	switch v := value.(type) {
	case map[string]any:
		if !slices.Contains(paramFields, field) {
			break
		}
		rest := make(map[string]any, len(v))
		for name, param := range v {
			if text, ok := param.(string); ok && secret.IsName(name) {
				credentials[field+"."+name] = text
				continue
			}
			rest[name] = param
		}
		return rest, credentials
	case string:
		if !slices.Contains(endpointFields, field) {
			break
		}
		rest, taken := weburl.SplitQuery(v, secret.IsName)
		for _, param := range taken {
			credentials[field+"."+param.Name] = param.Value
		}
		return rest, credentials
	}
	return value, credentials
}

// withoutRepeatedSecret accepts a URL in which no credential occurs twice: only one
// value can be sealed under a name.
func withoutRepeatedSecret(value any, _ map[string]any) (any, bool) {
	text, ok := value.(string)
	_, taken := weburl.SplitQuery(text, secret.IsName)
	seen := map[string]bool{}
	for _, param := range taken {
		ok = ok && !seen[param.Name]
		seen[param.Name] = true
	}
	return value, ok
}

// usesCredential reports whether a configuration uses a stored credential, such as
// token_params.password, that it does not contain: the params if they are still there,
// and an endpoint if it is still the same. A credential of one URL is never sent to
// another.
func (v *validation) usesCredential(name string, stored json.RawMessage) bool {
	field, _, _ := strings.Cut(name, ".")
	value, present := v.values[field]
	if !present || slices.Contains(paramFields, field) {
		return present
	}
	var before map[string]any
	if err := json.Unmarshal(stored, &before); err != nil {
		return false
	}
	public, _ := separate(field, value)
	return public == before[field]
}

// HasSecrets reports whether a configuration of any kind can contain a secret. The
// configuration need not be valid.
func HasSecrets(config json.RawMessage) bool {
	var sent map[string]any
	if err := json.Unmarshal(config, &sent); err != nil {
		return false // not an object
	}
	for _, kind := range Kinds() {
		for _, field := range kind.Fields() {
			value, present := sent[field.Name]
			if _, credentials := separate(field.Name, value); present && (field.Secret || len(credentials) > 0) {
				return true
			}
		}
	}
	return false
}
