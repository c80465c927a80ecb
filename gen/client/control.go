package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// controlResource is the identifier of the control resource, unless the service has
// another one in CONTROL_AUDIENCE.
const controlResource = "caracal-control"

// WithControlKey calls [Client.InvokeControl] with tokens of a Control key, instead of the
// token of the client. The tokens have the given scopes, all of which the key must have.
// Because a token is for one invocation, each attempt of an invocation gets one from the
// service before. All other operations use the token of the client.
//
// An error of [Client.IssueToken], such as [CodeAccessDenied], is returned as the error of
// the invocation.
func WithControlKey(id, secret string, scopes ...ControlScope) Option {
	return func(c *Client) error {
		if id == "" || secret == "" || len(scopes) == 0 {
			return errors.New("WithControlKey: the id, the secret and at least one scope are required")
		}
		names := make([]string, len(scopes))
		for i, scope := range scopes {
			names[i] = string(scope)
		}
		body := TokenRequest{
			GrantType: "client_credentials", ClientID: &id, ClientSecret: &secret, Resource: []string{controlResource}, Scope: strings.Join(names, " "),
		}
		c.controlToken = func(ctx context.Context) (string, error) { // a closure, so that no fmt verb prints the secret
			issued, err := c.IssueToken(ctx, body)
			if err != nil {
				return "", fmt.Errorf("get a token of the Control API: %w", err)
			}
			return issued.AccessToken, nil
		}
		return nil
	}
}
