package provider

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"net/http"
	"net/url"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// assertionType is the client_assertion_type of a JWT (RFC 7523, section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertionLifetime is the lifetime of a client assertion. The clocks of the two
// servers may differ by nearly as much.
const assertionLifetime = time.Minute

// authenticate adds the client authentication to a token request (RFC 6749, section
// 2.3).
func authenticate(config Config, c oauthConfig, params url.Values, header http.Header) error {
	id := map[string]string{"client_id": c.ClientID}
	switch c.ClientAuthMethod {
	case "none":
		setNamed(params, c.TokenParamNames, id)
		return nil
	case "private_key_jwt":
		assertion, err := clientAssertion(config, c)
		if err != nil {
			return err
		}
		setNamed(params, c.TokenParamNames, id) // optional (RFC 7521, section 4.2), but some servers require it
		params.Set("client_assertion_type", assertionType)
		params.Set("client_assertion", assertion)
		return nil
	}
	clientSecret, err := config.secret("client_secret")
	if err != nil {
		return err
	}
	switch c.ClientAuthMethod {
	case "", "client_secret_basic":
		header.Set("Authorization", "Basic "+basic(c.ClientID, clientSecret.Reveal()))
	case "client_secret_post":
		setNamed(params, c.TokenParamNames, id)
		setNamed(params, c.TokenParamNames, map[string]string{"client_secret": clientSecret.Reveal()})
	default:
		return &ExchangeError{Kind: ConfigInvalid, Detail: "The configuration of the provider has an unknown client_auth_method."}
	}
	return nil
}

// basic returns Basic credentials, of which each part is form-encoded first (RFC 6749,
// section 2.3.1): otherwise, a colon in the client ID would end it.
func basic(id, clientSecret string) string {
	return base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id) + ":" + url.QueryEscape(clientSecret)))
}

// clientAssertion returns a JWT with which the client authenticates at the token
// endpoint, once (RFC 7523, sections 2.2 and 3).
func clientAssertion(config Config, c oauthConfig) (string, error) {
	text, err := config.secret("private_key")
	if err != nil {
		return "", err
	}
	key, ok := parsePrivateKey(text.Reveal())
	algorithm, known := signatureAlgorithm(key)
	if !ok || !known {
		return "", &ExchangeError{Kind: ConfigInvalid, Detail: "The stored private_key of the provider cannot sign client assertions."}
	}
	now := time.Now()
	claims := encode(map[string]any{
		"iss": c.ClientID, "sub": c.ClientID, "aud": c.TokenEndpoint, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(assertionLifetime).Unix(),
	})
	header := jws.NewHeaders()
	err = header.Set(jws.TypeKey, "JWT")
	if err == nil && c.KeyID != "" {
		err = header.Set(jws.KeyIDKey, c.KeyID)
	}
	if err != nil {
		return "", err
	}
	signed, err := jws.Sign(claims, jws.WithKey(algorithm, key, jws.WithProtectedHeaders(header)))
	return string(signed), err
}

// signatureAlgorithm returns the algorithm of a key (RFC 7518, section 3.1; RFC 8037).
func signatureAlgorithm(key crypto.Signer) (jwa.SignatureAlgorithm, bool) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return jwa.RS256(), true
	case ed25519.PrivateKey:
		return jwa.EdDSA(), true
	case *ecdsa.PrivateKey:
		switch k.Curve {
		case elliptic.P256():
			return jwa.ES256(), true
		case elliptic.P384():
			return jwa.ES384(), true
		case elliptic.P521():
			return jwa.ES512(), true
		}
	}
	return jwa.NoSignature(), false
}
