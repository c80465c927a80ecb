package provider

import (
	"encoding/json"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"caracal.run/management/server/secret"
)

// A placeholder stands for a secret in an exported configuration. Its name is that of an
// environment variable from which the secret can be taken.
var placeholder = regexp.MustCompile(`^\$\{([A-Z0-9_]+)\}$`)

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
// their names. misplaced are the names of other values that contain one. A configuration that
// is not valid is returned unchanged.
func WithoutPlaceholders(config json.RawMessage) (rest json.RawMessage, names, misplaced []string) {
	var values map[string]any
	if json.Unmarshal(config, &values) != nil {
		return config, nil, nil
	}
	eachText(values, func(name, text string, remove func()) {
		switch {
		case remove != nil && placeholder.MatchString(strings.TrimSpace(text)):
			names = append(names, name)
			remove()
		case containsPlaceholder(text):
			misplaced = append(misplaced, name)
		}
	})
	if len(names) == 0 {
		return config, nil, misplaced
	}
	slices.Sort(names)
	return encode(values), names, misplaced
}

// ReplacePlaceholders replaces the placeholders of secrets in a configuration by the values of
// variables, and returns the names of these. value returns "" for a variable that is not set.
func ReplacePlaceholders(config map[string]any, value func(variable string) string) (used []string) {
	replace := func(in map[string]any, field string) {
		text, _ := in[field].(string)
		if match := placeholder.FindStringSubmatch(strings.TrimSpace(text)); match != nil && value(match[1]) != "" {
			in[field] = value(match[1])
			used = append(used, match[1])
		}
	}
	for field, v := range config {
		params, isObject := v.(map[string]any)
		switch {
		case isSecretField(field):
			replace(config, field)
		case isObject && slices.Contains(paramFields, field):
			for param := range params {
				if secret.IsName(param) {
					replace(params, param)
				}
			}
		}
	}
	return used
}

// isSecretField reports whether a field is a secret of any kind.
func isSecretField(name string) bool {
	for _, kind := range Kinds() {
		for _, field := range kind.Fields() {
			if field.Secret && field.Name == name {
				return true
			}
		}
	}
	return false
}

// eachText calls f for every text in a configuration, with its name. remove removes a text that
// can be a secret: a field, or a parameter in one.
func eachText(config map[string]any, f func(name, text string, remove func())) {
	var walk func(name string, value any)
	walk = func(name string, value any) {
		switch value := value.(type) {
		case string:
			f(name, value, nil)
		case []any:
			for _, element := range value {
				walk(name, element)
			}
		case map[string]any:
			for _, element := range value {
				walk(name, element)
			}
		}
	}
	for _, field := range slices.Sorted(maps.Keys(config)) {
		switch value := config[field].(type) {
		case string:
			f(field, value, func() { delete(config, field) })
		case map[string]any:
			for _, param := range slices.Sorted(maps.Keys(value)) {
				if text, isText := value[param].(string); isText {
					f(field+"."+param, text, func() { delete(value, param) })
				} else {
					walk(field+"."+param, value[param])
				}
			}
		default:
			walk(field, value)
		}
	}
}

// containsPlaceholder reports whether a text, such as a URL, contains what looks like a
// placeholder.
func containsPlaceholder(text string) bool {
	decoded, err := url.QueryUnescape(text)
	return strings.Contains(text, "${") || err == nil && strings.Contains(decoded, "${")
}
