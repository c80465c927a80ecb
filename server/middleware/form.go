package middleware

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"

	"caracal.run/management/gen/code"
)

const (
	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"

	// maxForm is the maximum size of a form in bytes.
	maxForm = 64 << 10
)

// wholeNumber matches what is a number in a form.
var wholeNumber = regexp.MustCompile(`^-?[0-9]{1,18}$`)

// decodeForm returns the parameters of a form as an object that the schema can validate. As
// RFC 6749 requires (section 3.2), it ignores unknown parameters, and those without a value.
// An array has one element for each parameter of its name.
//
// It returns invalid_request if a parameter is missing, is sent more than once or is in the
// URL, where secrets would get into logs, and the operation's code if the form is malformed.
func (o *Operation) decodeForm(r *http.Request, text []byte) (map[string]any, error) {
	values, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, o.invalidBody.At(percentEncoding)
	}
	for name := range r.URL.Query() {
		if o.body.schema.Properties[name] != nil {
			return nil, code.InvalidRequest.At("must be in the body, not in the URL", name)
		}
	}
	object := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(o.body.schema.Properties)) {
		schema := o.body.schema.Properties[name].Value
		given := values[name]
		isList := schema.Type.Is(openapi3.TypeArray)
		if len(given) > 1 && !isList {
			return nil, code.InvalidRequest.At("must not be repeated", name)
		}
		given = slices.DeleteFunc(given, func(value string) bool { return value == "" })
		for _, value := range given {
			switch {
			case !utf8.ValidString(value):
				return nil, o.invalidBody.At(notUTF8, name)
			case strings.ContainsRune(value, 0):
				return nil, o.invalidBody.At(nulCharacter, name)
			}
		}
		switch {
		case isList:
			list := make([]any, len(given))
			for i, value := range given {
				list[i] = value
			}
			object[name] = list
		case len(given) == 0:
		case schema.Type.Is(openapi3.TypeInteger) && wholeNumber.MatchString(given[0]):
			object[name] = json.Number(given[0])
		default:
			object[name] = given[0]
		}
	}
	if err := o.missingParameters(object); err != nil {
		return nil, err
	}
	for name, given := range values {
		if len(given) > 1 && o.body.schema.Properties[name] == nil {
			return nil, code.InvalidRequest.At("a parameter must not be repeated") // its name may be a secret
		}
	}
	return object, nil
}

// missingParameters returns invalid_request, which names all required parameters that are
// missing. An array can be empty; the schema says whether it is allowed to be, if nothing else
// is missing.
func (o *Operation) missingParameters(object map[string]any) error {
	var names []string
	missing := &code.Error{Code: code.InvalidRequest}
	for _, name := range o.body.schema.Required {
		if list, isList := object[name].([]any); object[name] == nil || isList && len(list) == 0 {
			names = append(names, name)
			missing.Issues = append(missing.Issues, code.Issue{Path: []string{name}, Message: "is required"})
		}
	}
	if !slices.ContainsFunc(names, func(name string) bool { return object[name] == nil }) {
		return nil
	}
	missing.Sentence = "Required parameters are missing: " + strings.Join(names, ", ") + "."
	return missing
}
