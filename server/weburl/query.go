package weburl

import (
	"net/url"
	"strings"
)

// A Param is a parameter of the query of a URL, decoded.
type Param struct{ Name, Value string }

// SplitQuery returns a URL without those parameters of its query that have a value and
// whose name is taken, and these parameters. The rest of the URL remains as it is
// written.
func SplitQuery(text string, take func(name string) bool) (rest string, taken []Param) {
	whole, fragment, hasFragment := strings.Cut(text, "#")
	before, query, _ := strings.Cut(whole, "?")
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		if p := (Param{decoded(name), decoded(value)}); p.Value != "" && take(p.Name) {
			taken = append(taken, p)
			continue
		}
		kept = append(kept, part)
	}
	if taken == nil {
		return text, nil
	}
	if len(kept) > 0 {
		before += "?" + strings.Join(kept, "&")
	}
	if hasFragment {
		before += "#" + fragment
	}
	return before, taken
}

// decoded decodes a part of a query. It returns a malformed one as it is.
func decoded(part string) string {
	if text, err := url.QueryUnescape(part); err == nil {
		return text
	}
	return part
}
