package outbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
)

// Sign is the origin signature of a stream entry, in lower-case hexadecimal:
// HMAC-SHA-256 over the stream's name and every field but _sig, in the order of
// their names (contract: events.md §4).
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
