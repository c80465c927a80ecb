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
	Sentence string    `yaml:"sentence"`
	In       string    `yaml:"in"`
	Extra    yaml.Node `yaml:"extra"`
}

// problems keeps the order of the file.
type problems []problem

func (p *problems) UnmarshalYAML(n *yaml.Node) error {
	for code, value := range pairs(n) {
		one := problem{Code: code}
		if err := value.Decode(&one); err != nil {
			return err
		}
		if one.Status < 400 || one.Sentence == "" {
			return fmt.Errorf("%s needs a status and a sentence", code)
		}
		if p.index(code) >= 0 {
			return fmt.Errorf("%s is there twice", code)
		}
		*p = append(*p, one)
	}
	return nil
}

func (p problems) index(code string) int {
	return slices.IndexFunc(p, func(q problem) bool { return q.Code == code })
}

var methods = []string{"get", "post", "put", "patch", "delete"}

// expand gives every operation its error responses, and the document the
// schemas that they speak of.
func expand(spec *yaml.Node, known problems) error {
	shared := get(spec, "x-shared-problems")
	used := map[string]bool{}
	for path, item := range pairs(get(spec, "paths")) {
		for method, op := range pairs(item) {
			if !slices.Contains(methods, method) {
				continue
			}
			for _, must := range []string{"operationId", "tags", "summary", "description", "x-access", "x-problems", "responses"} {
				if get(op, must) == nil {
					return fmt.Errorf("%s %s has no %s", method, path, must)
				}
			}
			var codes problems
			for _, code := range slices.Concat(list(get(op, "x-problems")), sharedBy(shared, item, op)) {
				i := known.index(code)
				if i < 0 {
					return fmt.Errorf("%s %s answers %s, which problems.yaml does not know", method, path, code)
				}
				if codes.index(code) >= 0 {
					return fmt.Errorf("%s %s names %s twice", method, path, code)
				}
				codes = append(codes, known[i])
				used[code] = true
			}
			if err := respond(op, codes); err != nil {
				return fmt.Errorf("%s %s: %w", method, path, err)
			}
		}
	}
	for _, p := range known {
		if !used[p.Code] && !slices.Contains(list(get(spec, "x-outside-problems")), p.Code) {
			return fmt.Errorf("no operation answers %s, and x-outside-problems does not list it", p.Code)
		}
	}
	describe(spec, known)
	remove(spec, "x-shared-problems")
	return nil
}

// parameters are an operation's, as "path zoneId", "query cursor" or "header
// ifMatch", by the names of their components.
func parameters(item, op *yaml.Node) (all []string) {
	for _, given := range []*yaml.Node{get(item, "parameters"), get(op, "parameters")} {
		if given == nil {
			continue
		}
		for _, p := range given.Content {
			switch name := last(get(p, "$ref").Value); name {
			case "zoneId", "id", "versionId":
				all = append(all, "path "+name)
			case "ifMatch":
				all = append(all, "header "+name)
			default:
				all = append(all, "query "+name)
			}
		}
	}
	return all
}

// sharedBy is what middleware and store answer to an operation because of what
// it is made of.
func sharedBy(shared, item, op *yaml.Node) []string {
	access, where := list(get(op, "x-access")), parameters(item, op)
	has := func(prefix string) bool {
		return slices.ContainsFunc(where, func(w string) bool { return strings.HasPrefix(w, prefix) })
	}
	public := slices.Contains(access, "public")
	writes := slices.Contains(access, "write")
	inZone := has("path zoneId")
	var codes []string
	for _, rule := range []struct {
		name    string
		applies bool
	}{
		{"always", true},
		{"authenticated", !public},
		{"write", writes},
		{"scoped", !public && (inZone || slices.Contains(access, "global"))},
		{"zone_write", writes && inZone},
		{"path", has("path")},
		{"query", has("query")},
		{"cursor", has("query cursor")},
		{"body", get(op, "requestBody") != nil},
		{"if_match", has("header ifMatch")},
	} {
		if rule.applies {
			codes = append(codes, list(get(shared, rule.name))...)
		}
	}
	return codes
}

// respond adds one response a status.
func respond(op *yaml.Node, codes problems) error {
	responses := get(op, "responses")
	slices.SortStableFunc(codes, func(a, b problem) int { return cmp.Compare(a.Status, b.Status) })
	for i := 0; i < len(codes); {
		status := codes[i].Status
		var names, sentences []string
		for ; i < len(codes) && codes[i].Status == status; i++ {
			names = append(names, codes[i].Code)
			sentences = append(sentences, fmt.Sprintf("- `%s`: %s", codes[i].Code, codes[i].Sentence))
		}
		if get(responses, strconv.Itoa(status)) != nil {
			return fmt.Errorf("%s would replace the response %d of its own", names[0], status)
		}
		response := mapping("description", strings.Join(sentences, "\n"), "x-problem", true)
		if status == 429 || status == 503 {
			set(response, "headers", mapping("Retry-After", ref("#/components/headers/RetryAfter")))
		}
		narrowed := func(name, member string) *yaml.Node {
			return mapping("schema", mapping(
				"allOf", []*yaml.Node{ref("#/components/schemas/" + name), mapping("type", "object", "properties", mapping(member, mapping("type", "string", "enum", names)))},
				"x-go-type", name))
		}
		set(response, "content", mapping(
			"application/json", narrowed("Problem", "error"),
			"application/problem+json", narrowed("HTTPProblem", "error")))
		set(responses, strconv.Itoa(status), response)
	}
	return nil
}

// describe adds the schemas of the error bodies, with the members that any
// code brings along.
func describe(spec *yaml.Node, known problems) {
	text := func(description string) *yaml.Node { return mapping("type", "string", "description", description) }
	usual := func() *yaml.Node {
		return mapping(
			"error", text("The code, for programs."),
			"error_description", text("A sentence, for people."),
			"requestId", text("The name under which the log knows the request."),
			"details", ref("#/components/schemas/ProblemDetails"))
	}
	problem, http := usual(), usual()
	set(http, "type", text("A URI that names the kind of problem (RFC 9457)."))
	set(http, "title", text("The sentence again, where RFC 9457 expects it."))
	set(http, "status", mapping("type", "integer", "description", "The HTTP status."))
	for _, p := range known {
		for member, schema := range pairs(&p.Extra) {
			for _, properties := range []*yaml.Node{problem, http} {
				if get(properties, member) == nil {
					set(properties, member, schema)
				}
			}
		}
	}
	schemas := child(child(spec, "components"), "schemas")
	set(schemas, "Problem", mapping("type", "object", "description", "The body of every error.",
		"required", []string{"error", "error_description", "requestId"}, "properties", problem))
	set(schemas, "HTTPProblem", mapping("type", "object", "description", "The body of every error, for those who ask for RFC 9457.",
		"required", []string{"type", "title", "status", "error", "error_description", "requestId"}, "properties", http))
}
