// Package controlkey has the rules of Control keys.
//
// A Control key is a managed application that exchanges its credentials for short-lived
// tokens of the Control API. The traits of the application state what the key is allowed
// to do:
//
//	control:invoke              marks a Control key
//	control:scope:<scope>       one per scope that its tokens can have
//	control:max-ttl:<seconds>   the maximum lifetime of its tokens
//	control:expires:<RFC 3339>  the time from which it gets no tokens
package controlkey

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of the lifetime of a key's tokens.
const (
	MinTTL = time.Minute
	MaxTTL = 15 * time.Minute // also the default
)

// The traits of a Control key, or their prefixes.
const (
	invokeTrait    = "control:invoke"
	scopePrefix    = "control:scope:"
	maxTTLPrefix   = "control:max-ttl:"
	expiresPrefix  = "control:expires:"
	expiresLayout  = "2006-01-02T15:04:05.000Z" // all characters are allowed in a trait
	scopeNamespace = "control:"
)

// commands has the verbs by which commands of the Control API are grouped into scopes.
var commands = []struct {
	name  string
	verbs []string
}{
	{"app", []string{"read", "write", "delete"}},
	{"resource", []string{"read", "write", "delete"}},
	{"identity-provider", []string{"read", "write", "delete"}},
	{"policy", []string{"read", "write", "delete"}},
	{"policy-set", []string{"read", "write", "delete"}},
	{"session", []string{"read"}},
	{"audit", []string{"read"}},
	{"explain", []string{"read"}},
	{"agent", []string{"read", "write", "delete"}},
	{"delegation", []string{"read", "delete"}},
	{"grant", []string{"read", "write", "delete"}},
}

var scopes = func() (all []string) {
	for _, c := range commands {
		for _, verb := range c.verbs {
			all = append(all, scopeNamespace+c.name+":"+verb)
		}
	}
	slices.Sort(all)
	return all
}()

// Scopes returns the scopes that a key can have, sorted.
func Scopes() []string { return slices.Clone(scopes) }

// IsScope reports whether a key can have a scope.
func IsScope(scope string) bool {
	_, found := slices.BinarySearch(scopes, scope)
	return found
}

// A Key is what the traits of a Control key state.
type Key struct {
	Scopes    []string      // sorted
	MaxTTL    time.Duration // of its tokens
	ExpiresAt *time.Time    // when it ceases to get tokens; nil: never
}

// Expired reports whether the key gets no tokens any more.
func (k Key) Expired(now time.Time) bool { return k.ExpiresAt != nil && !now.Before(*k.ExpiresAt) }

// Traits returns the traits of a key.
func (k Key) Traits() []string {
	traits := []string{invokeTrait}
	for _, scope := range k.Scopes {
		traits = append(traits, scopePrefix+scope)
	}
	traits = append(traits, maxTTLPrefix+strconv.Itoa(int(k.MaxTTL/time.Second)))
	if k.ExpiresAt != nil {
		traits = append(traits, expiresPrefix+k.ExpiresAt.UTC().Format(expiresLayout))
	}
	return traits
}

// Parse returns the key that traits describe, and whether they describe one: only if they
// have control:invoke. It returns an error if a trait of a Control key is malformed, even
// if they do not. Without control:max-ttl, tokens have the maximum lifetime.
func Parse(traits []string) (key Key, isKey bool, err error) {
	hasTTL := false
	for _, trait := range traits {
		switch {
		case trait == invokeTrait:
			isKey = true
		case strings.HasPrefix(trait, scopePrefix):
			scope := trait[len(scopePrefix):]
			if !IsScope(scope) {
				return key, false, fmt.Errorf("trait '%s': unknown scope", trait)
			}
			key.Scopes = append(key.Scopes, scope)
		case strings.HasPrefix(trait, maxTTLPrefix):
			ttl, err := parseTTL(trait[len(maxTTLPrefix):])
			if err != nil || hasTTL {
				return key, false, fmt.Errorf("trait '%s': must be given once, with %d to %d seconds", trait, MinTTL/time.Second, MaxTTL/time.Second)
			}
			key.MaxTTL, hasTTL = ttl, true
		case strings.HasPrefix(trait, expiresPrefix):
			at, err := time.Parse(time.RFC3339, trait[len(expiresPrefix):])
			if err != nil || key.ExpiresAt != nil {
				return key, false, fmt.Errorf("trait '%s': must be given once, with a date-time according to RFC 3339", trait)
			}
			key.ExpiresAt = &at
		}
	}
	if !hasTTL {
		key.MaxTTL = MaxTTL
	}
	slices.Sort(key.Scopes)
	return key, isKey, nil
}

func parseTTL(text string) (time.Duration, error) {
	seconds, err := strconv.ParseInt(text, 10, 32)
	ttl := time.Duration(seconds) * time.Second
	if err != nil || ttl < MinTTL || ttl > MaxTTL || strconv.FormatInt(seconds, 10) != text {
		return 0, fmt.Errorf("%q is not a number of seconds in the allowed range", text)
	}
	return ttl, nil
}
