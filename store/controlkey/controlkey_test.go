package controlkey_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"caracal.run/management/store/controlkey"
)

func TestScopes(t *testing.T) {
	t.Parallel()
	scopes := controlkey.Scopes()
	if len(scopes) != 26 || !slices.IsSorted(scopes) || !slices.Contains(scopes, "control:identity-provider:delete") || slices.Contains(scopes, "control:audit:write") {
		t.Errorf("got %v", scopes)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	expires := time.Date(2030, 1, 2, 3, 4, 5, 678e6, time.UTC)
	full := controlkey.Key{Scopes: []string{"control:app:read", "control:grant:delete"}, MaxTTL: time.Minute, ExpiresAt: &expires}
	for _, tt := range []struct {
		name   string
		traits []string
		want   controlkey.Key
		isKey  bool
	}{
		{"what Traits returns", append(full.Traits(), "team:a"), full, true},
		{"no traits", nil, controlkey.Key{MaxTTL: controlkey.MaxTTL}, false},
		{"other traits", []string{"control", "control:agent"}, controlkey.Key{MaxTTL: controlkey.MaxTTL}, false},
		{"bare", []string{"control:invoke"}, controlkey.Key{MaxTTL: controlkey.MaxTTL}, true},
		{"not marked", []string{"control:scope:control:app:read"}, controlkey.Key{Scopes: []string{"control:app:read"}, MaxTTL: controlkey.MaxTTL}, false},
	} {
		key, isKey, err := controlkey.Parse(tt.traits)
		if err != nil || isKey != tt.isKey || !reflect.DeepEqual(key, tt.want) {
			t.Errorf("%s: got %+v, %v, %v", tt.name, key, isKey, err)
		}
	}
	for _, traits := range [][]string{
		{"control:scope:control:app:execute"}, {"control:scope:"}, {"control:scope:app:read"},
		{"control:max-ttl:59"}, {"control:max-ttl:901"}, {"control:max-ttl:+60"}, {"control:max-ttl:060"}, {"control:max-ttl:"}, {"control:max-ttl:18446744073769"}, {"control:max-ttl:60", "control:max-ttl:61"},
		{"control:expires:soon"}, {"control:expires:2030-01-02"}, {"control:expires:2030-01-02T00:00:00Z", "control:expires:2031-01-02T00:00:00Z"},
	} {
		if key, isKey, err := controlkey.Parse(append([]string{"control:invoke"}, traits...)); err == nil || isKey {
			t.Errorf("%v: got %+v, %v", traits, key, isKey)
		}
	}
}

func TestExpired(t *testing.T) {
	t.Parallel()
	now := time.Now()
	if (controlkey.Key{}).Expired(now) || !(controlkey.Key{ExpiresAt: &now}).Expired(now) || (controlkey.Key{ExpiresAt: &now}).Expired(now.Add(-1)) {
		t.Error("a key expires at its time, and without one never")
	}
}
