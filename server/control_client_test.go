package server_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
)

// The client gets a token for each invocation from the token endpoint, also after the
// secret of the key was rotated, and none after the key was revoked.
func TestInvokeControlWithControlKey(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, ctx := openZone(a), t.Context()
	admin := newClient(t, a, a.Transport())
	key := newControlKey(t, a, zone, client.ControlScopeControlAppRead, client.ControlScopeControlAppWrite)
	with := func(secret string, scopes ...client.ControlScope) *client.Client {
		t.Helper()
		c, err := client.New(a.URL, "", client.WithTransport(a.Transport()), client.WithControlKey(key.ID, secret, scopes...))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	names := func(c *client.Client) (names []string) {
		t.Helper()
		result, err := c.InvokeControl(ctx, client.ControlInvocation{Command: new("app"), Subcommand: new("list")})
		if err != nil {
			t.Fatal(err)
		}
		var list []client.Application
		if err := json.Unmarshal(result.Result, &list); err != nil {
			t.Fatal(err)
		}
		for _, app := range list {
			names = append(names, app.Name)
		}
		return names
	}
	create := client.ControlInvocation{Command: new("app"), Subcommand: new("create"), Flags: map[string]any{"name": "Billing"}}
	reader, writer := with(key.ClientSecret, client.ControlScopeControlAppRead), with(key.ClientSecret, client.ControlScopeControlAppRead, client.ControlScopeControlAppWrite)
	for range 2 { // each is another token
		if _, err := writer.InvokeControl(ctx, create); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(reader); !slices.Equal(got, []string{"Billing", "Billing", "key"}) {
		t.Errorf("got %q", got)
	}
	_, err := reader.InvokeControl(ctx, create)
	expectCode(t, err, client.CodeControlDenied)
	if !strings.Contains(err.Error(), "missing scope control:app:write") {
		t.Errorf("got %v", err)
	}
	_, err = with(key.ClientSecret, client.ControlScopeControlGrantRead).InvokeControl(ctx, create)
	expectCode(t, err, client.CodeAccessDenied)

	rotated, err := admin.RotateApplicationSecret(ctx, zone, key.ID, client.SecretRotation{OverlapSeconds: new(int64(3600))})
	if err != nil {
		t.Fatal(err)
	}
	names(reader)
	names(with(rotated.ClientSecret, client.ControlScopeControlAppRead))
	noError(t, admin.DeleteControlKey(ctx, zone, key.ID))
	_, err = reader.InvokeControl(ctx, create)
	expectCode(t, err, client.CodeAccessDenied)
	if text := fmt.Sprintf("%v %+v %#v", *reader, reader, *reader); strings.Contains(text, key.ClientSecret) {
		t.Error("a verb prints the secret")
	}
}

func TestControlKeyOption(t *testing.T) {
	t.Parallel()
	for _, option := range []client.Option{
		client.WithControlKey("", "secret", client.ControlScopeControlAppRead), client.WithControlKey("id", "", client.ControlScopeControlAppRead), client.WithControlKey("id", "secret"),
	} {
		if _, err := client.New("https://api.example.com", "", option); err == nil || !strings.Contains(err.Error(), "WithControlKey") {
			t.Errorf("got %v", err)
		}
	}
}
