package provider

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"caracal.run/management/server/egress"
	"caracal.run/management/server/weburl"
)

// A DiscoveryError reports why no configuration was discovered.
type DiscoveryError struct {
	Detail string // a sentence for the operator, without internal addresses
	Cause  error  // for the log only
}

func (e *DiscoveryError) Error() string { return e.Detail }

// Unwrap returns the cause.
func (e *DiscoveryError) Unwrap() error { return e.Cause }

// Discover returns what the metadata of a resource, such as an MCP server, and of its
// first authorization server say about the configuration of the kind
// oauth2_authorization_code: all required fields but client_id and redirect_uri. It
// stores nothing and sends no secret. The operator decides whether to trust the hosts
// that the metadata names: package egress requests public addresses only.
//
// The error is a [*DiscoveryError].
func Discover(ctx context.Context, client *egress.Client, resource string) (json.RawMessage, error) {
	u, err := weburl.Parse(resource)
	if err != nil || u.Scheme != "https" || u.User != nil || strings.Contains(resource, "#") {
		return nil, &DiscoveryError{Detail: "The resource must be an https URL without a user name, password or fragment."}
	}
	r, err := firstDocument(ctx, client, wellKnown(u, "oauth-protected-resource"))
	if err != nil {
		return nil, err
	}
	if named, _ := jsonText(r["resource"]); named != resource { // RFC 9728, section 3.3
		return nil, &DiscoveryError{Detail: "The metadata is of another resource."}
	}
	servers := jsonTexts(r["authorization_servers"])
	if len(servers) == 0 {
		return nil, &DiscoveryError{Detail: "The metadata of the resource names no authorization server."}
	}
	issuer := servers[0]
	at, err := weburl.Parse(issuer)
	if err != nil || at.Scheme != "https" || at.User != nil || strings.ContainsAny(issuer, "?#") {
		return nil, &DiscoveryError{Detail: "The issuer in the metadata of the resource is not an https URL."}
	}
	// The last one is for servers that have OpenID Connect metadata only.
	documents := append(wellKnown(at, "oauth-authorization-server")[:1], strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	s, err := firstDocument(ctx, client, documents)
	if err != nil {
		return nil, err
	}
	if named, _ := jsonText(s["issuer"]); named != issuer { // RFC 8414, section 3.3
		return nil, &DiscoveryError{Detail: "The metadata is of another authorization server."}
	}
	if !slices.Contains(jsonTexts(s["code_challenge_methods_supported"]), "S256") {
		return nil, &DiscoveryError{Detail: "The authorization server does not support PKCE with S256."}
	}
	return discovered(r, s)
}

// wellKnown returns the URLs of the metadata about a URL: with its path and, for servers
// that have one document for all paths, without it.
func wellKnown(u *url.URL, name string) []string {
	root := url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/.well-known/" + name}
	withPath := root
	if path := strings.TrimSuffix(u.Path, "/"); path != "" {
		withPath.Path += path
	}
	withPath.RawQuery = u.RawQuery
	if withPath == root {
		return []string{root.String()}
	}
	return []string{withPath.String(), root.String()}
}

// firstDocument reads the first of some JSON documents that exists.
func firstDocument(ctx context.Context, client *egress.Client, urls []string) (map[string]json.RawMessage, error) {
	for _, at := range urls {
		u, err := url.Parse(at)
		if err != nil {
			return nil, &DiscoveryError{Detail: "The URL of the metadata is malformed.", Cause: err}
		}
		response, err := client.Do(ctx, egress.Request{
			Method: http.MethodGet, URL: at, AllowedHosts: []string{u.Hostname()}, Header: http.Header{"Accept": {"application/json"}},
		})
		var failure *egress.Error
		switch {
		case errors.As(err, &failure):
			return nil, &DiscoveryError{Detail: failure.Detail(), Cause: err}
		case err != nil:
			return nil, &DiscoveryError{Detail: "The metadata cannot be read.", Cause: err}
		case response.Status != http.StatusOK:
			continue
		}
		fields, ok := jsonObject(response.Body)
		if !ok {
			return nil, &DiscoveryError{Detail: "The metadata is not a JSON object without repeated fields."}
		}
		return fields, nil
	}
	return nil, &DiscoveryError{Detail: "The server has no metadata."}
}

// jsonTexts returns the strings of a JSON list, or nil if it is none.
func jsonTexts(value json.RawMessage) (texts []string) {
	_ = json.Unmarshal(value, &texts)
	return texts
}

// discovered returns the configuration, of fields that the rules of the kind accept.
func discovered(resource, server map[string]json.RawMessage) (json.RawMessage, error) {
	text := func(name string) string {
		s, _ := jsonText(server[name])
		return s
	}
	token, err := url.Parse(text("token_endpoint"))
	if err != nil {
		return nil, &DiscoveryError{Detail: "The token endpoint in the metadata is malformed."}
	}
	methods := jsonTexts(server["token_endpoint_auth_methods_supported"])
	if len(methods) == 0 {
		methods = []string{"client_secret_basic"} // RFC 8414, section 2
	}
	supported := slices.DeleteFunc(methods, func(method string) bool {
		return !slices.Contains([]string{"client_secret_basic", "client_secret_post", "private_key_jwt", "none"}, method)
	})
	if len(supported) == 0 {
		return nil, &DiscoveryError{Detail: "The authorization server supports no known client authentication."}
	}
	identifier, _ := jsonText(resource["resource"])
	fields := map[string]any{
		"authorization_endpoint": text("authorization_endpoint"), "token_endpoint": text("token_endpoint"), "allowed_token_hosts": []any{strings.ToLower(token.Hostname())},
		"client_auth_method": supported[0], "issuer": text("issuer"), "resource": identifier,
	}
	var scopes []any
	for _, scope := range jsonTexts(resource["scopes_supported"]) {
		scopes = append(scopes, scope)
	}
	if scopes != nil {
		fields["scopes"] = scopes
	}
	v := &validation{kind: AuthorizationCode, values: fields}
	for _, r := range AuthorizationCode.rules() {
		if _, present := fields[r.key]; present && r.applies(fields) && !r.accepts(fields, nil) {
			return nil, &DiscoveryError{Detail: "The metadata is invalid: " + v.newError(r).Error() + "."}
		}
	}
	return encode(fields), nil
}
