package issuer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A tokenHeader is the protected header of a token (RFC 7515, section 4.1).
type tokenHeader struct {
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid"`
	Critical  json.RawMessage `json:"crit"`
}

var errMalformed = errors.New("malformed")

// zoneID matches the IDs of zones.
var zoneID = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// decode decodes a token in compact serialization (RFC 7515, section 3.1), without
// verifying it.
func decode[T any](token string) (payload T, header tokenHeader, err error) {
	if len(token) > maxToken {
		return payload, header, errMalformed
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return payload, header, errMalformed
	}
	for i, target := range []any{&header, &payload} {
		text, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err != nil || json.Unmarshal(text, target) != nil {
			return payload, header, errMalformed
		}
	}
	return payload, header, nil
}

// texts is one string or a list of strings, like the audience of a token (RFC 7519,
// section 4.1.3).
type texts []string

// UnmarshalJSON reads a string or a list of strings.
func (t *texts) UnmarshalJSON(text []byte) error {
	if text[0] == '[' {
		return json.Unmarshal(text, (*[]string)(t))
	}
	*t = texts{""}
	return json.Unmarshal(text, &(*t)[0])
}

// unixTime is a time in seconds since the Unix epoch, of which a fraction is ignored
// (RFC 7519, section 2, NumericDate).
type unixTime int64

// UnmarshalJSON reads a number.
func (t *unixTime) UnmarshalJSON(text []byte) error {
	const largest = 1 << 40                              // far enough in the future
	seconds, err := strconv.ParseFloat(string(text), 64) // of a JSON text, it accepts numbers only
	if err != nil || seconds < 0 || seconds > largest {
		return errMalformed
	}
	*t = unixTime(math.Floor(seconds))
	return nil
}

func (t unixTime) time() time.Time { return time.Unix(int64(t), 0) }
