package provider

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// A placeholder stands for a secret in an exported configuration. Its name is that of an
// environment variable from which the secret can be taken.
var placeholder = regexp.MustCompile(`^\$\{[A-Z0-9_]+\}$`)

// WithPlaceholders returns a public configuration with a placeholder for each of its
// secrets, such as ${LEDGER_CLIENT_SECRET} for client_secret of provider://ledger. A secret
// in the query of a URL is omitted.
func WithPlaceholders(identifier string, public json.RawMessage, secrets []string) (config map[string]any, omitted []string, err error) {
	if err := json.Unmarshal(public, &config); err != nil {
		return nil, nil, err
	}
	for _, name := range secrets {
		field, param, inField := strings.Cut(name, ".")
		text := "${" + variableName(strings.TrimPrefix(identifier, "provider://")+"_"+name) + "}"
		params, isObject := config[field].(map[string]any)
		switch {
		case !inField:
			config[name] = text
		case isObject:
			params[param] = text
		default:
			omitted = append(omitted, name)
		}
	}
	return config, omitted, nil
}

// variableName returns a text as the name of an environment variable.
func variableName(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, text)
}

// WithoutPlaceholders returns a configuration without the secrets that are placeholders, and
// their names. A configuration that is not valid is returned unchanged.
func WithoutPlaceholders(config json.RawMessage) (json.RawMessage, []string) {
	var values map[string]any
	if json.Unmarshal(config, &values) != nil {
		return config, nil
	}
	var names []string
	for field, value := range values {
		switch value := value.(type) {
		case string:
			if placeholder.MatchString(value) {
				names = append(names, field)
				delete(values, field)
			}
		case map[string]any:
			for param, text := range value {
				if text, isText := text.(string); isText && placeholder.MatchString(text) {
					names = append(names, field+"."+param)
					delete(value, param)
				}
			}
		}
	}
	if len(names) == 0 {
		return config, nil
	}
	slices.Sort(names)
	return encode(values), names
}
