package store_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

func TestVerifySecretsRejectsMovedOrModifiedSecret(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, sql, zone, at string }{
		{"unchanged", "SELECT 1", "", ""},
		{"from another row", "UPDATE providers AS p SET secret_config = o.secret_config FROM providers AS o WHERE p.id = $1 AND o.id = $2",
			"$zone1", "providers.secret_config of row $1"},
		{"from another zone", "UPDATE providers AS p SET secret_config = o.secret_config FROM providers AS o WHERE p.id = $1 AND o.id = $3",
			"$zone1", "providers.secret_config of row $1"},
		{"from another column", "UPDATE provider_grants SET refresh_token = access_token WHERE id = 'grant-u'",
			"$zone1", "provider_grants.refresh_token of row grant-u"},
		{"columns swapped", "UPDATE provider_grants SET refresh_token = access_token, access_token = refresh_token WHERE id = 'grant-u'",
			"$zone1", "provider_grants.access_token of row grant-u"},
		{"from another table", "UPDATE provider_grants SET access_token = secret_config FROM providers AS p WHERE p.id = $1",
			"$zone1", "provider_grants.access_token of row grant-u"},
		{"with another data key number", "UPDATE providers SET data_key = 1 WHERE id = $2",
			"$zone1", "providers.secret_config of row $2"},
		{"modified", "UPDATE providers SET secret_config = set_byte(secret_config, 30, get_byte(secret_config, 30) # 1) WHERE id = $3",
			"$zone2", "providers.secret_config of row $3"},
		{"truncated", "UPDATE providers SET secret_config = substring(secret_config FOR 20) WHERE id = $3",
			"$zone2", "providers.secret_config of row $3"},
		{"empty", "UPDATE providers SET secret_config = '' WHERE id = $3",
			"$zone2", "providers.secret_config of row $3"},
		{"a data key from another zone", "UPDATE data_keys AS k SET wrapped = o.wrapped FROM data_keys AS o WHERE k.zone_id = $zone2 AND o.zone_id = $zone1 AND o.number = 1",
			"$zone2", "data key 1 of zone $zone2"},
		{"a data key with another number", "UPDATE data_keys AS k SET wrapped = o.wrapped FROM data_keys AS o WHERE k.zone_id = $zone1 AND o.zone_id = $zone1 AND k.number = 2 AND o.number = 1",
			"$zone1", "data key 2 of zone $zone1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := storetest.New(t)
			s := openStore(t, d, kek1)
			zone1, zone2 := newZone(t, s).ID, newZone(t, s).ID
			one := addProvider(t, s, zone1, dataKey(t, s, zone1), "one")
			addGrant(d, zone1, dataKey(t, s, zone1), d.Resource(zone1), "u", true)
			other := addProvider(t, s, zone2, dataKey(t, s, zone2), "other")
			d.Exec("UPDATE data_keys SET created_at = now() - interval '1 day' WHERE zone_id = $1", zone1)
			if err := s.ReplaceDataKeys(t.Context(), cause, time.Hour, func(int) {}); err != nil {
				t.Fatal(err)
			}
			two := addProvider(t, s, zone1, dataKey(t, s, zone1), "two")
			expand := func(text, quote string) string {
				return strings.NewReplacer("$1", quote+one+quote, "$2", quote+two+quote, "$3", quote+other+quote, "$zone1", quote+zone1+quote, "$zone2", quote+zone2+quote).Replace(text)
			}
			d.Exec(expand(tt.sql, "'"))
			var progress steps
			err := s.VerifySecrets(t.Context(), cause, progress.add)
			if tt.at == "" {
				if err != nil || !slices.Equal(progress, []int{5}) {
					t.Errorf("opened %v, want 5: %v", progress, err)
				}
				return
			}
			if !errors.Is(err, seal.ErrDecrypt) || !strings.Contains(err.Error(), expand(tt.at, "")) || !strings.Contains(err.Error(), "zone "+expand(tt.zone, "")) {
				t.Errorf("got %v, want an error for %s in zone %s", err, expand(tt.at, ""), expand(tt.zone, ""))
			}
		})
	}
}

func TestDataKeyCreatesOneKeyPerZone(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	zone := newZone(t, s).ID
	location := seal.Location{Zone: zone, Table: "t", Column: "c", Row: "r"}
	sealed := make(chan []byte, 20)
	var all sync.WaitGroup
	for range cap(sealed) {
		all.Go(func() {
			key, err := s.DataKey(t.Context(), cause, zone)
			if err != nil {
				t.Error(err)
				return
			}
			sealed <- key.Seal(location, seal.Plaintext("x"))
		})
	}
	all.Wait()
	close(sealed)
	key := dataKey(t, s, zone)
	for secret := range sealed {
		if _, err := key.Open(location, secret); err != nil {
			t.Errorf("concurrent calls returned different keys: %v", err)
		}
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM data_keys"); n != 1 {
		t.Errorf("%d data keys, want 1", n)
	}
	entries := storetest.Column[string](d, "SELECT zone_id || ' ' || entity_id || ' ' || payload FROM audit_entries WHERE entity_type = 'data-keys'")
	if len(entries) != 1 || !strings.HasPrefix(entries[0], zone+" 1 ") || !strings.Contains(entries[0], keysOf(t, kek1).Current()) || strings.Contains(entries[0], kek1[:8]) {
		t.Errorf("audit entries %q", entries)
	}
}

func TestDataKeyRequiresActiveZone(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	zone := newZone(t, s).ID
	d.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ('ours', 'Ours', 'ours', true)")
	otherZone, allZones := cause, cause
	otherZone.Actor, allZones.Actor = store.Actor{Zone: "elsewhere"}, store.Actor{Zone: store.AllZones}
	for _, tt := range []struct {
		name  string
		cause store.Cause
		zone  string
		want  code.Code
	}{
		{"unknown", cause, "nowhere", code.ZoneNotFound},
		{"archived", cause, d.ArchivedZone(), code.ZoneNotFound},
		{"not accessible", otherZone, zone, code.ZoneNotFound},
		{"reserved", allZones, "ours", code.SystemZoneReadOnly},
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
			t.Errorf("%d data keys, want 0", n)
		}
	})
}

func TestCheckKeysNamesMissingKey(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	for _, kek := range []string{kek1, kek2} {
		s := openStore(t, d, kek)
		dataKey(t, s, newZone(t, s).ID)
	}
	for _, tt := range []struct {
		name    string
		keks    []string
		missing []string
	}{
		{"none is missing", []string{kek3, kek1, kek2}, nil},
		{"one is missing", []string{kek3, kek1}, []string{kek2}},
		{"all are missing", []string{kek3}, []string{kek1, kek2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := openStore(t, d, tt.keks...).CheckKeys(t.Context())
			if errors.Is(err, store.ErrKeyMissing) != (len(tt.missing) > 0) || err != nil && len(tt.missing) == 0 {
				t.Fatalf("got %v", err)
			}
			for _, kek := range []string{kek1, kek2, kek3} {
				if named := err != nil && strings.Contains(err.Error(), keysOf(t, kek).Current()); named != slices.Contains(tt.missing, kek) {
					t.Errorf("the error names %s: %v; it is %v", keysOf(t, kek).Current(), named, err)
				}
			}
		})
	}
}
