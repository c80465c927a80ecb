package provider

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"caracal.run/management/server/secret"
	"caracal.run/management/server/weburl"
)

// Some fields are public but can contain credentials: parameters and headers whose name says that
// their value is a secret ([secret.IsName]). These are separated from the field, and
// sealed under the name of the field and of the parameter, such as
// token_params.password. Code that uses the configuration adds them again.
var (
	paramFields    = []string{"token_params", "authorization_params", "token_headers"}
	endpointFields = []string{"token_endpoint", "refresh_endpoint", "authorization_endpoint"} // in the query of the URL
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

// tokenRecipients are the endpoints that the refresh tokens of users are sent to.
var tokenRecipients = []string{"token_endpoint", "refresh_endpoint"}

// recipients are the endpoints that secrets are sent to. A private key is not sent, and
// the other secrets are sent to upstream services.
var recipients = map[string][]string{
	"client_secret": tokenRecipients, "token_params": tokenRecipients, "token_headers": tokenRecipients,
	"authorization_params": {"authorization_endpoint"},
}

// keeps reports whether a new configuration uses a sealed secret, such as client_secret
// or token_params.password, and does not replace it. What was sealed for one host, or in
// one URL, is never sent to another.
func (v *validation) keeps(name string, stored map[string]any) bool {
	field, param, inField := strings.Cut(name, ".")
	if v.addsHost(recipients[field], stored) {
		return false
	}
	if !inField {
		return slices.ContainsFunc(v.kind.rules(), func(r fieldRule) bool {
			return r.key == name && r.presence == secretRequired && r.applies(v.values)
		})
	}
	switch value := v.values[field].(type) {
	case map[string]any:
		for supplied := range value {
			if secret.SameName(supplied, param) {
				return false
			}
		}
		return true
	case string:
		public, supplied := separate(field, value)
		return public == stored[field] && len(supplied) == 0
	}
	return false
}

// addsHost reports whether one of the endpoints has a host that none had before.
func (v *validation) addsHost(endpoints []string, stored map[string]any) bool {
	var before []string
	for _, endpoint := range endpoints {
		before = append(before, hostOf(stored[endpoint]))
	}
	return slices.ContainsFunc(endpoints, func(endpoint string) bool {
		host := hostOf(v.values[endpoint])
		return host != "" && !slices.Contains(before, host)
	})
}

// hostOf returns the host of a URL, without its port, as in allowed_token_hosts.
func hostOf(value any) string {
	text, _ := value.(string)
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
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
