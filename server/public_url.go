package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// A PublicURL is the URL under which clients reach the service: absolute, or its path
// only. It has no trailing slash; "" is the address of the service itself.
type PublicURL string

// UnmarshalText reads the setting PUBLIC_URL.
func (p *PublicURL) UnmarshalText(text []byte) error {
	u, err := url.Parse(string(text))
	if err != nil {
		return errors.New("must be a valid URL")
	}
	absolute := (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
	isPath := u.Scheme == "" && u.Host == "" && strings.HasPrefix(u.Path, "/")
	clean := u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" && u.Opaque == "" &&
		strings.TrimSuffix(u.JoinPath().EscapedPath(), "/") == strings.TrimSuffix(u.EscapedPath(), "/")
	if !absolute && !isPath || !clean {
		return errors.New("must be an http or https URL or a path such as /caracal, without user information, query, fragment, and empty or dot segments")
	}
	*p = PublicURL(strings.TrimSuffix(u.String(), "/"))
	return nil
}

// path returns the path, without a trailing slash.
func (p PublicURL) path() string {
	u, err := url.Parse(string(p))
	if err != nil {
		return "" // cannot happen: UnmarshalText has checked it
	}
	return u.EscapedPath()
}

// baseURL returns the URL of the service without a trailing slash: PUBLIC_URL if it is
// absolute, otherwise that of a service on this machine.
func (c *Config) baseURL() string {
	if strings.HasPrefix(string(c.PublicURL), "/") || c.PublicURL == "" {
		return fmt.Sprintf("http://localhost:%d%s", c.Port, c.PublicURL)
	}
	return string(c.PublicURL)
}

// specWithServer returns the OpenAPI document, as YAML, with the public URL as its server.
func specWithServer(document []byte, public PublicURL) ([]byte, error) {
	if public == "" {
		return document, nil
	}
	quoted, err := json.Marshal(string(public))
	if err != nil {
		return nil, err
	}
	const key = `- {url: `
	old := []byte(key + `"/"`)
	if bytes.Count(document, old) != 1 {
		return nil, fmt.Errorf("spec: %s must occur once", old)
	}
	return bytes.Replace(document, old, append([]byte(key), quoted...), 1), nil
}

// jsonSpec returns the OpenAPI document as JSON. This takes a second, so it is done when the
// document is first requested.
func jsonSpec(document []byte) ([]byte, error) {
	spec, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		return nil, err
	}
	return json.Marshal(spec)
}
