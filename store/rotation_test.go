package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/code"
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

func TestASecretThatWasMovedInTheDatabaseDoesNotOpen(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, sql, zone, at string }{
		{"nothing was moved", "SELECT 1", "", ""},
		{"from another row", "UPDATE providers AS p SET secret_config = o.secret_config FROM providers AS o WHERE p.id = $1 AND o.id = $2",
			"$zone1", "providers.secret_config of row $1"},
		{"from another zone", "UPDATE providers AS p SET secret_config = o.secret_config FROM providers AS o WHERE p.id = $1 AND o.id = $3",
			"$zone1", "providers.secret_config of row $1"},
		{"from another column", "UPDATE provider_grants SET refresh_token = access_token WHERE id = 'grant-u'",
			"$zone1", "provider_grants.refresh_token of row grant-u"},
		{"columns exchanged", "UPDATE provider_grants SET refresh_token = access_token, access_token = refresh_token WHERE id = 'grant-u'",
			"$zone1", "provider_grants.access_token of row grant-u"},
		{"from another table", "UPDATE provider_grants SET access_token = secret_config FROM providers AS p WHERE p.id = $1",
			"$zone1", "provider_grants.access_token of row grant-u"},
		{"under another number", "UPDATE providers SET data_key = 1 WHERE id = $2",
			"$zone1", "providers.secret_config of row $2"},
		{"changed", "UPDATE providers SET secret_config = set_byte(secret_config, 30, get_byte(secret_config, 30) # 1) WHERE id = $3",
			"$zone2", "providers.secret_config of row $3"},
		{"cut short", "UPDATE providers SET secret_config = substring(secret_config FOR 20) WHERE id = $3",
			"$zone2", "providers.secret_config of row $3"},
		{"emptied", "UPDATE providers SET secret_config = '' WHERE id = $3",
			"$zone2", "providers.secret_config of row $3"},
		{"a data key from another zone", "UPDATE data_keys AS k SET wrapped = o.wrapped FROM data_keys AS o WHERE k.zone_id = $zone2 AND o.zone_id = $zone1 AND o.number = 1",
			"$zone2", "data key 1 of zone $zone2"},
		{"a data key under another number", "UPDATE data_keys AS k SET wrapped = o.wrapped FROM data_keys AS o WHERE k.zone_id = $zone1 AND o.zone_id = $zone1 AND k.number = 2 AND o.number = 1",
			"$zone1", "data key 2 of zone $zone1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := storetest.New(t)
			s := sealing(t, d, kek1)
			zone1, zone2 := newZone(t, s).ID, newZone(t, s).ID
			one := addProvider(t, s, zone1, dataKey(t, s, zone1), "one")
			addGrant(d, zone1, dataKey(t, s, zone1), d.Resource(zone1), "u", true)
			other := addProvider(t, s, zone2, dataKey(t, s, zone2), "other")
			d.Exec("UPDATE data_keys SET created_at = now() - interval '1 day' WHERE zone_id = $1", zone1)
			if err := s.ReplaceDataKeys(t.Context(), cause, time.Hour, func(int) {}); err != nil {
				t.Fatal(err)
			}
			two := addProvider(t, s, zone1, dataKey(t, s, zone1), "two")
			in := func(text, quote string) string {
				return strings.NewReplacer("$1", quote+one+quote, "$2", quote+two+quote, "$3", quote+other+quote, "$zone1", quote+zone1+quote, "$zone2", quote+zone2+quote).Replace(text)
			}
			d.Exec(in(tt.sql, "'"))
			var last steps
			err := s.VerifySecrets(t.Context(), cause, last.add)
			if tt.at == "" {
				if err != nil || !slices.Equal(last, []int{5}) {
					t.Errorf("%v opened, %v", last, err)
				}
				return
			}
			if !errors.Is(err, seal.ErrDecrypt) || !strings.Contains(err.Error(), in(tt.at, "")) || !strings.Contains(err.Error(), "zone "+in(tt.zone, "")) {
				t.Errorf("got %v, want it to name %s in zone %s", err, in(tt.at, ""), in(tt.zone, ""))
			}
		})
	}
}

func TestADataKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := sealing(t, d, kek1)
	zone := newZone(t, s).ID
	place := seal.Location{Zone: zone, Table: "t", Column: "c", Row: "r"}
	sealed := make(chan []byte, 20)
	var all sync.WaitGroup
	for range cap(sealed) {
		all.Go(func() {
			key, err := s.DataKey(t.Context(), cause, zone)
			if err != nil {
				t.Error(err)
				return
			}
			sealed <- key.Seal(place, seal.Plaintext("x"))
		})
	}
	all.Wait()
	close(sealed)
	key := dataKey(t, s, zone)
	for one := range sealed {
		if _, err := key.Open(place, one); err != nil {
			t.Errorf("somebody was given another key: %v", err)
		}
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM data_keys"); n != 1 {
		t.Errorf("there are %d", n)
	}
	entries := storetest.Column[string](d, "SELECT zone_id || ' ' || entity_id || ' ' || payload FROM audit_entries WHERE entity_type = 'data-keys'")
	if len(entries) != 1 || !strings.HasPrefix(entries[0], zone+" 1 ") || !strings.Contains(entries[0], keysOf(t, kek1).Current()) || strings.Contains(entries[0], kek1[:8]) {
		t.Errorf("the trail says %q", entries)
	}
}

func TestOnlyALiveZoneGetsADataKey(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := sealing(t, d, kek1)
	zone := newZone(t, s).ID
	d.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ('ours', 'Ours', 'ours', true)")
	elsewhere, anybody := cause, cause
	elsewhere.Actor, anybody.Actor = store.Actor{Zone: "elsewhere"}, store.Actor{Zone: store.AllZones}
	for _, tt := range []struct {
		name  string
		cause store.Cause
		zone  string
		want  code.Code
	}{
		{"unknown", cause, "nowhere", code.ZoneNotFound},
		{"archived", cause, d.ArchivedZone(), code.ZoneNotFound},
		{"of others", elsewhere, zone, code.ZoneNotFound},
		{"Caracal's own", anybody, "ours", code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := s.DataKey(t.Context(), tt.cause, tt.zone); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	t.Cleanup(func() {
		if n := storetest.Value[int](d, "SELECT count(*) FROM data_keys"); n != 0 {
			t.Errorf("%d were made", n)
		}
	})
}

func TestCheckKeysNamesTheKeyThatIsMissing(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	for _, kek := range []string{kek1, kek2} {
		s := sealing(t, d, kek)
		dataKey(t, s, newZone(t, s).ID)
	}
	for _, tt := range []struct {
		name    string
		keks    []string
		missing []string
	}{
		{"all are there", []string{kek3, kek1, kek2}, nil},
		{"one is missing", []string{kek3, kek1}, []string{kek2}},
		{"all are missing", []string{kek3}, []string{kek1, kek2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := sealing(t, d, tt.keks...).CheckKeys(t.Context())
			if errors.Is(err, store.ErrKeyMissing) != (len(tt.missing) > 0) || err != nil && len(tt.missing) == 0 {
				t.Fatalf("got %v", err)
			}
			for _, kek := range []string{kek1, kek2, kek3} {
				if named := err != nil && strings.Contains(err.Error(), keysOf(t, kek).Current()); named != slices.Contains(tt.missing, kek) {
					t.Errorf("%s is named: %v, in %v", keysOf(t, kek).Current(), named, err)
				}
			}
		})
	}
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

func TestEveryDataKeyIsRewrapped(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, sealing(t, d, kek1), "eldest-", 100)
	addZones(t, d, sealing(t, d, kek2, kek1), "elder-", 150)
	before := opened(t, d, keysOf(t, kek2, kek1))
	s := sealing(t, d, kek3, kek2, kek1)
	id1, id2, id3 := keysOf(t, kek1).Current(), keysOf(t, kek2).Current(), keysOf(t, kek3).Current()

	run(t, s.RewrapDataKeys, 100, 200, 250)
	if after := opened(t, d, keysOf(t, kek3)); len(after) != 250 || !maps.Equal(before, after) {
		t.Errorf("of %d secrets, %d open with the new key alone", len(before), len(after))
	}
	for prefix, from := range map[string]string{"eldest-": id1, "elder-": id2} {
		auditChange := fmt.Sprintf(`"changes":{"wrapped_by":{"from":%q,"to":%q}}`, from, id3)
		if n := storetest.Value[int](d, `SELECT count(DISTINCT zone_id) FROM audit_entries WHERE entity_type = 'data-keys' AND entity_id = '1' AND action = operation AND zone_id LIKE $1 AND payload LIKE '%' || $2 || '%'`,
			prefix+"%", auditChange); n != map[string]int{"eldest-": 100, "elder-": 150}[prefix] {
			t.Errorf("the trail of %d of the zones %s… says so", n, prefix)
		}
	}
	entries := storetest.Value[int](d, "SELECT count(*) FROM audit_entries")
	if entries != 2*250 { // one for each key's making, one for its rewrapping
		t.Errorf("the trail has %d entries", entries)
	}

	run(t, s.RewrapDataKeys)
	if isRetryable := storetest.Value[int](d, "SELECT count(*) FROM audit_entries"); isRetryable != entries {
		t.Errorf("when there is nothing to do, the trail grows by %d", isRetryable-entries)
	}
	if err := sealing(t, d, kek3).CheckKeys(t.Context()); err != nil {
		t.Errorf("without the old keys: %v", err)
	}
}

func TestARewrapThatIsBrokenOffIsResumed(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, sealing(t, d, kek1), "zone-", 250)
	s := sealing(t, d, kek2, kek1)
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.RewrapDataKeys(ctx, cause, func(int) { cancel() }); err == nil {
		t.Error("it was not broken off")
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM data_keys WHERE wrapped_by = $1", keysOf(t, kek2).Current()); n != 100 {
		t.Errorf("%d were rewrapped, want one batch", n)
	}
	if n := len(opened(t, d, keysOf(t, kek2, kek1))); n != 250 {
		t.Errorf("%d secrets open half way", n)
	}
	run(t, s.RewrapDataKeys, 100, 150)
	if n := len(opened(t, d, keysOf(t, kek2))); n != 250 {
		t.Errorf("%d secrets open at the end", n)
	}
}

// Whoever seals holds the data key's row a little, so that it stays.
func TestADataKeyThatARequestHoldsIsRewrappedAllTheSame(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, sealing(t, d, kek1), "zone-", 3)
	s := sealing(t, d, kek2, kek1)
	asService(t, d, "zone-2", func(ctx context.Context, tx pgx.Tx) {
		if _, err := tx.Exec(ctx, "INSERT INTO providers (zone_id, id, name, identifier, kind, secret_config_keys, secret_config, data_key) VALUES ('zone-2', 'q', 'x', 'q', 'api_key', '{k}', 'x', 1)"); err != nil {
			t.Fatal(err)
		}
		run(t, s.RewrapDataKeys, 3)
	})
}

// What another rotation holds is not passed by: it may have been killed.
func TestARewrapEndsOnlyWhenEveryDataKeyIsRewrapped(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, sealing(t, d, kek1), "zone-", 3)
	s := sealing(t, d, kek2, kek1)
	var got steps
	done := make(chan error, 1)
	asService(t, d, "zone-2", func(ctx context.Context, tx pgx.Tx) {
		if _, err := tx.Exec(ctx, "UPDATE data_keys SET wrapped = wrapped"); err != nil {
			t.Fatal(err)
		}
		go func() { done <- s.RewrapDataKeys(ctx, cause, got.add) }()
		for len(done) == 0 && !somebodyWaits(d) {
			if err := t.Context().Err(); err != nil {
				t.Fatal(err)
			}
		}
	}) // its transaction is undone
	if err := <-done; err != nil || !slices.Equal(got, []int{3}) {
		t.Errorf("its progress is %v: %v", got, err)
	}
}

func TestReplacedDataKeysLoseNothing(t *testing.T) {
	t.Parallel()
	const providers, grants = 105, 102
	d := storetest.New(t)
	s := sealing(t, d, kek1)
	zone, other, archived := newZone(t, s).ID, newZone(t, s).ID, newZone(t, s).ID
	key := dataKey(t, s, zone)
	for n := range providers {
		addProvider(t, s, zone, key, fmt.Sprint("p", n))
	}
	resource := d.Resource(zone)
	for n := range grants {
		addGrant(d, zone, key, resource, fmt.Sprint("u", n), n%2 == 0)
	}
	addProvider(t, s, archived, dataKey(t, s, archived), "p")
	d.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", archived)
	dataKey(t, s, other) // seals nothing yet
	fixture := d.Provider(zone)
	before := opened(t, d, keysOf(t, kek1))
	if want := providers + grants + grants/2 + 1; len(before) != want {
		t.Fatalf("%d secrets, want %d", len(before), want)
	}
	current := func(zone string) int {
		return storetest.Value[int](d, "SELECT number FROM data_keys WHERE zone_id = $1 AND retired_at IS NULL", zone)
	}
	numbers := func() []string {
		return storetest.Column[string](d, "SELECT number || ' of ' || count(*) FROM data_keys GROUP BY number ORDER BY number")
	}

	d.Exec("UPDATE data_keys SET created_at = now() - interval '2 days' WHERE zone_id <> $1", other)
	run(t, func(ctx context.Context, c store.Cause, progress func(int)) error {
		return s.ReplaceDataKeys(ctx, c, 24*time.Hour, progress)
	}, 2)
	if current(zone) != 2 || current(archived) != 2 || current(other) != 1 {
		t.Errorf("the data keys are %d, %d and %d, want 2, 2 and 1", current(zone), current(archived), current(other))
	}
	if !maps.Equal(opened(t, d, keysOf(t, kek1)), before) {
		t.Error("before anything is resealed, not all opens")
	}
	asService(t, d, zone, func(ctx context.Context, tx pgx.Tx) {
		if _, err := tx.Exec(ctx, "DELETE FROM data_keys WHERE number = 1"); err == nil || !strings.Contains(err.Error(), "SQLSTATE 23503") {
			t.Errorf("a key that is needed was deleted: %v", err)
		}
	})

	// One zone after the other, providers first, in batches.
	version := storetest.Value[int](d, "SELECT sum(version) FROM providers")
	want := []int{100, 105, 205, 207, 208}
	if archived < zone {
		want = []int{1, 101, 106, 206, 208}
	}
	run(t, s.Reseal, want...)
	if !maps.Equal(opened(t, d, keysOf(t, kek1)), before) {
		t.Error("after everything is resealed, not all opens")
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM (SELECT data_key FROM providers UNION ALL SELECT data_key FROM provider_grants) AS x WHERE data_key = 1"); n != 0 {
		t.Errorf("%d rows are sealed with the old key", n)
	}
	if now := storetest.Value[int](d, "SELECT sum(version) FROM providers"); now != version {
		t.Error("what nobody changed has another version")
	}
	if storetest.Value[bool](d, "SELECT data_key IS NOT NULL OR secret_config IS NOT NULL FROM providers WHERE id = $1", fixture) {
		t.Error("who had no secret has one")
	}

	if got := numbers(); !slices.Equal(got, []string{"1 of 3", "2 of 2"}) {
		t.Errorf("just retired: the data keys are %q", got)
	}
	d.Exec("UPDATE data_keys SET retired_at = now() - interval '4 minutes 50 seconds' WHERE retired_at IS NOT NULL")
	run(t, s.Reseal)
	if got := numbers(); !slices.Equal(got, []string{"1 of 3", "2 of 2"}) {
		t.Errorf("retired less than a request ago: the data keys are %q", got)
	}
	d.Exec("UPDATE data_keys SET retired_at = now() - interval '5 minutes 10 seconds' WHERE retired_at IS NOT NULL")
	run(t, s.Reseal)
	if got := numbers(); !slices.Equal(got, []string{"1 of 1", "2 of 2"}) {
		t.Errorf("retired long ago: the data keys are %q", got)
	}
	trail := storetest.Column[string](d, "SELECT entity_id || substring(payload FROM '.changed_fields.*') FROM audit_entries WHERE entity_type = 'data-keys' AND zone_id = $1 ORDER BY occurred_at, entity_id", zone)
	made := fmt.Sprintf(`"changed_fields":["wrapped_by"],"changes":{"wrapped_by":{"from":null,"to":%q}}}`, keysOf(t, kek1).Current())
	if !slices.Equal(trail, []string{"1" + made, "2" + made, `1"changed_fields":[]}`}) {
		t.Errorf("the trail says %q", trail)
	}
	var last steps
	if err := s.VerifySecrets(t.Context(), cause, last.add); err != nil || last[len(last)-1] != len(before) {
		t.Errorf("%v opened, %v", last, err)
	}
}

// A request asks for the data key before its transaction, and may be slow.
func TestWhatIsSealedWithARetiredDataKeyIsFoundByTheNextRotation(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := sealing(t, d, kek1)
	zone := newZone(t, s).ID
	early := dataKey(t, s, zone)
	run(t, replace(s), 1)
	run(t, s.Reseal)
	id := addProvider(t, s, zone, early, "late")
	place := seal.Location{Zone: zone, Table: "providers", Column: "secret_config", Row: id}
	if got := opened(t, d, keysOf(t, kek1)); got[place] != "provider://late" {
		t.Errorf("it opens as %q", got)
	}
	d.Exec("UPDATE data_keys SET retired_at = now() - interval '1 hour' WHERE retired_at IS NOT NULL")
	run(t, s.Reseal, 1)
	if got := opened(t, d, keysOf(t, kek1)); got[place] != "provider://late" {
		t.Errorf("resealed, it opens as %q", got)
	}
	if n := storetest.Column[int](d, "SELECT number FROM data_keys"); !slices.Equal(n, []int{2}) {
		t.Errorf("the data keys are %v", n)
	}
	run(t, s.Reseal)
}

// A change of something else carries over what is sealed, whichever key seals it.
func TestAProviderIsResealedWhileItChanges(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := sealing(t, d, kek1)
	zone := newZone(t, s).ID
	early := dataKey(t, s, zone)
	id := addProvider(t, s, zone, early, "p")
	run(t, replace(s), 1)
	var reseal sync.WaitGroup
	err := s.InTx(t.Context(), cause, func(tx *store.Tx) error {
		if _, err := tx.UpdateProvider(t.Context(), zone, id, store.Precondition{}, early, store.ProviderPatch{Configure: func(c store.ProviderConfig) (store.ProviderConfig, error) {
			c.Secrets = seal.Plaintext("changed meanwhile")
			return c, nil
		}}); err != nil {
			return err
		}
		reseal.Go(func() {
			if err := s.Reseal(t.Context(), cause, func(int) {}); err != nil {
				t.Error(err)
			}
		})
		for !somebodyWaits(d) {
			if err := t.Context().Err(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	reseal.Wait()
	place := seal.Location{Zone: zone, Table: "providers", Column: "secret_config", Row: id}
	if got := opened(t, d, keysOf(t, kek1)); got[place] != "changed meanwhile" {
		t.Errorf("it opens as %q", got)
	}
	if n := storetest.Value[int](d, "SELECT data_key FROM providers WHERE id = $1", id); n != 2 {
		t.Errorf("it is sealed with data key %d, want 2", n)
	}
}

func TestRotationsAtOnceDoNotHarmEachOther(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, sealing(t, d, kek1), "zone-", 120)
	before := opened(t, d, keysOf(t, kek1))
	var all sync.WaitGroup
	for range 3 {
		s := sealing(t, d, kek2, kek1)
		all.Go(func() {
			for _, r := range []rotation{s.RewrapDataKeys, replace(s), s.Reseal} {
				if err := r(t.Context(), cause, func(int) {}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	run(t, sealing(t, d, kek2, kek1).RewrapDataKeys)
	if !maps.Equal(opened(t, d, keysOf(t, kek2)), before) {
		t.Error("not all opens with the new key")
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM data_keys WHERE retired_at IS NULL"); n != 120 {
		t.Errorf("%d data keys are current", n)
	}
}

func TestWhatDoesNotOpenHoldsUpNoOtherZone(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, sealing(t, d, kek1), "zone-", 6)
	s := sealing(t, d, kek2, kek1)
	zones := storetest.Column[string](d, "SELECT zone_id FROM data_keys ORDER BY zone_id")
	const broken = "\\x010203"
	d.Exec("UPDATE data_keys SET wrapped = $2 WHERE zone_id = $1", zones[1], []byte(broken))
	d.Exec("UPDATE providers SET secret_config = $2 WHERE zone_id = $1", zones[3], []byte(broken))
	ignore := func(int) {}
	if err := s.RewrapDataKeys(t.Context(), store.Cause{Actor: store.System}, ignore); !errors.Is(err, seal.ErrDecrypt) || !strings.Contains(err.Error(), zones[1]) {
		t.Errorf("the rewrap says %v", err)
	}
	if err := replace(s)(t.Context(), store.Cause{Actor: store.System}, ignore); err != nil {
		t.Error(err)
	}
	err := s.Reseal(t.Context(), store.Cause{Actor: store.System}, ignore)
	for _, zone := range []string{zones[1], zones[3]} {
		if !errors.Is(err, seal.ErrDecrypt) || !strings.Contains(err.Error(), zone) {
			t.Errorf("of zone %s the resealing says %v", zone, err)
		}
	}
	old := keysOf(t, kek1).Current()
	if left := storetest.Column[string](d, "SELECT DISTINCT zone_id FROM data_keys WHERE wrapped_by = $1", old); !slices.Equal(left, zones[1:2]) {
		t.Errorf("the old key still wraps those of %v", left)
	}
	if left := storetest.Column[string](d, "SELECT DISTINCT zone_id FROM providers WHERE data_key = 1 ORDER BY 1"); !slices.Equal(left, []string{zones[1], zones[3]}) {
		t.Errorf("the first data key still seals in %v", left)
	}
}
