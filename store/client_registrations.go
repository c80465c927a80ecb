package store

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// ClientMetadata is what a registered client says about itself (RFC 7591, section 2).
type ClientMetadata struct {
	Name                    string          `json:"-"` // the name of its application
	JWKS                    json.RawMessage `json:"-"` // the public keys of its application; nil: none
	RedirectURIs            []string        `json:"redirect_uris,omitempty"`
	GrantTypes              []string        `json:"grant_types"`
	ResponseTypes           []string        `json:"response_types"`
	TokenEndpointAuthMethod string          `json:"token_endpoint_auth_method"`
	Scope                   string          `json:"scope,omitempty"`
	ClientURI               string          `json:"client_uri,omitempty"`
	LogoURI                 string          `json:"logo_uri,omitempty"`
	Contacts                []string        `json:"contacts,omitempty"`
	TosURI                  string          `json:"tos_uri,omitempty"`
	PolicyURI               string          `json:"policy_uri,omitempty"`
	SoftwareID              string          `json:"software_id,omitempty"`
	SoftwareVersion         string          `json:"software_version,omitempty"`
}

// HasSecret reports whether the client authenticates with a client secret.
func (m ClientMetadata) HasSecret() bool {
	return m.TokenEndpointAuthMethod == "client_secret_basic" || m.TokenEndpointAuthMethod == "client_secret_post"
}

// A RegisteredClient is a registered application that has described itself.
type RegisteredClient struct {
	Application
	Metadata ClientMetadata
	Secret   string // a new client secret; "" if there is none
}

// RegisterClient registers a client, like RegisterApplication, with a registration token.
// Without a token (""), the zone must allow that. It returns the client and its
// registration access token. The errors are those of RegisterApplication, and
// invalid_registration_token.
func (tx *Tx) RegisterClient(ctx context.Context, zone, token string, m ClientMetadata, lifetime int64) (RegisteredClient, string, error) {
	client := RegisteredClient{Metadata: m}
	if err := tx.checkReservedName(ApplicationName, m.Name); err != nil {
		return client, "", err
	}
	z, err := tx.lockZone(ctx, zone, shared)
	if err != nil {
		return client, "", err
	}
	if err := tx.useRegistrationToken(ctx, z, token); err != nil {
		return client, "", err
	}
	if err := tx.checkRegistration(ctx, z); err != nil {
		return client, "", err
	}
	anonymous := token == ""
	if anonymous {
		if err := tx.checkAnonymousRegistration(ctx, zone); err != nil {
			return client, "", err
		}
	}
	client.Application.Application, err = tx.q.InsertApplication(ctx, db.InsertApplicationParams{
		ZoneID: zone, ID: newID(), Name: m.Name, RegistrationMethod: dcr, Traits: []string{}, ExpiresIn: &lifetime,
	})
	if err != nil {
		return client, "", err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return client, "", err
	}
	accessToken := newSecret("rat_")
	deferred := db.New(deferredConn{tx.conn})
	err = deferred.InsertClientRegistration(ctx, db.InsertClientRegistrationParams{ZoneID: zone, ApplicationID: client.ID, TokenSHA256: digestOf(accessToken), Metadata: text, Anonymous: anonymous})
	if err == nil && m.HasSecret() {
		client.Secret = newSecret("cs_")
		err = tx.addSecret(ctx, zone, client.ID, newID(), hashGenerated(client.Secret))
	}
	if err == nil {
		err = deferred.UpdateRegisteredApplication(ctx, db.UpdateRegisteredApplicationParams{ZoneID: zone, ID: client.ID, Name: m.Name, Jwks: m.JWKS})
	}
	if err != nil {
		return client, "", err
	}
	if client.Application, err = getApplication(ctx, tx.q, zone, client.ID); err != nil {
		return client, "", err
	}
	client.Metadata = m
	client.Client = &client.Metadata
	tx.recordApplication(nil, client.Application, false)
	return client, accessToken, nil
}

// checkAnonymousRegistration returns dcr_limit_exceeded if too many active clients of a
// zone, whose row is locked, registered without a token: they must leave room for others.
func (tx *Tx) checkAnonymousRegistration(ctx context.Context, zone string) error {
	const maxActive = 250
	active, err := tx.q.CountActiveAnonymousRegistrations(ctx, zone)
	if err == nil && active >= maxActive {
		return code.DCRLimitExceeded.Saying("The zone has reached its limit of 250 active clients that registered without a token. Use a registration token, or retry when one of them has expired.")
	}
	return err
}

// RegisteredClient returns a client that has not expired. It returns invalid_registration_token if
// there is none, or if the token is not its registration access token.
func (s *Store) RegisteredClient(ctx context.Context, zone, id, token string) (RegisteredClient, error) {
	row, err := s.shared.GetClientRegistration(ctx, db.GetClientRegistrationParams{ZoneID: zone, ApplicationID: id})
	if errors.Is(err, pgx.ErrNoRows) || err == nil && subtle.ConstantTimeCompare(row.TokenSHA256, digestOf(token)) == 0 {
		return RegisteredClient{}, code.InvalidRegistrationToken
	}
	if err != nil {
		return RegisteredClient{}, err
	}
	return registeredClient(row)
}

func registeredClient(row db.GetClientRegistrationRow) (RegisteredClient, error) {
	c := RegisteredClient{Application: Application{Application: row.Application}}
	if err := json.Unmarshal(row.Metadata, &c.Metadata); err != nil {
		return c, err
	}
	c.Metadata.Name, c.Metadata.JWKS = row.Application.Name, row.Application.Jwks
	return c, nil
}

// UpdateRegisteredClient replaces the metadata of a client. A client that did not
// authenticate with a secret and now does gets one; if it no longer does, its secrets are
// deleted. The errors are application_not_found, trait_forbidden, reserved_namespace and
// those of the zone.
func (tx *Tx) UpdateRegisteredClient(ctx context.Context, zone, id string, m ClientMetadata) (RegisteredClient, error) {
	if err := tx.checkReservedName(ApplicationName, m.Name); err != nil {
		return RegisteredClient{}, err
	}
	before, err := tx.lockApplication(ctx, zone, id, shared, Precondition{})
	if err != nil {
		return RegisteredClient{}, err
	}
	row, err := tx.q.GetClientRegistration(ctx, db.GetClientRegistrationParams{ZoneID: zone, ApplicationID: id})
	if err != nil {
		return RegisteredClient{}, notFoundAs(err, code.ApplicationNotFound)
	}
	client, err := registeredClient(row)
	if err != nil {
		return client, err
	}
	before.Client = &client.Metadata
	text, err := json.Marshal(m)
	if err != nil {
		return client, err
	}
	deferred := db.New(deferredConn{tx.conn})
	err = errors.Join(
		deferred.UpdateRegisteredApplication(ctx, db.UpdateRegisteredApplicationParams{ZoneID: zone, ID: id, Name: m.Name, Jwks: m.JWKS}),
		deferred.UpdateClientRegistration(ctx, db.UpdateClientRegistrationParams{ZoneID: zone, ApplicationID: id, Metadata: text}),
	)
	after := RegisteredClient{Metadata: m}
	switch {
	case err != nil:
	case !m.HasSecret():
		err = deferred.DeleteApplicationSecrets(ctx, db.DeleteApplicationSecretsParams{ZoneID: zone, ApplicationIds: []string{id}})
	case len(before.Secrets) == 0:
		after.Secret = newSecret("cs_")
		err = tx.addSecret(ctx, zone, id, newID(), hashGenerated(after.Secret))
	}
	if err != nil {
		return after, err
	}
	if after.Application, err = getApplication(ctx, tx.q, zone, id); err != nil {
		return after, err
	}
	after.Client = &after.Metadata
	tx.recordApplication(&before, after.Application, after.Secret != "")
	return after, nil
}
