// Package ogen creates and updates a provider with the client of ogen.
package ogen

import (
	"context"

	"consumers/ogen/client"
)

func use(ctx context.Context, c *client.Client) error {
	body := client.NewNewAPIKeyProviderNewProvider(client.NewAPIKeyProvider{
		Name: client.NewOptProviderName("Ledger"), Kind: client.NewAPIKeyProviderKindAPIKey,
		ConfigJSON: client.NewOptAPIKeyProviderConfig(client.APIKeyProviderConfig{
			HeaderName: client.NewOptString("X-Api-Key"), APIKey: client.NewOptString("example"),
		}),
	})
	response, err := c.CreateProvider(ctx, body, client.CreateProviderParams{ZoneId: "zone"})
	if err != nil {
		return err
	}
	created, ok := response.(*client.ProviderHeaders)
	if !ok {
		return nil
	}
	_, err = c.UpdateProvider(ctx, &client.ProviderPatch{
		ConfigJSON: client.NewOptProviderConfigInput(client.ProviderConfigInput{HeaderName: client.NewOptString("X-Ledger-Key")}),
	}, client.UpdateProviderParams{ZoneId: "zone", ID: created.Response.ID})
	return err
}
