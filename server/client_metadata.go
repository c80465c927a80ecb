package server

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/store"
)

// clientMetadata applies the defaults of RFC 7591, section 2, to the metadata of a client,
// and checks what its schema cannot express. It returns invalid_client_metadata or
// invalid_redirect_uri.
func clientMetadata(m *api.ClientMetadata) (store.ClientMetadata, error) {
	const unnamed = "Unnamed client"
	c := store.ClientMetadata{
		Name:                    valueOr(m.ClientName, unnamed),
		RedirectURIs:            m.RedirectUris,
		GrantTypes:              stringsOf(m.GrantTypes),
		ResponseTypes:           stringsOf(m.ResponseTypes),
		TokenEndpointAuthMethod: string(valueOr(m.TokenEndpointAuthMethod, api.ClientAuthMethodClientSecretBasic)),
		Scope:                   valueOr(m.Scope, ""),
		ClientURI:               valueOr(m.ClientURI, ""),
		LogoURI:                 valueOr(m.LogoURI, ""),
		Contacts:                m.Contacts,
		TosURI:                  valueOr(m.TosURI, ""),
		PolicyURI:               valueOr(m.PolicyURI, ""),
		SoftwareID:              valueOr(m.SoftwareID, ""),
		SoftwareVersion:         valueOr(m.SoftwareVersion, ""),
	}
	if len(c.GrantTypes) == 0 {
		c.GrantTypes = []string{"authorization_code"}
	}
	hasCode := slices.Contains(c.GrantTypes, "authorization_code")
	if len(c.ResponseTypes) == 0 && hasCode {
		c.ResponseTypes = []string{"code"}
	}
	switch {
	case len(c.ResponseTypes) > 0 && !hasCode:
		return c, code.InvalidClientMetadata.At("must not contain code without the grant type authorization_code", "response_types")
	case c.TokenEndpointAuthMethod == "none" && slices.Contains(c.GrantTypes, "client_credentials"):
		return c, code.InvalidClientMetadata.At("must not be none with the grant type client_credentials", "token_endpoint_auth_method")
	case c.TokenEndpointAuthMethod == "private_key_jwt" && m.Jwks == nil:
		return c, code.InvalidClientMetadata.At("is required for private_key_jwt", "jwks")
	}
	if m.Jwks != nil {
		if problem := publicKeysProblem(*m.Jwks); problem != "" {
			return c, code.InvalidClientMetadata.At(problem, "jwks")
		}
		c.JWKS = *m.Jwks
	}
	if hasCode && len(c.RedirectURIs) == 0 {
		return c, code.InvalidRedirectUri.At("is required for the grant type authorization_code", "redirect_uris")
	}
	for i, uri := range c.RedirectURIs {
		if problem := redirectURIProblem(uri); problem != "" {
			return c, code.InvalidRedirectUri.At(problem, "redirect_uris", strconv.Itoa(i))
		}
	}
	return c, nil
}

func stringsOf[T ~string](values []T) []string {
	return mapSlice(values, func(v T) string { return string(v) })
}

// publicKeysProblem says why a text is not a set of public keys; "" if it is one.
func publicKeysProblem(text json.RawMessage) string {
	const maxKeys, maxBytes = 10, 16 << 10
	if len(text) > maxBytes {
		return "must have at most 16 KiB"
	}
	keys, err := jwk.Parse(text)
	switch {
	case err != nil || keys.Len() == 0:
		return "must be a JSON Web Key Set with at least one valid key"
	case keys.Len() > maxKeys:
		return "must have at most 10 keys"
	}
	for i := range keys.Len() {
		key, _ := keys.Key(i)
		if private, err := jwk.IsPrivateKey(key); err != nil || private {
			return "must contain only public keys of asymmetric algorithms"
		}
	}
	return ""
}

// otherSchemes are the schemes that browsers handle themselves, or with other programs
// than the client. No client can receive a response with them.
var otherSchemes = []string{
	"about", "blob", "chrome", "data", "feed", "file", "filesystem", "ftp", "ftps", "geo", "intent", "jar", "javascript", "magnet",
	"mailto", "resource", "sms", "ssh", "tel", "urn", "vbscript", "view-source", "ws", "wss",
}

// redirectURIProblem says why an authorization code cannot be sent to a URI; "" if it can.
// Native apps use the loopback interface or a scheme of their own (RFC 8252, section 7). The
// schemes of widespread apps, such as cursor and vscode, are not reversed domain names.
func redirectURIProblem(text string) string {
	const general = "must be an https URL, an http URL of the loopback interface, or a URI with a scheme of a native app"
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme == "" || strings.ContainsAny(text, " \t\r\n\\*"):
		return general
	case strings.Contains(text, "#"):
		return "must not contain a fragment" // RFC 6749, section 3.1.2
	case u.User != nil:
		return "must not contain a user name or password"
	case u.Scheme == "https" && u.Hostname() != "":
		return ""
	case u.Scheme == "https" || slices.Contains(otherSchemes, u.Scheme):
		return general
	case u.Scheme != "http":
		if u.Host == "" && u.Path == "" && u.Opaque == "" {
			return general
		}
		return ""
	}
	if host := u.Hostname(); host != "localhost" {
		if address, err := netip.ParseAddr(host); err != nil || !address.IsLoopback() {
			return "must use https, because it is not a URL of the loopback interface"
		}
	}
	return ""
}
