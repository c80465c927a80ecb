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

// Key-encryption keys, the eldest first.
const (
	kek1 = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	kek2 = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
	kek3 = "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
)

func keysOf(t *testing.T, keks ...string) *seal.Keys {
	t.Helper()
	keys, err := seal.Load(func() (string, error) { return strings.Join(keks, "\n"), nil })
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// sealing opens the database with key-encryption keys.
func sealing(t *testing.T, d *storetest.DB, keks ...string) *store.Store {
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

func dataKey(t *testing.T, s *store.Store, zone string) seal.DataKey {
	t.Helper()
	key, err := s.DataKey(t.Context(), cause, zone)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// addProvider adds a provider whose secret is its identifier.
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

// addGrant adds a grant of a user's, whose tokens are the user's name and what
// they are. No operation writes one yet.
func addGrant(d *storetest.DB, zone string, key seal.DataKey, resource, user string, refresh bool) string {
	id := "grant-" + user
	in := func(column string) seal.Location {
		return seal.Location{Zone: zone, Table: "provider_grants", Column: column, Row: id}
	}
	access := key.Seal(in("access_token"), seal.Plaintext(user+" access_token"))
	var isRetryable []byte
	if refresh {
		isRetryable = key.Seal(in("refresh_token"), seal.Plaintext(user+" refresh_token"))
	}
	d.Exec(`INSERT INTO provider_grants (zone_id, id, user_id, resource_id, provider_id, access_token, refresh_token, data_key)
		SELECT $1, $2, $3, $4, credential_provider_id, $5, $6, $7 FROM resources WHERE zone_id = $1 AND id = $4`, zone, id, user, resource, access, isRetryable, key.Number)
	return id
}

// opened is all that is sealed in the database, opened without the store.
func opened(t *testing.T, d *storetest.DB, keys *seal.Keys) map[seal.Location]string {
	t.Helper()
	all := map[seal.Location]string{}
	asService(t, d, store.AllZones, func(ctx context.Context, tx pgx.Tx) {
		rows, err := tx.Query(ctx, `
			SELECT zone_id, place, name, id, sealed, number, wrapped_by, wrapped FROM data_keys JOIN (
				SELECT zone_id, 'providers' AS place, 'secret_config' AS name, id, secret_config AS sealed, data_key AS number FROM providers
				UNION ALL SELECT zone_id, 'provider_grants', 'access_token', id, access_token, data_key FROM provider_grants
				UNION ALL SELECT zone_id, 'provider_grants', 'refresh_token', id, refresh_token, data_key FROM provider_grants
			) AS secrets USING (zone_id, number) WHERE sealed IS NOT NULL`)
		if err != nil {
			t.Fatal(err)
		}
		var p seal.Location
		var sealed []byte
		var w seal.Wrapped
		_, err = pgx.ForEachRow(rows, []any{&p.Zone, &p.Table, &p.Column, &p.Row, &sealed, &w.Number, &w.KEKID, &w.Bytes}, func() error {
			w.Zone = p.Zone
			key, err := keys.Unwrap(w)
			if err != nil {
				return err
			}
			secret, err := key.Open(p, sealed)
			all[p] = string(secret)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	return all
}

// steps keeps what a rotation says of its progress.
type steps []int

func (s *steps) add(n int) { *s = append(*s, n) }

// A rotation is one of the things that caracald keys does.
type rotation = func(context.Context, store.Cause, func(int)) error

// replace gives every zone another data key.
func replace(s *store.Store) rotation {
	return func(ctx context.Context, c store.Cause, progress func(int)) error {
		return s.ReplaceDataKeys(ctx, c, 0, progress)
	}
}

func run(t *testing.T, r rotation, want ...int) {
	t.Helper()
	var got steps
	if err := r(t.Context(), cause, got.add); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("its progress is %v, want %v", got, want)
	}
}

// somebodyWaits says whether a transaction waits for another's lock.
func somebodyWaits(d *storetest.DB) bool {
	return storetest.Value[bool](d, "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database())")
}

// addZones adds zones with a data key each, and something sealed with it.
func addZones(t *testing.T, d *storetest.DB, s *store.Store, prefix string, many int) {
	t.Helper()
	d.Exec("INSERT INTO zones (id, name, slug, reserved) SELECT $1 || n, 'Zone', $1 || n, false FROM generate_series(1, $2) AS n", prefix, many)
	var all sync.WaitGroup
	for n := range 6 {
		all.Go(func() {
			for i := n + 1; i <= many; i += 6 {
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
