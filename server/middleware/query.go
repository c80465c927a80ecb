package middleware

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
)

// prefersStrict reports whether a request prefers strict handling (RFC 7240, section
// 4.4). Of a preference that is stated more than once, the first counts.
func prefersStrict(lines []string) bool {
	for _, line := range lines {
		for preference := range strings.SplitSeq(line, ",") {
			preference, _, _ = strings.Cut(preference, ";") // without its parameters
			name, value, _ := strings.Cut(preference, "=")
			if strings.EqualFold(strings.TrimSpace(name), "handling") {
				return strings.EqualFold(strings.Trim(strings.TrimSpace(value), `"`), "strict")
			}
		}
	}
	return false
}

// rejectUnknown returns an error that names the query parameters that the operation
// does not declare.
func (o *Operation) rejectUnknown(query url.Values) error {
	codeErr := &code.Error{Code: o.invalidQuery}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.ContainsFunc(o.queryParams, func(p *openapi3.ParameterRef) bool { return p.Value.Name == name }) {
			codeErr.Issues = append(codeErr.Issues, code.Issue{Path: []string{name}, Message: "unknown parameter"})
		}
	}
	if len(codeErr.Issues) > 0 {
		return codeErr
	}
	return nil
}

// normalizeQuery brings query parameters into the form in which the values that they
// are compared with are stored: it trims them (x-trim) and normalizes names (x-name).
// It reports whether one has changed, and returns invalid_query for an invalid name.
func (o *Operation) normalizeQuery(query url.Values) (changed bool, err error) {
	for _, p := range o.queryParams {
		extensions := p.Value.Schema.Value.Extensions
		trim, _ := extensions["x-trim"].(bool)
		isName, _ := extensions["x-name"].(bool)
		for i, value := range query[p.Value.Name] {
			normalized, problem := value, ""
			switch {
			case trim:
				normalized = strings.TrimFunc(value, store.IsSpace)
			case isName && utf8.ValidString(value): // otherwise, validation rejects it
				normalized, problem = store.NormalizeName(value)
			}
			if problem != "" {
				return false, o.invalidQuery.At(problem, p.Value.Name)
			}
			query[p.Value.Name][i] = normalized
			changed = changed || normalized != value
		}
	}
	return changed, nil
}
