package server_test

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"caracal.run/management/gen"
	"caracal.run/management/server/provider"
)

// configSchemas say which schema of the spec describes which kinds' configuration.
var configSchemas = map[string][]provider.Kind{
	"NoProviderConfig":                      {provider.None, provider.CaracalMandate},
	"APIKeyProviderConfig":                  {provider.APIKey},
	"BearerTokenProviderConfig":             {provider.BearerToken},
	"OAuth2ClientCredentialsProviderConfig": {provider.ClientCredentials},
	"OAuth2AuthorizationCodeProviderConfig": {provider.AuthorizationCode},
}

func loadSpec(t *testing.T) *openapi3.T {
	t.Helper()
	spec, err := openapi3.NewLoader().LoadFromData(gen.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// schemaOf is a schema of the spec, by its name.
func schemaOf(t *testing.T, spec *openapi3.T, name string) *openapi3.Schema {
	t.Helper()
	ref := spec.Components.Schemas[name]
	if ref == nil {
		t.Fatalf("the spec has no schema %s", name)
	}
	return ref.Value
}

func TestProviderSpecListsEveryKind(t *testing.T) {
	t.Parallel()
	spec := loadSpec(t)
	var kinds []provider.Kind
	for _, kind := range schemaOf(t, spec, "ProviderKind").Enum {
		kinds = append(kinds, provider.Kind(kind.(string)))
	}
	if !slices.Equal(kinds, provider.Kinds()) {
		t.Errorf("the spec's kinds are %q, the table's %q", kinds, provider.Kinds())
	}
	described := slices.Concat(slices.Collect(maps.Values(configSchemas))...)
	if want := slices.Sorted(slices.Values(provider.Kinds())); !slices.Equal(slices.Sorted(slices.Values(described)), want) {
		t.Errorf("there are schemas for %q, want %q", described, want)
	}
	of := map[string][]provider.Kind{}
	for kind, name := range schemaOf(t, spec, "ProviderConfigInput").Extensions["x-union"].(map[string]any) {
		of[name.(string)] = append(of[name.(string)], provider.Kind(kind))
	}
	for name := range of {
		slices.Sort(of[name])
	}
	create := schemaOf(t, spec, "NewProvider")
	created := map[string][]provider.Kind{}
	for kind, to := range create.Discriminator.Mapping {
		one := schemaOf(t, spec, path.Base(to.Ref))
		if key := one.Properties["kind"].Value.Enum; len(key) != 1 || key[0] != kind || !slices.Contains(one.Required, "kind") {
			t.Errorf("%s requires the kind %q, want %s", to.Ref, key, kind)
		}
		name := path.Base(one.Properties["config_json"].Ref)
		created[name] = append(created[name], provider.Kind(kind))
	}
	for name := range created {
		slices.Sort(created[name])
	}
	if len(create.OneOf) != len(provider.Kinds()) {
		t.Errorf("NewProvider has %d alternatives, want one for each of %q", len(create.OneOf), provider.Kinds())
	}
	for name, kinds := range configSchemas {
		if !slices.Equal(slices.Sorted(slices.Values(kinds)), of[name]) || !slices.Equal(of[name], created[name]) {
			t.Errorf("%s is of the kinds %q in an update and %q in a new provider, want %q", name, of[name], created[name], kinds)
		}
	}
}

// TestProviderSpecDescribesEveryConfigField in both directions:
// what the table has the spec has, and nothing else.
func TestProviderSpecDescribesEveryConfigField(t *testing.T) {
	t.Parallel()
	spec := loadSpec(t)
	for name, kinds := range configSchemas {
		schema := schemaOf(t, spec, name)
		if closed := schema.AdditionalProperties.Has; closed == nil || *closed {
			t.Errorf("%s admits what it does not name", name)
		}
		fromNullable := map[string]provider.Field{}
		for member, ref := range schema.Properties {
			fromNullable[member] = provider.Field{Name: member, Secret: ref.Value.WriteOnly, Required: slices.Contains(schema.Required, member)}
			if ref.Value.Description == "" {
				t.Errorf("%s does not describe %s", name, member)
			}
		}
		for _, member := range schema.Required {
			if schema.Properties[member] == nil {
				t.Errorf("%s requires %s, which it does not name", name, member)
			}
		}
		for _, kind := range kinds {
			table := map[string]provider.Field{}
			for _, m := range kind.Fields() {
				m.Required = m.Required && !m.Secret // a change need not send it again
				table[m.Name] = m
			}
			if !maps.Equal(fromNullable, table) {
				t.Errorf("%s has\n%+v, the table of %s\n%+v", name, fromNullable, kind, table)
			}
		}
	}
}

// TestProviderSpecReturnsNoSecret: what is answered has no member for one,
// neither of a name of its own nor of any name.
func TestProviderSpecReturnsNoSecret(t *testing.T) {
	t.Parallel()
	schema := schemaOf(t, loadSpec(t), "Provider")
	for _, kind := range provider.Kinds() {
		for _, m := range kind.Fields() {
			if m.Secret && schema.Properties[m.Name] != nil {
				t.Errorf("a provider shows its %s", m.Name)
			}
		}
	}
	if closed := schema.AdditionalProperties.Has; closed == nil || *closed {
		t.Error("a provider may show anything")
	}
}

func TestProviderSpecExamplesAreAccepted(t *testing.T) {
	t.Parallel()
	spec := loadSpec(t)
	const collection = "/v1/zones/{zoneId}/providers"
	examples := func(body *openapi3.RequestBodyRef) (all map[string]map[string]any) {
		all = map[string]map[string]any{}
		for name, example := range body.Value.Content.Get(jsonType).Examples {
			all[name] = example.Value.Value.(map[string]any)
		}
		if len(all) == 0 {
			t.Error("there are no examples")
		}
		return all
	}
	encode := func(value any) json.RawMessage {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for name, example := range examples(spec.Paths.Value(collection).Post.RequestBody) {
		config := example["config_json"]
		if config == nil {
			config = map[string]any{}
		}
		if _, err := provider.Check(provider.Kind(example["kind"].(string)), encode(config)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if identifier, fromNullable := example["identifier"].(string); fromNullable && !provider.ValidIdentifier(identifier) {
			t.Errorf("%s is identified by %q", name, identifier)
		}
	}
	stored := provider.Stored{Kind: provider.APIKey, Public: json.RawMessage("{}"), SecretKeys: []string{"api_key"}} // what the example of an answer shows
	for name, example := range examples(spec.Paths.Value(collection + "/{id}").Patch.RequestBody) {
		var config json.RawMessage
		if example["config_json"] != nil {
			config = encode(example["config_json"])
		}
		if _, err := provider.Change(stored, nil, config); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	resp := spec.Components.Examples["Provider"].Value.Value.(map[string]any)
	if c, err := provider.Change(stored, nil, encode(resp["config_json"])); err != nil || string(c.Public) != string(encode(resp["config_json"])) || resp["kind"] != string(stored.Kind) {
		t.Errorf("%v: the answer shows %v", err, resp)
	}
	// A member's own examples make up a configuration, but for those that exclude each other.
	for name, kinds := range configSchemas {
		config := map[string]any{}
		for member, ref := range schemaOf(t, spec, name).Properties {
			config[member] = ref.Value.Example
			if ref.Value.Example == nil {
				t.Errorf("%s has no example of %s", name, member)
			}
		}
		switch kinds[0] {
		case provider.ClientCredentials:
			delete(config, "client_secret") // its example authenticates with a key
		case provider.AuthorizationCode:
			delete(config, "private_key") // and this one with a secret
			delete(config, "key_id")
		}
		for _, kind := range kinds {
			if _, err := provider.Check(kind, encode(config)); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
	}
}
