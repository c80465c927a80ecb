package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// A ResourceOperation is what a resource offers under one of its scopes.
type ResourceOperation struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Scope  string `json:"scope"`
}

// Operations are a stored resource's.
func Operations(r db.Resource) ([]ResourceOperation, error) {
	operations := []ResourceOperation{}
	err := json.Unmarshal(r.Operations, &operations)
	return operations, err
}

// normalizeOperations writes methods in upper case and takes the white space off,
// or says what is wrong with the first that is wrong.
func normalizeOperations(operations []ResourceOperation, scopes []string) ([]ResourceOperation, error) {
	const maxSize = 64 << 10 // bytes: a list shows hundreds of resources
	normalized := make([]ResourceOperation, 0, len(operations))
	seen, known, size := map[string]bool{}, map[string]bool{}, 0
	for _, scope := range scopes {
		known[scope] = true
		size += len(scope)
	}
	for _, o := range operations {
		o.Method = strings.ToUpper(strings.TrimFunc(o.Method, IsSpace))
		o.Path = strings.TrimFunc(o.Path, IsSpace)
		switch {
		case o.Method == "" || o.Path == "":
			return nil, code.OperationMethodAndPathRequired
		case !strings.HasPrefix(o.Path, "/"):
			return nil, code.OperationPathMustBeAbsolute
		case !known[o.Scope]:
			return nil, code.OperationScopeNotInResourceScopes
		case seen[o.Method+" "+o.Path]:
			return nil, code.OperationDuplicate
		}
		seen[o.Method+" "+o.Path] = true
		normalized = append(normalized, o)
		size += len(o.Method) + len(o.Path) + len(o.Scope)
	}
	if size > maxSize {
		return nil, code.InvalidResource.At(fmt.Sprintf("are, with the operations, larger than %d bytes", maxSize), "scopes")
	}
	return normalized, nil
}

// checkAudience refuses an identifier that no token can be for.
func checkAudience(identifier, control string) error {
	const message = "resource identifier must be an absolute resource audience URI and must not use the provider:// namespace"
	u, err := parseURL(identifier)
	if identifier == control || err == nil && u.IsAbs() && u.Scheme != "provider" && u.User == nil {
		return nil
	}
	return &code.Error{
		Code: code.InvalidResourceIdentifier, Fields: map[string]any{"message": message},
		Issues: []code.Issue{{Path: []string{"identifier"}, Message: message}},
	}
}

// checkUpstream refuses what no gateway can send a request to.
func checkUpstream(upstream *string) error {
	if upstream == nil {
		return nil
	}
	u, err := parseURL(*upstream)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return code.InvalidResource.At("is not an http or https URL with a host", "upstream_url")
	}
	return nil
}

// redactURL is a URL without whom it goes in as: a password may stand there.
func redactURL(text *string) *string {
	if text == nil {
		return nil
	}
	u, err := url.Parse(*text)
	if err != nil || u.User == nil {
		return text
	}
	u.User = nil
	return new(u.String())
}

// parseURL refuses what only looks like a web address. Others find a host, and a
// user, where [url.Parse] finds none: in "https:user@host".
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return u, err
	}
	if u.Hostname() == "" {
		return nil, errors.New("it has no host")
	}
	if port := u.Port(); port != "" {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	return u, err
}

// resourceBase is the identifier that a name suggests.
func resourceBase(name string) string {
	const scheme = "resource://"
	if name = strings.TrimFunc(name, IsSpace); strings.HasPrefix(name, scheme) {
		return name
	}
	return scheme + slugOf(name, "resource")
}
