package client_test

import (
	"strings"
	"testing"

	"caracal.run/management/gen/client"
)

func TestEachCallHasItsOwnKey(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{createdZone}}
	c := newClient(t, f)
	for _, opts := range [][]client.CallOption{nil, nil, {client.IdempotencyKey("mine")}} {
		if _, err := c.CreateZone(t.Context(), client.NewZone{Name: "Production"}, opts...); err != nil {
			t.Fatal(err)
		}
	}
	keys := make([]string, len(f.requests))
	for i, r := range f.requests {
		keys[i] = r.Header.Get("Idempotency-Key")
	}
	if len(keys) != 3 || keys[0] == keys[1] || keys[2] != "mine" {
		t.Errorf("the keys are %q", keys)
	}
	for _, invalid := range []string{"", "a b", "é", strings.Repeat("x", 256)} {
		if _, err := c.CreateZone(t.Context(), client.NewZone{Name: "Production"}, client.IdempotencyKey(invalid)); err == nil || len(f.requests) != 3 {
			t.Errorf("%q: error %v", invalid, err)
		}
	}
}

// Without retries, nothing repeats a call: net/http would repeat one with a key.
func TestCallThatIsNotRetriedHasNoKey(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{createdZone}}
	c := newClient(t, f, client.WithoutRetry())
	for key, opts := range map[string][]client.CallOption{"": nil, "mine": {client.IdempotencyKey("mine")}} {
		if _, err := c.CreateZone(t.Context(), client.NewZone{Name: "Production"}, opts...); err != nil {
			t.Fatal(err)
		}
		if got := f.last().Header.Get("Idempotency-Key"); got != key {
			t.Errorf("the key is %q, want %q", got, key)
		}
	}
}

func TestKeyOfOperationThatTakesNone(t *testing.T) {
	t.Parallel()
	f := &fake{replies: []reply{status(204)}}
	c := newClient(t, f)
	for _, opt := range []client.CallOption{client.IdempotencyKey("mine"), client.Header("idempotency-key", "mine")} {
		if err := c.DeleteZone(t.Context(), "z1", opt); err == nil || !strings.Contains(err.Error(), "takes no Idempotency-Key") || len(f.requests) > 0 {
			t.Errorf("got %v, %d requests", err, len(f.requests))
		}
	}
}
