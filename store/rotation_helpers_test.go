package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/store"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

// Key-encryption keys, the oldest first.
const (
	kek1 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	kek2 = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
	kek3 = "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
)

// keysOf returns a keyring whose first key wraps.
func keysOf(t *testing.T, keks ...string) *seal.Keys {
	t.Helper()
	keys, err := seal.Load(func() (string, error) { return strings.Join(keks, "\n"), nil })
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// openStore opens a store with key-encryption keys.
func openStore(t *testing.T, d *storetest.DB, keks ...string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{
		URL: d.URL(), Name: t.Name(), PoolMax: 8, ConnectTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		StatementTimeout: 15 * time.Second, IdleInTxTimeout: 30 * time.Second, Keys: keysOf(t, keks...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// dataKey returns a zone's data key.
func dataKey(t *testing.T, s *store.Store, zone string) seal.DataKey {
	t.Helper()
	key, err := s.DataKey(t.Context(), cause, zone)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// addProvider creates a provider whose secret is its identifier and returns its id.
func addProvider(t *testing.T, s *store.Store, zone string, key seal.DataKey, name string) string {
	t.Helper()
	identifier := "provider://" + name
	var id string
	err := s.InTx(t.Context(), cause, func(tx *store.Tx) error {
		p, err := tx.CreateProvider(t.Context(), zone, key, store.NewProvider{Identifier: &identifier, ProviderConfig: store.ProviderConfig{
			Kind: "api_key", PublicConfig: json.RawMessage("{}"), Secrets: seal.Plaintext(identifier), SecretKeys: []string{"api_key"},
		}})
		id = p.ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// addGrant inserts a grant of a user. The plaintext of a token is the user and the
// column's name. No operation writes grants yet.
func addGrant(d *storetest.DB, zone string, key seal.DataKey, resource, user string, refresh bool) string {
	id := "grant-" + user
	location := func(column string) seal.Location {
		return seal.Location{Zone: zone, Table: "provider_grants", Column: column, Row: id}
	}
	access := key.Seal(location("access_token"), seal.Plaintext(user+" access_token"))
	var refreshToken []byte
	if refresh {
		refreshToken = key.Seal(location("refresh_token"), seal.Plaintext(user+" refresh_token"))
	}
	d.Exec(`INSERT INTO provider_grants (zone_id, id, user_id, resource_id, provider_id, access_token, refresh_token, data_key)
		SELECT $1, $2, $3, $4, credential_provider_id, $5, $6, $7 FROM resources WHERE zone_id = $1 AND id = $4`, zone, id, user, resource, access, refreshToken, key.Number)
	return id
}

// opened opens every sealed secret in the database without the store.
func opened(t *testing.T, d *storetest.DB, keys *seal.Keys) map[seal.Location]string {
	t.Helper()
	all := map[seal.Location]string{}
	asService(t, d, store.AllZones, func(ctx context.Context, tx pgx.Tx) {
		rows, err := tx.Query(ctx, `
			SELECT zone_id, table_name, column_name, id, sealed, number, wrapped_by, wrapped FROM data_keys JOIN (
				SELECT zone_id, 'providers' AS table_name, 'secret_config' AS column_name, id, secret_config AS sealed, data_key AS number FROM providers
				UNION ALL SELECT zone_id, 'provider_grants', 'access_token', id, access_token, data_key FROM provider_grants
				UNION ALL SELECT zone_id, 'provider_grants', 'refresh_token', id, refresh_token, data_key FROM provider_grants
				UNION ALL SELECT zone_id, 'signing_keys', 'private_key', id, private_key, data_key FROM signing_keys
			) AS secrets USING (zone_id, number) WHERE sealed IS NOT NULL`)
		if err != nil {
			t.Fatal(err)
		}
		var l seal.Location
		var sealed []byte
		var w seal.Wrapped
		_, err = pgx.ForEachRow(rows, []any{&l.Zone, &l.Table, &l.Column, &l.Row, &sealed, &w.Number, &w.KEKID, &w.Bytes}, func() error {
			w.Zone = l.Zone
			key, err := keys.Unwrap(w)
			if err != nil {
				return err
			}
			secret, err := key.Open(l, sealed)
			all[l] = string(secret)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	return all
}

// steps collects the progress that a rotation reports.
type steps []int

func (s *steps) add(n int) { *s = append(*s, n) }

// A rotation is a step of the command caracald keys rotate.
type rotation = func(context.Context, store.Cause, func(int)) error

// replace returns the rotation that replaces the data key of every zone.
func replace(s *store.Store) rotation {
	return func(ctx context.Context, c store.Cause, progress func(int)) error {
		return s.ReplaceDataKeys(ctx, c, 0, progress)
	}
}

// run runs a rotation and compares the progress that it reports.
func run(t *testing.T, r rotation, want ...int) {
	t.Helper()
	var got steps
	if err := r(t.Context(), cause, got.add); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("progress %v, want %v", got, want)
	}
}

// lockAwaited reports whether a transaction waits for a lock.
func lockAwaited(d *storetest.DB) bool {
	return storetest.Value[bool](d, "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database())")
}

// addZones creates zones, each with a data key and a secret that is sealed with it.
func addZones(t *testing.T, d *storetest.DB, s *store.Store, prefix string, count int) {
	t.Helper()
	d.Exec("INSERT INTO zones (id, name, slug, reserved) SELECT $1 || n, 'Zone', $1 || n, false FROM generate_series(1, $2) AS n", prefix, count)
	var all sync.WaitGroup
	for n := range 6 {
		all.Go(func() {
			for i := n + 1; i <= count; i += 6 {
				zone := fmt.Sprint(prefix, i)
				key, err := s.DataKey(t.Context(), cause, zone)
				if err != nil {
					t.Error(err)
					return
				}
				d.Exec(`INSERT INTO providers (zone_id, id, name, identifier, kind, secret_config_keys, secret_config, data_key) VALUES ($1, 'p', 'x', 'provider://p', 'api_key', '{api_key}', $2, $3)`,
					zone, key.Seal(seal.Location{Zone: zone, Table: "providers", Column: "secret_config", Row: "p"}, seal.Plaintext(zone)), key.Number)
			}
		})
	}
	all.Wait()
}
