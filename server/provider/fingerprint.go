package provider

import (
	"crypto/sha256"
	"encoding/base64"
)

// Fingerprint identifies where a configuration has users authorize access and codes
// exchanged: its endpoints, client, redirect URI and issuer. A code that was issued for one
// fingerprint must not be exchanged with another. The error is an [*ExchangeError] of
// kind [ConfigInvalid].
func (c Config) Fingerprint() (string, error) {
	o, err := c.oauth()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(encode([]string{o.AuthorizationEndpoint, o.TokenEndpoint, o.ClientID, o.RedirectURI, o.Issuer}))
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}
