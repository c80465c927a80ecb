package state

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/provider"
	"caracal.run/management/store"
)

// provider plans a provider.
func (p *planner) provider(a *Action, declared *ProviderSpec) {
	copied := *declared // a document can be planned again
	spec := &copied
	if spec.Name != nil && *spec.Name == "" {
		spec.Name = nil // a blank name counts as omitted
	}
	present := p.zone.providers[spec.Identifier]
	if present == nil {
		if _, valid := p.resolvePlaceholders(spec, nil); valid {
			p.newProvider(a, spec)
		}
		return
	}
	a.ID = present.ID
	kept, valid := p.resolvePlaceholders(spec, present.SecretConfigKeys)
	if !valid {
		return
	}
	step := updateProvider{id: a.ID, spec: spec}
	if differs(a, "name", present.Name, spec.Name) {
		step.name = spec.Name
	}
	changed, err := spec.converge(storedProvider(present.Kind, present.ConfigJSON, present.SecretConfigKeys))
	if err != nil {
		p.checkConfig(err)
		return
	}
	for _, name := range kept { // unless the kind changes, or another host would get it
		if !slices.Contains(changed.SecretKeys, name) {
			p.mustBeSecret(name)
		}
	}
	p.checkRotated(spec.Rotate, changed.Secrets.Names())
	if changed.Public != nil {
		step.configures, step.secrets = true, len(changed.Secrets) > 0
		if kind := string(changed.Kind); kind != present.Kind {
			a.changed("kind", present.Kind, kind)
		}
		if !sameJSON(present.ConfigJSON, changed.Public) {
			a.changed("config", present.ConfigJSON, changed.Public)
		}
		for _, name := range secretsThatChange(present, changed) {
			a.Changes = append(a.Changes, Change{Field: "config." + name, Sensitive: true})
		}
		if changed.EndsGrants {
			a.Warnings = append(a.Warnings, "the grants of the provider are revoked")
		}
	}
	if len(a.Changes) == 0 {
		return
	}
	a.Verb, a.step = Update, step
	p.check(store.CheckReservedName(p.Actor, store.ProviderIdentifier, spec.Identifier), "identifier")
}

// resolvePlaceholders removes the placeholders of stored secrets from a configuration, and
// returns the names of these secrets. It adds an issue for each placeholder of another
// secret, and reports whether there is none.
func (p *planner) resolvePlaceholders(spec *ProviderSpec, stored []string) (kept []string, valid bool) {
	valid = true
	config, names, misplaced := provider.WithoutPlaceholders(spec.Config)
	for _, name := range names {
		if !slices.Contains(stored, name) || slices.Contains(spec.Rotate, name) {
			p.mustBeSecret(name)
			valid = false
		}
	}
	for _, name := range misplaced {
		p.issue("must not contain a placeholder, which stands for a secret as a whole", append([]string{"config"}, strings.SplitN(name, ".", 2)...)...)
		valid = false
	}
	spec.Config = config
	return names, valid
}

// mustBeSecret adds an issue for the placeholder of a secret that cannot be kept.
func (p *planner) mustBeSecret(name string) {
	p.issue("must be the secret: this is a placeholder", append([]string{"config"}, strings.SplitN(name, ".", 2)...)...)
}

// checkRotated adds an issue for each name in rotate that is not one of the secrets that the
// configuration supplies.
func (p *planner) checkRotated(rotate, supplied []string) {
	for i, name := range rotate {
		if !slices.Contains(supplied, name) {
			p.issue("must be the name of a secret in config", "rotate", strconv.Itoa(i))
		}
	}
}

// newProvider plans a provider that does not exist yet.
func (p *planner) newProvider(a *Action, spec *ProviderSpec) {
	a.Verb = Create
	a.changed("identifier", nil, spec.Identifier)
	given(a, "name", spec.Name)
	if !provider.ValidIdentifier(spec.Identifier) {
		p.issue("must start with provider:// and use lowercase letters, numbers, or hyphens", "identifier")
	}
	p.check(store.CheckReservedName(p.Actor, store.ProviderIdentifier, spec.Identifier), "identifier")
	if spec.Kind == nil {
		p.issue("is required in a new provider", "kind")
		return
	}
	a.changed("kind", nil, *spec.Kind)
	config := spec.Config
	if config == nil {
		config = json.RawMessage("{}")
	}
	checked, err := provider.Check(provider.Kind(*spec.Kind), config)
	if err != nil {
		p.checkConfig(err)
		return
	}
	p.checkRotated(spec.Rotate, checked.Secrets.Names())
	a.changed("config", nil, checked.Public)
	for _, name := range checked.Secrets.Names() {
		a.Changes = append(a.Changes, Change{Field: "config." + name, Sensitive: true})
	}
	a.step = createProvider{spec: spec, config: checked}
}

// checkConfig adds the issue of a configuration.
func (p *planner) checkConfig(err error) {
	var violation *provider.Error
	switch {
	case errors.Is(err, provider.ErrConfigRequired):
		p.issue("is required if the kind changes", "config")
	case errors.As(err, &violation) && violation.Key != "":
		p.issue(violation.Message, "config", violation.Key)
	case errors.As(err, &violation):
		p.issue(violation.Message, "config")
	default:
		p.check(err, "config")
	}
}

func storedProvider(kind string, public json.RawMessage, secrets []string) provider.Stored {
	return provider.Stored{Kind: provider.Kind(kind), Public: public, SecretKeys: secrets}
}

// converge returns what a stored provider becomes.
func (s *ProviderSpec) converge(stored provider.Stored) (provider.Changed, error) {
	return provider.Converge(stored, (*provider.Kind)(s.Kind), s.Config, s.Rotate)
}

// secretsThatChange returns the names of the secrets that are written or removed.
func secretsThatChange(present *db.ListStateProvidersRow, changed provider.Changed) []string {
	names := changed.Secrets.Names()
	for _, name := range present.SecretConfigKeys {
		if !slices.Contains(changed.SecretKeys, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	one, _ := json.Marshal(x)
	other, _ := json.Marshal(y)
	return string(one) == string(other)
}

// toConfig returns a configuration as the store takes it. kept are the names of the
// secrets that the provider has then.
func toConfig(c provider.Config, kept []string) store.ProviderConfig {
	config := store.ProviderConfig{Kind: string(c.Kind), PublicConfig: c.Public, SecretKeys: kept}
	if len(c.Secrets) > 0 {
		config.Secrets = []byte(c.Secrets.Plaintext())
	}
	return config
}

type createProvider struct {
	spec   *ProviderSpec
	config provider.Config
}

func (s createProvider) effect() any { return s.spec.Rotate }

func (s createProvider) seals() bool { return len(s.config.Secrets) > 0 }

func (s createProvider) run(ctx context.Context, x *execution) (Result, error) {
	created, err := x.tx.CreateProvider(ctx, x.zone, x.key, store.NewProvider{
		Name: s.spec.Name, Identifier: &s.spec.Identifier, ProviderConfig: toConfig(s.config, s.config.Secrets.Names()),
	})
	return Result{ID: created.ID}, err
}

type updateProvider struct {
	id         string
	spec       *ProviderSpec
	name       *string
	configures bool // the configuration changes
	secrets    bool // secrets are written
}

func (s updateProvider) effect() any { return s.spec.Rotate }

func (s updateProvider) seals() bool { return s.secrets }

func (s updateProvider) run(ctx context.Context, x *execution) (Result, error) {
	patch := store.ProviderPatch{Name: s.name}
	if s.configures {
		patch.Configure = func(stored store.ProviderConfig) (store.ProviderConfig, error) {
			changed, err := s.spec.converge(storedProvider(stored.Kind, stored.PublicConfig, stored.SecretKeys))
			if err != nil {
				return stored, code.InvalidProviderConfig.Because(err)
			}
			config := toConfig(changed.Config, changed.SecretKeys)
			config.EndsGrants = changed.EndsGrants
			return config, nil
		}
	}
	_, err := x.tx.UpdateProvider(ctx, x.zone, s.id, store.Precondition{}, x.key, patch)
	return Result{ID: s.id}, err
}
