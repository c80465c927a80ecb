package authserver

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// assertionType is the client_assertion_type of a JWT (RFC 7523, section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// asserts verifies a client assertion (RFC 7523, section 3): the signature, that the
// client made it for this endpoint, that it expires soon, and that it is used once.
func (s *Server) asserts(client Client, assertion, path string) bool {
	const maxLifetime = 5 * time.Minute
	algorithm := jwa.EdDSA()
	switch key := client.PublicKey.(type) {
	case *rsa.PublicKey:
		algorithm = jwa.RS256()
	case *ecdsa.PublicKey:
		algorithm = map[int]jwa.SignatureAlgorithm{256: jwa.ES256(), 384: jwa.ES384(), 521: jwa.ES512()}[key.Curve.Params().BitSize]
	}
	payload, err := jws.Verify([]byte(assertion), jws.WithKey(algorithm, client.PublicKey))
	if err != nil {
		return false
	}
	message, err := jws.ParseString(assertion)
	if err != nil || len(message.Signatures()) != 1 {
		return false
	}
	if id, _ := message.Signatures()[0].ProtectedHeaders().KeyID(); id != client.KeyID {
		return false
	}
	var claims struct {
		Iss, Sub, Aud, Jti string
		Iat, Exp           int64
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return false
	}
	now := time.Now()
	expires := time.Unix(claims.Exp, 0)
	return claims.Iss == client.ID && claims.Sub == client.ID && claims.Aud == s.URL+path && claims.Jti != "" &&
		now.Before(expires) && expires.Before(now.Add(maxLifetime)) && !time.Unix(claims.Iat, 0).After(now.Add(time.Minute)) && s.useOnce(claims.Jti)
}
