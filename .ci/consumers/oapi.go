// Package oapi creates and updates a provider with the client of oapi-codegen.
package oapi

import (
	"context"

	"consumers/oapi/client"
)

func use(ctx context.Context, c *client.ClientWithResponses) error {
	name, header, key := "Ledger", "X-Api-Key", "example"
	var body client.NewProvider
	if err := body.FromNewAPIKeyProvider(client.NewAPIKeyProvider{
		Name: &name, Kind: "api_key", ConfigJson: &client.APIKeyProviderConfig{HeaderName: &header, ApiKey: &key},
	}); err != nil {
		return err
	}
	created, err := c.CreateProviderWithResponse(ctx, "zone", nil, body)
	if err != nil || created.JSON201 == nil {
		return err
	}
	_, err = c.UpdateProviderWithResponse(ctx, "zone", created.JSON201.Id, nil,
		client.ProviderPatch{ConfigJson: &client.ProviderConfigInput{HeaderName: &header}})
	return err
}
