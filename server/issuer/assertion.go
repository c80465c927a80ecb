package issuer

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"slices"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// AssertionType is the client_assertion_type of a JSON Web Token (RFC 7523, section 2.2).
const AssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// maxAssertionLifetime is how far ahead the expiry of an assertion can be. Its ID is
// remembered until then.
const maxAssertionLifetime = 5 * time.Minute

// An Assertion is a verified client assertion. It must be used only once.
type Assertion struct {
	ID        string
	ExpiresAt time.Time // until when it is accepted
}

type assertionClaims struct {
	Issuer    string    `json:"iss"`
	Subject   string    `json:"sub"`
	Audience  texts     `json:"aud"`
	ExpiresAt *unixTime `json:"exp"`
	NotBefore *unixTime `json:"nbf"`
	IssuedAt  *unixTime `json:"iat"`
	ID        string    `json:"jti"`
}

// AssertionAlgorithms returns the algorithms with which assertions can be signed.
func AssertionAlgorithms() []string { return []string{"ES256", "RS256", "PS256", "EdDSA"} }

// AssertionClient returns the ID of the client that made an assertion, which is not
// verified, or "" if the assertion is malformed.
func AssertionClient(assertion string) string {
	c, _, err := decode[assertionClaims](assertion)
	if err != nil {
		return ""
	}
	return c.Subject
}

// VerifyAssertion verifies an assertion with which a client authenticates (RFC 7523,
// section 3). keys is the JSON Web Key Set with the public keys of the client. The
// assertion must be for one of the audiences. The error wraps [ErrInvalid] and says why.
func VerifyAssertion(assertion, client string, keys []byte, audiences []string, now time.Time) (Assertion, error) {
	const maxID = 256
	c, header, err := decode[assertionClaims](assertion)
	if err != nil {
		return Assertion{}, invalid("malformed")
	}
	if header.Critical != nil {
		return Assertion{}, invalid("unknown critical header")
	}
	if reason := verifySignature(assertion, header, keys); reason != "" {
		return Assertion{}, invalid(reason)
	}
	switch {
	case c.Issuer != client || c.Subject != client:
		return Assertion{}, invalid("wrong client")
	case !slices.ContainsFunc(audiences, func(a string) bool { return slices.Contains(c.Audience, a) }):
		return Assertion{}, invalid("wrong audience")
	case c.ID == "" || len(c.ID) > maxID || c.ExpiresAt == nil:
		return Assertion{}, invalid("missing claim")
	case !now.Before(c.ExpiresAt.time().Add(leeway)):
		return Assertion{}, invalid("expired")
	case c.ExpiresAt.time().After(now.Add(maxAssertionLifetime + leeway)):
		return Assertion{}, invalid("expires too late")
	}
	for _, from := range []*unixTime{c.IssuedAt, c.NotBefore} {
		if from != nil && from.time().After(now.Add(leeway)) {
			return Assertion{}, invalid("not yet valid")
		}
	}
	return Assertion{ID: c.ID, ExpiresAt: c.ExpiresAt.time().Add(leeway)}, nil
}

// verifySignature returns why no key of a set has signed an assertion, or "".
func verifySignature(assertion string, header tokenHeader, keys []byte) (reason string) {
	algorithm, known := assertionAlgorithms[header.Algorithm]
	if !known {
		return "wrong algorithm"
	}
	set, err := jwk.Parse(keys)
	if err != nil {
		return "the keys of the client are malformed"
	}
	reason = "unknown key"
	for i := range set.Len() {
		key, _ := set.Key(i)
		id, _ := key.KeyID()
		if header.KeyID != "" && id != header.KeyID || !fits(key, header.Algorithm) {
			continue
		}
		var public any
		if jwk.Export(key, &public) != nil || !algorithm.accepts(public) {
			continue
		}
		if _, err := jws.Verify([]byte(assertion), jws.WithCompact(), jws.WithKey(algorithm.SignatureAlgorithm, public)); err == nil {
			return ""
		}
		reason = "wrong signature"
	}
	return reason
}

// fits reports whether a key is meant for signatures with an algorithm (RFC 7517, sections
// 4.2 and 4.4).
func fits(key jwk.Key, algorithm string) bool {
	use, hasUse := key.KeyUsage()
	declared, hasAlgorithm := key.Algorithm()
	return (!hasUse || use == "sig") && (!hasAlgorithm || declared.String() == algorithm)
}

// An assertionAlgorithm is an algorithm, and which public keys it accepts.
type assertionAlgorithm struct {
	jwa.SignatureAlgorithm
	accepts func(public any) bool
}

var assertionAlgorithms = map[string]assertionAlgorithm{
	"ES256": {jwa.ES256(), isP256},
	"RS256": {jwa.RS256(), isRSA},
	"PS256": {jwa.PS256(), isRSA},
	"EdDSA": {jwa.EdDSA(), isEd25519},
}

func isP256(public any) bool {
	key, ok := public.(*ecdsa.PublicKey)
	return ok && key.Curve == elliptic.P256()
}

// isRSA accepts keys of the lengths that RFC 7518 (section 3.3) allows, and that are not so
// long that verification is slow.
func isRSA(public any) bool {
	const minBits, maxBits = 2048, 4096
	key, ok := public.(*rsa.PublicKey)
	return ok && key.N.BitLen() >= minBits && key.N.BitLen() <= maxBits
}

func isEd25519(public any) bool {
	_, ok := public.(ed25519.PublicKey)
	return ok
}
