package secret

import (
	"slices"
	"strings"
)

// names are the names that call a value a secret: those that the audit log redacts, and
// names under which many services accept a secret in a URL or a form.
var names = map[string]bool{
	"access_key": true, "api_key": true, "apikey": true, "assertion": true, "authorization": true, "cookie": true, "key": true,
	"pass": true, "passphrase": true, "passwd": true, "password": true, "private_key": true, "pwd": true, "secret": true,
	"secret_key": true, "session": true, "session_id": true, "set_cookie": true, "sig": true, "signature": true,
	"subscription_key": true, "token": true,
}

// suffixes are the names that call a value a secret after any other words, too, as in
// subject_token. A plain key does not: a public_key or a partition_key is no secret.
var suffixes = []string{
	"_access_key", "_api_key", "_apikey", "_passphrase", "_password", "_private_key", "_secret", "_secret_key", "_signature", "_subscription_key", "_token",
}

// IsName reports whether a name, such as that of a parameter, says that its value is a
// secret. It ignores case, and treats hyphens as underscores.
func IsName(name string) bool {
	name = normalized(name)
	return names[name] || slices.ContainsFunc(suffixes, func(suffix string) bool { return strings.HasSuffix(name, suffix) })
}

// SameName reports whether two names differ only as IsName ignores.
func SameName(a, b string) bool { return normalized(a) == normalized(b) }

func normalized(name string) string { return strings.ReplaceAll(strings.ToLower(name), "-", "_") }
