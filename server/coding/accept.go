// Package coding compresses responses with gzip (RFC 9110, section 8.4) if the
// request accepts it. It depends on the standard library only.
package coding

import (
	"net/http"
	"strconv"
	"strings"
)

// AcceptsGzip reports whether the Accept-Encoding header of a request accepts gzip,
// and does not prefer an uncompressed response (RFC 9110, section 12.5.3).
func AcceptsGzip(h http.Header) bool {
	gzip, identity, other := -1.0, -1.0, -1.0 // qualities; negative: not listed
	for _, line := range h["Accept-Encoding"] {
		for element := range strings.SplitSeq(line, ",") {
			coding, parameters, _ := strings.Cut(element, ";")
			switch q := quality(parameters); strings.ToLower(strings.Trim(coding, " \t")) {
			case "gzip", "x-gzip":
				gzip = q
			case "identity":
				identity = q
			case "*":
				other = q
			}
		}
	}
	if gzip < 0 {
		gzip = other
	}
	return gzip > 0 && gzip >= identity
}

// quality returns the weight in the parameters of a coding: 1 if there is none, 0 if
// it is invalid.
func quality(parameters string) float64 {
	parameters = strings.Trim(parameters, " \t")
	if parameters == "" {
		return 1
	}
	name, value, _ := strings.Cut(parameters, "=")
	q, err := strconv.ParseFloat(value, 64)
	if err != nil || !strings.EqualFold(name, "q") || !(q >= 0 && q <= 1) {
		return 0
	}
	return q
}
