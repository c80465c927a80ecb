package control

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"caracal.run/management/gen/code"
)

// An Invocation is the body of a request to invoke a command. Fields of another type than
// the declared one are as if they were not given, as are unknown fields.
type Invocation struct {
	Command, Subcommand string
	Flags               map[string]any
	AuthorizedBy        string // a person whom the caller names; not verified
	IdempotencyKey      string // of the caller, for the audit log
}

// MaxBodyBytes is the maximum size of the body.
const MaxBodyBytes = 64 << 10

// idempotencyFlag is accepted by every command that changes something.
const idempotencyFlag = "idempotency-key"

// ParseInvocation parses a body, which must be valid JSON or empty.
func ParseInvocation(body []byte) (Invocation, error) {
	const maxAuthorizedBy = 256
	var all map[string]any
	if len(body) > 0 {
		decoder := json.NewDecoder(strings.NewReader(string(body)))
		decoder.UseNumber()
		if err := decoder.Decode(&all); err != nil {
			return Invocation{}, err
		}
	}
	var i Invocation
	i.Command, _ = all["command"].(string)
	i.Subcommand, _ = all["subcommand"].(string)
	i.Flags, _ = all["flags"].(map[string]any)
	if by, _ := all["authorized_by"].(string); len([]rune(by)) <= maxAuthorizedBy {
		i.AuthorizedBy = by
	}
	i.IdempotencyKey, _ = i.Flags[idempotencyFlag].(string)
	return i, nil
}

// A Call is a call of an operation of the Management API.
type Call struct {
	Operation string            // its ID; "" stands for [Describe]
	Path      map[string]string // path parameters, without the zone
	Query     url.Values
	Body      map[string]any // nil: the operation takes none
	Changes   bool           // whether it can change something
}

// Resolve finds the command of an invocation and returns its call, by a token of a zone with scopes. It returns
// control_denied, control_zone_mismatch, or control_invalid if a flag is invalid.
func (i Invocation) Resolve(zone string, scopes []string) (Call, error) {
	s, err := find(i.Command, i.Subcommand)
	if err != nil {
		return Call{}, err
	}
	if err := checkFlags(i.Flags); err != nil {
		return Call{}, err
	}
	if s.Scope != "" && !slices.Contains(scopes, s.Scope) {
		return Call{}, missingScope(s.Scope)
	}
	if err := s.checkNames(i.Flags); err != nil {
		return Call{}, err
	}
	if s.declares {
		return s.callState(i.Flags, zone, scopes)
	}
	return s.call(i.Flags)
}

func missingScope(scope string) error {
	denied := code.ControlDenied.Saying("missing scope " + scope)
	denied.Fields = map[string]any{"remediation": "Request a token with this scope. The Control key must have it."}
	return denied
}

// find returns a subcommand of the catalog, or the error of one that cannot be invoked.
func find(command, subcommand string) (Subcommand, error) {
	denied := func(format string, args ...any) (Subcommand, error) {
		return Subcommand{}, code.ControlDenied.Saying(fmt.Sprintf(format, args...))
	}
	if reason, known := elsewhere[command]; known {
		return denied(reason, command)
	}
	at := slices.IndexFunc(Commands, func(c Command) bool { return c.Name == command })
	if at < 0 {
		return denied(`unknown command "%s"`, command)
	}
	all := Commands[at].Subcommands
	at = slices.IndexFunc(all, func(s Subcommand) bool { return s.Name == subcommand })
	switch {
	case at >= 0:
		return all[at], nil
	case all[0].Name == "":
		return denied(`command "%s" takes no subcommand`, command)
	}
	return denied(`subcommand "%s" not allowed for "%s"`, subcommand, command)
}

func invalid(format string, args ...any) error {
	return code.ControlInvalid.Saying(fmt.Sprintf(format, args...))
}

// checkFlags checks the limits of flags.
func checkFlags(flags map[string]any) error {
	const maxFlags, maxKey, maxText, maxElements = 32, 64, 32768, 64
	if len(flags) > maxFlags {
		return invalid("too many flags (max %d)", maxFlags)
	}
	length := func(text string) int { return len(utf16.Encode([]rune(text))) }
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		if n := length(name); n == 0 || n > maxKey {
			return invalid(`flag key "%s" out of range`, name)
		}
		switch value := flags[name].(type) {
		case nil, bool, json.Number:
		case string:
			if length(value) > maxText {
				return invalid(`flag "%s" string too long`, name)
			}
		case []any:
			if len(value) > maxElements {
				return invalid(`flag "%s" array too long`, name)
			}
			for _, element := range value {
				switch element := element.(type) {
				case nil, bool, json.Number:
				case string:
					if length(element) > maxText {
						return invalid(`flag "%s" element too long`, name)
					}
				default:
					return invalid(`flag "%s" unsupported array element`, name)
				}
			}
		default:
			return invalid(`flag "%s" has unsupported type`, name)
		}
	}
	return nil
}

// idPattern is the pattern of IDs, which are neither . nor ..
var idPattern = regexp.MustCompile(`^[A-Za-z0-9_.\-:]{1,128}$`)

// call returns the call of a subcommand with flags.
func (s Subcommand) call(flags map[string]any) (Call, error) {
	c := Call{Operation: s.operation, Path: map[string]string{}, Query: url.Values{}, Changes: s.changes()}
	body := maps.Clone(s.constants)
	if body == nil {
		body = map[string]any{}
	}
	takesBody := len(s.constants) > 0
	for _, f := range s.Flags {
		value, given := flags[f.Name]
		takesBody = takesBody || f.target == inBody
		if !given || value == nil && !f.Nullable {
			if f.Required {
				return c, invalid(`flag "%s" is required`, f.Name)
			}
			continue
		}
		converted, err := f.convert(value)
		if err != nil {
			return c, err
		}
		if text, isText := converted.(string); isText && text == "" && f.Required {
			return c, invalid(`flag "%s" is required`, f.Name)
		}
		switch f.target {
		case inPath:
			c.Path[f.field], _ = converted.(string)
		case inQuery:
			c.Query.Set(f.field, fmt.Sprint(converted))
		case inBody:
			body[f.field] = converted
		}
	}
	if takesBody {
		c.Body = body
	}
	return c, nil
}

// checkNames returns an error if the subcommand does not have one of the flags.
func (s Subcommand) checkNames(flags map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		known := slices.ContainsFunc(s.Flags, func(f Flag) bool { return f.Name == name })
		if !known && !(s.changes() && name == idempotencyFlag) {
			return invalid(`unknown flag "%s": %s`, name, s.accepted())
		}
	}
	return nil
}

func (s Subcommand) changes() bool {
	return s.applies || s.Scope != "" && !strings.HasSuffix(s.Scope, ":"+read)
}

func (s Subcommand) accepted() string {
	var names []string
	for _, f := range s.Flags {
		names = append(names, f.Name)
	}
	if s.changes() {
		names = append(names, idempotencyFlag)
	}
	if len(names) == 0 {
		return "the command takes no flags"
	}
	return "the command takes " + strings.Join(names, ", ")
}

// convert converts the value of a flag to its kind.
func (f Flag) convert(value any) (any, error) {
	if value == nil {
		return nil, nil
	}
	given, isText := value.(string)
	switch f.Kind {
	case Text:
		if isText {
			return given, f.check(given)
		}
	case Number:
		number, isNumber := value.(json.Number)
		if isText {
			number, isNumber = json.Number(strings.TrimSpace(given)), true
		}
		if parsed, err := strconv.ParseFloat(string(number), 64); isNumber && err == nil && !math.IsInf(parsed, 0) && !math.IsNaN(parsed) {
			return json.Number(strconv.FormatFloat(parsed, 'f', -1, 64)), nil
		}
	case Boolean:
		if isText && (given == "true" || given == "false") {
			return given == "true", nil
		}
		if truth, isBool := value.(bool); isBool {
			return truth, nil
		}
	case List:
		return f.list(value)
	case Object, Array:
		var parsed any
		decoder := json.NewDecoder(strings.NewReader(given))
		decoder.UseNumber()
		if isText && decoder.Decode(&parsed) == nil && !decoder.More() {
			_, isObject := parsed.(map[string]any)
			_, isArray := parsed.([]any)
			if isObject && f.Kind == Object || isArray && f.Kind == Array {
				return parsed, nil
			}
		}
		return nil, invalid(`flag "%s" must be text that contains a JSON %s`, f.Name, f.Kind)
	}
	return nil, invalid(`flag "%s" must be of kind %s`, f.Name, f.Kind)
}

// check returns an error if a text of a flag for IDs is none. An empty text is left to
// the operation.
func (f Flag) check(text string) error {
	if f.isID && text != "" && (!idPattern.MatchString(text) || text == "." || text == "..") {
		return invalid(`flag "%s" is not an ID`, f.Name)
	}
	return nil
}

// list converts text with commas, or an array of such texts. Empty elements are left out.
func (f Flag) list(value any) (any, error) {
	elements, isArray := value.([]any)
	if !isArray {
		elements = []any{value}
	}
	all := []any{}
	for _, element := range elements {
		text, isText := element.(string)
		if !isText {
			return nil, invalid(`flag "%s" must be of kind %s`, f.Name, f.Kind)
		}
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			if err := f.check(part); err != nil {
				return nil, err
			}
			if f.element != "" {
				all = append(all, map[string]any{f.element: part})
			} else {
				all = append(all, part)
			}
		}
	}
	return all, nil
}
