// Package provider holds what a provider's configuration may hold: which
// members each kind has, what their values are, which of them are secret, and
// in which words anything else is refused. All of it is one table, [rules];
// the rest of the package reads that table.
//
// The rules, their order and their words are the contract's (providers.md,
// "Config matrix"), with its sane answers to the quirks PR-1 and PR-2. The
// package knows neither rows nor requests: secrets come out of it in the plain,
// for somebody else to seal, in a type that does not print.
package provider

import (
	"encoding/json"
	"errors"
	"slices"
)

// A Kind is how a provider comes by the credential that an upstream wants.
type Kind string

// The kinds there are.
const (
	None              Kind = "none"
	CaracalMandate    Kind = "caracal_mandate"
	AuthorizationCode Kind = "oauth2_authorization_code"
	ClientCredentials Kind = "oauth2_client_credentials"
	APIKey            Kind = "api_key"
	BearerToken       Kind = "bearer_token"
)

// Kinds are all kinds, in the contract's order.
func Kinds() []Kind {
	return []Kind{None, CaracalMandate, AuthorizationCode, ClientCredentials, APIKey, BearerToken}
}

// An Error is a configuration that the matrix refuses.
type Error struct {
	Key     string // the member that is to blame; "" if several are
	Message string // for a person, in the contract's words; it never quotes a value
}

func (e *Error) Error() string { return e.Message }

// ErrConfigRequired is that a provider's kind was to change without a
// configuration for the new kind.
var ErrConfigRequired = errors.New("a new kind needs a configuration")

// ErrNoEndpoint is that providers of a kind fetch no tokens.
var ErrNoEndpoint = errors.New("the kind has no token endpoint")

// A Config is a configuration that was accepted.
type Config struct {
	Kind    Kind
	Public  json.RawMessage // what everybody may see: compact, normalised, with its defaults written
	Secrets Secrets         // what came along to be sealed
}

// Check says whether config, a JSON object, may be the whole configuration of a
// new provider. What the matrix refuses is an [*Error]; an unknown kind or
// something else than an object is a fault of the caller, whose schema knows
// both.
func Check(kind Kind, config json.RawMessage) (Config, error) {
	d, err := check(kind, config, func(string) bool { return false })
	if err != nil {
		return Config{}, err
	}
	return d.config(), nil
}

// Stored is what a change needs to know of the provider that it changes.
type Stored struct {
	Kind       Kind
	SecretKeys []string // the names of the secrets that are sealed
}

// A Changed is a provider as a change leaves it.
type Changed struct {
	Config              // Public is nil if the configuration stays as it is
	SecretKeys []string // the names of the secrets that are sealed afterwards, sorted
}

// Change says whether a provider may get config in place of its whole
// configuration, and what becomes of its secrets. Both kind and config may be
// nil: unsaid.
//
// The stored kind is as good as unsaid (PR-2). Then secrets that the new
// configuration still uses need not come again; those that it has no use for go,
// even if none comes in their place. Another kind starts from nothing: it needs
// a configuration ([ErrConfigRequired]) and all of its secrets.
func Change(stored Stored, kind *Kind, config json.RawMessage) (Changed, error) {
	if kind != nil && *kind != stored.Kind {
		if config == nil {
			return Changed{}, ErrConfigRequired
		}
		c, err := Check(*kind, config)
		if err != nil {
			return Changed{}, err
		}
		return changed(c, nil), nil
	}
	if config == nil {
		return changed(Config{Kind: stored.Kind}, stored.SecretKeys), nil
	}
	d, err := check(stored.Kind, config, func(string) bool { return true })
	if err != nil {
		return Changed{}, err
	}
	var kept []string
	for _, r := range stored.Kind.rows() {
		if r.presence != secretRequired || !r.applies(d.values) {
			continue
		}
		_, supplied := d.values[r.key]
		sealed := slices.Contains(stored.SecretKeys, r.key)
		if sealed {
			kept = append(kept, r.key)
		}
		// Only oauth kinds: their method may have changed. Others have had their secret since they were created.
		if !supplied && !sealed && slices.Contains(oauth, stored.Kind) {
			return Changed{}, d.refuse(r)
		}
	}
	return changed(d.config(), kept), nil
}

// changed is c with the sealed secrets that are kept, if none was supplied.
func changed(c Config, kept []string) Changed {
	if len(c.Secrets) > 0 {
		return Changed{Config: c, SecretKeys: c.Secrets.Names()}
	}
	return Changed{Config: c, SecretKeys: slices.Sorted(slices.Values(kept))}
}

// An Endpoint is where a provider's tokens come from.
type Endpoint struct {
	URL   string   // https
	Hosts []string // the only hosts to ask; the URL's is one of them
}

// EndpointOf is the token endpoint that a public configuration names, or
// [ErrNoEndpoint]. A configuration that is older than the rules for its endpoint
// and hosts is held against them now ([*Error]).
func EndpointOf(kind Kind, public json.RawMessage) (Endpoint, error) {
	if !slices.Contains(oauth, kind) {
		return Endpoint{}, ErrNoEndpoint
	}
	d, err := decode(kind, public)
	if err != nil {
		return Endpoint{}, err
	}
	for _, r := range kind.rows() {
		if (r.key == "token_endpoint" || r.key == "allowed_token_hosts") && !r.accepts(d.values, nil) {
			return Endpoint{}, d.refuse(r)
		}
	}
	e := Endpoint{URL: d.values["token_endpoint"].(string)}
	for _, host := range d.values["allowed_token_hosts"].([]any) {
		e.Hosts = append(e.Hosts, host.(string))
	}
	return e, nil
}
