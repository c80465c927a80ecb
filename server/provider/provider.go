// Package provider validates and normalizes the configurations of providers: which
// fields each kind has, which values are valid, which of them are secret, and the
// error message of each violation. One table, rules, defines all of this. The order
// of the rules and the messages are part of the API.
//
// It also runs the OAuth flow of a configuration: it builds the URL at which a user
// consents, and exchanges the authorization code for tokens.
//
// The package depends on neither the database nor the API, and sends requests through
// package egress only. It returns secrets in plaintext, in a type that does not print
// them; the caller seals them.
package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
)

// A Kind is the kind of a provider: how it obtains the credential for an upstream.
type Kind string

// The kinds.
const (
	None              Kind = "none"
	CaracalMandate    Kind = "caracal_mandate"
	AuthorizationCode Kind = "oauth2_authorization_code"
	ClientCredentials Kind = "oauth2_client_credentials"
	APIKey            Kind = "api_key"
	BearerToken       Kind = "bearer_token"
)

// Kinds returns all kinds, in the order of the spec.
func Kinds() []Kind {
	return []Kind{None, CaracalMandate, AuthorizationCode, ClientCredentials, APIKey, BearerToken}
}

// An Error reports that a configuration violates a rule.
type Error struct {
	Key     string // the invalid field; "" if the error is about several
	Message string // part of the API; never quotes a value
}

func (e *Error) Error() string { return e.Message }

// ErrConfigRequired reports a change of the kind without a new configuration.
var ErrConfigRequired = errors.New("a change of the kind requires a configuration")

// ErrNoEndpoint reports that a kind has no token endpoint.
var ErrNoEndpoint = errors.New("the kind has no token endpoint")

// A Config is a valid configuration.
type Config struct {
	Kind    Kind
	Public  json.RawMessage // without secrets: compact, normalized, with defaults
	Secrets Secrets         // those that were supplied; the caller seals them
}

// Check validates config, a JSON object, as the whole configuration of a new
// provider. It returns an [*Error] if config violates a rule. It returns any other
// error for an unknown kind or JSON that is not an object, both of which the caller
// must have rejected.
func Check(kind Kind, config json.RawMessage) (Config, error) {
	v, err := check(kind, config, func(string) bool { return false })
	if err != nil {
		return Config{}, err
	}
	return v.config(), nil
}

// Stored describes the provider before a change.
type Stored struct {
	Kind       Kind
	Public     json.RawMessage // without secrets
	SecretKeys []string        // the names of the sealed secrets, sorted
}

// Changed describes the provider after a change.
type Changed struct {
	Config              // Public is nil if the configuration does not change; secrets are always a change
	SecretKeys []string // the names of the secrets to seal, sorted: the supplied ones, and those to keep
	// EndsGrants reports whether the tokens that users granted must not be used with the
	// new configuration: the kind changes, or they would be sent to another host.
	EndsGrants bool
}

// Change validates config as the new configuration of a stored provider. The new
// configuration replaces the stored one as a whole. A kind or config of nil does not
// change. Change returns an [*Error] if config violates a rule.
//
// If the kind does not change, sealed secrets that the new configuration uses need
// not be supplied again, and those that it does not use are removed. So are those that
// it would send to another host than before. Supplied secrets replace those of the
// same name. If the kind changes, config must contain all its secrets; without config,
// Change returns [ErrConfigRequired].
func Change(stored Stored, kind *Kind, config json.RawMessage) (Changed, error) {
	if kind != nil && *kind != stored.Kind {
		if config == nil {
			return Changed{}, ErrConfigRequired
		}
		c, err := Check(*kind, config)
		if err != nil {
			return Changed{}, err
		}
		other := changed(c, nil)
		other.EndsGrants = true
		return other, nil
	}
	same := changed(Config{Kind: stored.Kind}, stored.SecretKeys)
	if config == nil || equal(config, stored.Public) { // which may violate a rule that is newer than it
		return same, nil
	}
	v, err := check(stored.Kind, config, func(string) bool { return true })
	if err != nil {
		return Changed{}, err
	}
	before, err := decode(stored.Kind, stored.Public)
	if err != nil {
		return Changed{}, err
	}
	kept := slices.DeleteFunc(slices.Clone(stored.SecretKeys), func(name string) bool { return !v.keeps(name, before.values) })
	for _, r := range stored.Kind.rules() {
		_, supplied := v.values[r.key]
		// Only in the oauth kinds can a change, of client_auth_method or of a host, require a secret that was not required before.
		if r.presence == secretRequired && r.applies(v.values) && !supplied && !slices.Contains(kept, r.key) && slices.Contains(oauth, stored.Kind) {
			return Changed{}, v.newError(r)
		}
	}
	c := changed(v.config(), kept)
	c.EndsGrants = v.addsHost(tokenRecipients, before.values)
	if equal(c.Public, stored.Public) && len(c.Secrets) == 0 && slices.Equal(c.SecretKeys, same.SecretKeys) {
		return same, nil
	}
	return c, nil
}

// equal reports whether two JSON texts have the same value.
func equal(a, b json.RawMessage) bool {
	var values [2]any
	for i, text := range []json.RawMessage{a, b} {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&values[i]); err != nil {
			return false
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

// changed returns the provider with the configuration c, with the supplied secrets and
// the sealed ones in kept.
func changed(c Config, kept []string) Changed {
	names := slices.Sorted(slices.Values(append(c.Secrets.Names(), kept...)))
	return Changed{Config: c, SecretKeys: slices.Compact(names)}
}

// An Endpoint is the token endpoint of a provider.
type Endpoint struct {
	URL   string   // https
	Hosts []string // the allowed hosts, which include that of the URL
}

// EndpointOf returns the token endpoint in a public configuration. It returns
// [ErrNoEndpoint] if the kind has none, and an [*Error] if the configuration
// violates a rule, which may be newer than the configuration.
func EndpointOf(kind Kind, public json.RawMessage) (Endpoint, error) {
	if !slices.Contains(oauth, kind) {
		return Endpoint{}, ErrNoEndpoint
	}
	v, err := decode(kind, public)
	if err != nil {
		return Endpoint{}, err
	}
	for _, r := range kind.rules() {
		if (r.key == "token_endpoint" || r.key == "allowed_token_hosts") && !r.accepts(v.values, nil) {
			return Endpoint{}, v.newError(r)
		}
	}
	e := Endpoint{URL: v.values["token_endpoint"].(string)}
	for _, host := range v.values["allowed_token_hosts"].([]any) {
		e.Hosts = append(e.Hosts, host.(string))
	}
	return e, nil
}
