package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A problem is one error code as problems.yaml describes it.
type problem struct {
	Code     string    `yaml:"-"`
	Status   int       `yaml:"status"`
	Also     int       `yaml:"also"` // another status with which the code is returned; 0: none
	Sentence string    `yaml:"sentence"`
	In       string    `yaml:"in"`
	Extra    yaml.Node `yaml:"extra"`
}

// problems lists all error codes, in the order of the file.
type problems []problem

func (p *problems) UnmarshalYAML(n *yaml.Node) error {
	for code, value := range pairs(n) {
		// A sentence with a comma that is not quoted ends at the comma, and the rest
		// becomes a field.
		for field := range pairs(value) {
			if !slices.Contains([]string{"status", "also", "sentence", "in", "extra"}, field) {
				return fmt.Errorf("%s: unknown field %q", code, field)
			}
		}
		one := problem{Code: code}
		if err := value.Decode(&one); err != nil {
			return err
		}
		if err := resolve(&one.Extra); err != nil {
			return fmt.Errorf("%s: %w", code, err)
		}
		if one.Status < 400 || one.Sentence == "" {
			return fmt.Errorf("%s: status (400 or above) and sentence are required", code)
		}
		if p.index(code) >= 0 {
			return fmt.Errorf("duplicate error code %s", code)
		}
		*p = append(*p, one)
	}
	return nil
}

func (p problems) index(code string) int {
	return slices.IndexFunc(p, func(q problem) bool { return q.Code == code })
}

var methods = []string{"get", "post", "put", "patch", "delete"}

// expand adds the error responses to every operation, and the required token, the
// audit entries and the events to its description. It adds the schemas of the
// error bodies to the spec. It returns an error if a declaration is missing or
// invalid, or if an error code or a stream is unknown or unused.
func expand(spec *yaml.Node, known problems, audited auditLog) error {
	describeNames(spec)
	shared := get(spec, "x-shared-problems")
	streams := get(spec, "x-streams")
	used, published := map[string]bool{}, map[string]bool{} // error codes, streams
	for path, item := range pairs(get(spec, "paths")) {
		for method, op := range pairs(item) {
			if !slices.Contains(methods, method) {
				continue
			}
			for _, required := range []string{"operationId", "tags", "summary", "description", "x-access", "x-problems", "responses"} {
				if get(op, required) == nil {
					return fmt.Errorf("%s %s: %s is required", method, path, required)
				}
			}
			if err := describeAccess(path, op); err != nil {
				return fmt.Errorf("%s %s: %w", method, path, err)
			}
			if err := describeAudit(op, audited); err != nil {
				return fmt.Errorf("%s %s: %w", method, path, err)
			}
			if err := describeEvents(streams, op, published); err != nil {
				return fmt.Errorf("%s %s: %w", method, path, err)
			}
			if err := addIdempotencyKey(method, op); err != nil {
				return fmt.Errorf("%s %s: %w", method, path, err)
			}
			where := parameters(spec, item, op)
			if err := checkParameters(where); err != nil {
				return fmt.Errorf("%s %s: %w", method, path, err)
			}
			var codes problems
			own := list(get(op, "x-problems"))
			for _, code := range slices.Concat(own, known.withoutReplaced(own, sharedBy(shared, op, where))) {
				i := known.index(code)
				if i < 0 {
					return fmt.Errorf("%s %s: unknown error code %s (not in problems.yaml)", method, path, code)
				}
				if codes.index(code) >= 0 {
					return fmt.Errorf("%s %s: duplicate error code %s", method, path, code)
				}
				codes = append(codes, known[i])
				used[code] = true
			}
			if err := respond(op, codes); err != nil {
				return fmt.Errorf("%s %s: %w", method, path, err)
			}
			addRateLimit(path, op)
		}
	}
	for _, p := range known {
		if !used[p.Code] && !slices.Contains(list(get(spec, "x-outside-problems")), p.Code) {
			return fmt.Errorf("unused error code %s: no operation declares it, and x-outside-problems does not list it", p.Code)
		}
	}
	if err := checkStreams(streams, published); err != nil {
		return err
	}
	describe(spec, known)
	remove(spec, "x-shared-problems")
	return nil
}

// withoutReplaced removes the code for an invalid query from the shared codes if the
// operation has its own.
func (p problems) withoutReplaced(own, shared []string) []string {
	inQuery := func(code string) bool {
		i := p.index(code)
		return i >= 0 && p[i].In == "query"
	}
	if !slices.ContainsFunc(own, inQuery) {
		return shared
	}
	return slices.DeleteFunc(shared, inQuery)
}

// parameters returns the parameters of an operation as "<in> <name>", for
// example "path zoneId" or "query cursor": first those of its path item, then
// its own. A reference that cannot be resolved results in "$ref <reference>".
func parameters(spec, item, op *yaml.Node) (all []string) {
	for _, declared := range []*yaml.Node{get(item, "parameters"), get(op, "parameters")} {
		if declared == nil {
			continue
		}
		for _, p := range declared.Content {
			parameter := "$ref " + valueOf(get(p, "$ref"))
			if resolved := deref(spec, p); resolved != nil {
				parameter = valueOf(get(resolved, "in")) + " " + valueOf(get(resolved, "name"))
			}
			if !slices.Contains(all, parameter) { // an operation may override a parameter of its path item
				all = append(all, parameter)
			}
		}
	}
	return all
}

// checkParameters returns an error if a parameter cannot be resolved, or has no
// name or an unknown location.
func checkParameters(all []string) error {
	for _, p := range all {
		in, name, _ := strings.Cut(p, " ")
		if name == "" || !slices.Contains([]string{"path", "query", "header", "cookie"}, in) {
			return fmt.Errorf("invalid parameter %q", p)
		}
	}
	return nil
}

// sharedBy returns the error codes that follow from the properties of an operation
// (x-shared-problems).
func sharedBy(shared, op *yaml.Node, where []string) []string {
	access := list(get(op, "x-access"))
	has := func(prefix string) bool {
		return slices.ContainsFunc(where, func(w string) bool { return strings.HasPrefix(w, prefix) })
	}
	public := slices.Contains(access, "public")
	inZone := slices.Contains(where, "path zoneId")
	var codes []string
	for _, rule := range []struct {
		name    string
		applies bool
	}{
		{"always", true},
		{"authenticated", !public},
		{"write", slices.Contains(access, "write")},
		{"approve", slices.Contains(access, "approve")},
		{"scoped", !public && (inZone || slices.Contains(access, "global"))},
		{"zone_write", changes(access) && inZone && len(list(get(op, "x-audit"))) > 0},
		{"path", has("path ")},
		{"query", has("query ") || !public},
		{"cursor", slices.Contains(where, "query cursor")},
		{"json", takes(op, "application/json") || get(op, "x-ignored-body") != nil},
		{"form", takes(op, formType)},
		{"body", get(op, "requestBody") != nil || get(op, "x-ignored-body") != nil},
		{"if_match", slices.Contains(where, "header If-Match")},
		{"idempotency_key", slices.Contains(where, "header Idempotency-Key")},
	} {
		if rule.applies {
			codes = append(codes, list(get(shared, rule.name))...)
		}
	}
	return codes
}

// formType is the media type of forms.
const formType = "application/x-www-form-urlencoded"

// takes reports whether the request body of an operation has a media type.
func takes(op *yaml.Node, mediaType string) bool {
	return get(get(get(op, "requestBody"), "content"), mediaType) != nil
}

// respond adds one error response per status to an operation. It returns an error
// if the operation itself declares a response with that status.
func respond(op *yaml.Node, codes problems) error {
	responses := get(op, "responses")
	for _, p := range codes {
		if p.Also != 0 {
			p.Status = p.Also
			codes = append(codes, p)
		}
	}
	slices.SortStableFunc(codes, func(a, b problem) int { return cmp.Compare(a.Status, b.Status) })
	for i := 0; i < len(codes); {
		status := codes[i].Status
		var names, sentences []string
		for ; i < len(codes) && codes[i].Status == status; i++ {
			names = append(names, codes[i].Code)
			sentences = append(sentences, fmt.Sprintf("- `%s`: %s", codes[i].Code, codes[i].Sentence))
		}
		if get(responses, strconv.Itoa(status)) != nil {
			return fmt.Errorf("%s conflicts with the declared response %d", names[0], status)
		}
		response := mapping("description", strings.Join(sentences, "\n"), "x-problem", true)
		switch {
		case status == 429 || status == 503:
			set(response, "headers", mapping("Retry-After", ref("#/components/headers/RetryAfter")))
		case slices.Contains(names, "idempotency_key_in_use"):
			set(response, "headers", mapping("Retry-After", ref("#/components/headers/RetryAfterIfInUse")))
		}
		narrowed := func(name, field string) *yaml.Node {
			return mapping("schema", mapping(
				"allOf", []*yaml.Node{ref("#/components/schemas/" + name), mapping("type", "object", "properties", mapping(field, mapping("type", "string", "enum", names)))},
				"x-go-type", name))
		}
		content := mapping(
			"application/json", narrowed("Problem", "error"),
			"application/problem+json", narrowed("HTTPProblem", "error"))
		if valueOf(get(op, "x-envelope")) == "true" {
			problem := mapping("type", "object", "properties", mapping("problem", mapping("type", "string", "enum", names)))
			content = mapping("application/json", mapping("schema", mapping("allOf", []*yaml.Node{
				ref("#/components/schemas/ControlFailure"), mapping("type", "object", "properties", mapping("error", problem)),
			})))
		}
		if valueOf(get(op, "x-html")) == "true" {
			set(content, "text/html", mapping("schema", mapping("type", "string")))
		}
		set(response, "content", content)
		set(responses, strconv.Itoa(status), response)
	}
	return nil
}

// describe adds the schemas of the error bodies to the spec. They include the
// extra fields of all codes.
func describe(spec *yaml.Node, known problems) {
	text := func(description string) *yaml.Node { return mapping("type", "string", "description", description) }
	common := func() *yaml.Node {
		return mapping(
			"error", text("Machine-readable error code."),
			"error_description", text("Human-readable message."),
			"requestId", text("ID that identifies the request in the server logs."),
			"details", ref("#/components/schemas/ProblemDetails"))
	}
	problem, http := common(), common()
	set(http, "type", text("URI of the error code: `urn:caracal:problem:` followed by the code."))
	set(http, "title", text("The usual `error_description` of the error code."))
	set(http, "status", mapping("type", "integer", "description", "HTTP status code."))
	for _, p := range known {
		for field, schema := range pairs(&p.Extra) {
			for _, properties := range []*yaml.Node{problem, http} {
				if get(properties, field) == nil {
					set(properties, field, schema)
				}
			}
		}
	}
	schemas := child(child(spec, "components"), "schemas")
	set(schemas, "Problem", mapping("type", "object", "description", "Body of every error response.",
		"required", []string{"error", "error_description", "requestId"}, "properties", problem))
	set(schemas, "HTTPProblem", mapping("type", "object", "description", "Body of every error response if the request has `Accept: application/problem+json` (RFC 9457).",
		"required", []string{"type", "title", "status", "error", "error_description", "requestId"}, "properties", http))
}
