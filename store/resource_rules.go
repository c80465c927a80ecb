package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// A ResourceOperation maps an HTTP method and path of a resource to the scope that
// it requires.
type ResourceOperation struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Scope  string `json:"scope"`
}

// Operations decodes the operations of a stored resource.
func Operations(r db.Resource) ([]ResourceOperation, error) {
	operations := []ResourceOperation{}
	err := json.Unmarshal(r.Operations, &operations)
	return operations, err
}

// httpMethod matches the methods that HTTP allows: tokens (RFC 9110, section 5.6.2).
var httpMethod = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Z-]+$")

// NormalizeOperations trims methods and paths and converts methods to upper case. It
// returns the code of the first rule that an operation violates, or
// invalid_resource if scopes and operations are too large together.
func NormalizeOperations(operations []ResourceOperation, scopes []string) ([]ResourceOperation, error) {
	const maxSize = 64 << 10 // bytes; a list page contains hundreds of resources
	normalized := make([]ResourceOperation, 0, len(operations))
	seen, isScope, size := map[string]bool{}, map[string]bool{}, 0
	for _, scope := range scopes {
		isScope[scope] = true
		size += len(scope)
	}
	for i, o := range operations {
		o.Method = strings.ToUpper(strings.TrimFunc(o.Method, IsSpace))
		o.Path = strings.TrimFunc(o.Path, IsSpace)
		switch {
		case o.Method == "" || o.Path == "":
			return nil, code.OperationMethodAndPathRequired
		case !strings.HasPrefix(o.Path, "/"):
			return nil, code.OperationPathMustBeAbsolute
		case !httpMethod.MatchString(o.Method):
			return nil, code.InvalidResource.At("must be an HTTP method", "operations", strconv.Itoa(i), "method")
		case strings.ContainsAny(o.Path, "?#") || strings.ContainsFunc(o.Path, unicode.IsControl):
			return nil, code.InvalidResource.At("must be a path without query, fragment and control characters", "operations", strconv.Itoa(i), "path")
		case !isScope[o.Scope]:
			return nil, code.OperationScopeNotInResourceScopes
		case seen[o.Method+" "+o.Path]:
			return nil, code.OperationDuplicate
		}
		seen[o.Method+" "+o.Path] = true
		normalized = append(normalized, o)
		size += len(o.Method) + len(o.Path) + len(o.Scope)
	}
	if size > maxSize {
		return nil, code.InvalidResource.At(fmt.Sprintf("must be at most %d bytes together with the operations", maxSize), "scopes")
	}
	return normalized, nil
}

// checkAudience returns invalid_resource_identifier if an identifier cannot be the
// audience of a token: it must be an absolute URI without userinfo and invisible
// characters whose scheme is not provider, or the control resource's identifier.
func checkAudience(identifier, control string) error {
	const message = "resource identifier must be an absolute resource audience URI and must not use the provider:// namespace"
	u, err := parseURL(identifier)
	hidden := func(r rune) bool { return r != ' ' && isInvisible(r) }
	if identifier == control || err == nil && u.IsAbs() && u.Scheme != "provider" && u.User == nil && !strings.ContainsFunc(identifier, hidden) {
		return nil
	}
	return &code.Error{
		Code: code.InvalidResourceIdentifier, Fields: map[string]any{"message": message},
		Issues: []code.Issue{{Path: []string{"identifier"}, Message: message}},
	}
}

// redactURL removes the userinfo, which can contain a password, from a URL.
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

// parseURL parses a URL and requires a host and a valid port if the scheme is http
// or https. [url.Parse] accepts "https:user@host" without a host; other parsers
// find a host and a user in it.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return u, err
	}
	if u.Hostname() == "" {
		return nil, errors.New("URL has no host")
	}
	if port := u.Port(); port != "" {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	return u, err
}

// resourceBase returns the identifier that is generated from a name.
func resourceBase(name string) string {
	const scheme = "resource://"
	if name = strings.TrimFunc(name, IsSpace); strings.HasPrefix(name, scheme) {
		return name
	}
	return scheme + slugOf(name, "resource")
}
