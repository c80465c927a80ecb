package store_test

import (
	"encoding/json"
	"testing"

	"caracal.run/management/store"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

// A provider keeps a secret that an update does not contain, also if an earlier data key
// sealed it.
func TestUpdateProviderKeepsSecretSealedWithRetiredDataKey(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	zone := newZone(t, s).ID
	config := func(secrets string, keys ...string) store.ProviderConfig {
		return store.ProviderConfig{Kind: "oauth2_client_credentials", PublicConfig: json.RawMessage("{}"), Secrets: seal.Plaintext(secrets), SecretKeys: keys}
	}
	var id string
	err := s.InTx(t.Context(), cause, func(tx *store.Tx) error {
		name := "p"
		p, err := tx.CreateProvider(t.Context(), zone, dataKey(t, s, zone), store.NewProvider{
			Name: &name, ProviderConfig: config(`{"client_secret":"one","token_params.password":"two"}`, "client_secret", "token_params.password"),
		})
		id = p.ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, replace(s), 1)
	location := seal.Location{Zone: zone, Table: "providers", Column: "secret_config", Row: id}
	for _, tt := range []struct {
		config store.ProviderConfig
		want   string
	}{
		{config(`{"client_secret":"new"}`, "client_secret", "token_params.password"), `{"client_secret":"new","token_params.password":"two"}`},
		{config("", "token_params.password"), `{"token_params.password":"two"}`},
		{config("", "token_params.password"), `{"token_params.password":"two"}`},
		{config(""), ""},
	} {
		err := s.InTx(t.Context(), cause, func(tx *store.Tx) error {
			_, err := tx.UpdateProvider(t.Context(), zone, id, store.Precondition{}, dataKey(t, s, zone), store.ProviderPatch{
				Configure: func(store.ProviderConfig) (store.ProviderConfig, error) { return tt.config, nil },
			})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := opened(t, d, keysOf(t, kek1)); got[location] != tt.want {
			t.Errorf("got %s, want %s", got[location], tt.want)
		}
	}
}
