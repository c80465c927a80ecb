package outbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
)

// Sign returns the origin signature of a stream entry, in lower-case hexadecimal. It
// is an HMAC-SHA-256 of the stream's name and a line feed, followed by name=value
// and a line feed for every field except _sig, sorted by name.
func Sign(key []byte, stream string, fields map[string]string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(stream + "\n"))
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if name != signature {
			mac.Write([]byte(name + "=" + fields[name] + "\n"))
		}
	}
	return hex.EncodeToString(mac.Sum(nil))
}
