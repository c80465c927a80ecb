package secret

import "strings"

// names are the names that call a value a secret: those that the audit log redacts, and
// key, as which many services accept an API key in a URL.
var names = map[string]bool{
	"password": true, "passwd": true, "secret": true, "token": true, "access_token": true, "refresh_token": true, "id_token": true,
	"api_key": true, "apikey": true, "key": true, "authorization": true, "cookie": true, "set_cookie": true, "client_secret": true,
	"private_key": true, "session": true, "session_id": true, "assertion": true,
}

// IsName reports whether a name, such as that of a parameter, says that its value is a
// secret. It compares whole names, ignores case, and treats hyphens as underscores.
func IsName(name string) bool {
	return names[normalized(name)]
}

// SameName reports whether two names differ only as IsName ignores.
func SameName(a, b string) bool { return normalized(a) == normalized(b) }

func normalized(name string) string { return strings.ReplaceAll(strings.ToLower(name), "-", "_") }
