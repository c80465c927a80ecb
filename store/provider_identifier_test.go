package store_test

import (
	"strings"
	"testing"

	"caracal.run/management/store"
)

func TestProviderIdentifierGeneratedFromAName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Stripe": "provider://stripe", " My  Bank (EU) ": "provider://my-bank-eu", "provider://Git Hub": "provider://git-hub",
		"日本": "provider://provider", "--": "provider://provider", "provider://": "provider://provider",
		"Über 9": "provider://ber-9", "provider://provider://x": "provider://provider-x", "\ufeffa": "provider://a",
		strings.Repeat("a", 1000):                               "provider://" + strings.Repeat("a", 456),
		strings.Repeat("a", 455) + " " + strings.Repeat("b", 9): "provider://" + strings.Repeat("a", 455),
	} {
		if got := store.ProviderBase(name); got != want {
			t.Errorf("%.40q: got %q, want %q", name, got, want)
		}
	}
}
