package state

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
)

// A Verb is what an object requires.
type Verb string

// The verbs.
const (
	Create    Verb = "create"
	Update    Verb = "update"
	Unchanged Verb = "unchanged"
	Archive   Verb = "prune"
)

// Options are what a plan depends on in addition to the document and the zone.
type Options struct {
	Actor store.Actor
	// CheckResourceIdentifier returns an error if the actor cannot have a resource with an
	// identifier.
	CheckResourceIdentifier func(identifier string) error
	// CheckUpstreamURL returns an error if an upstream URL is invalid.
	CheckUpstreamURL func(url *string) error
}

// A Plan is what has to be changed so that a zone is as a document says.
type Plan struct {
	Actions  []Action // one for each object of the document, in its order, and then those that are pruned
	Mode     Mode
	Prunes   bool         // whether objects can be pruned
	exceeded []code.Issue // how many objects are pruned, if they are too many
	taken    []code.Issue // the objects that another owner manages
	Revision string       // identifies the state of the zone that the document was compared with
	ID       string       // identifies the plan: what is changed, and the revision

	owners map[store.ManagedObject]string // who manages what before
}

// Drift reports whether the zone is not as the document says.
func (p *Plan) Drift() bool {
	return slices.ContainsFunc(p.Actions, func(a Action) bool { return a.Verb != Unchanged || a.Failure != nil })
}

// An Action is what an object of a document requires.
type Action struct {
	Kind     Kind
	Identity string
	Verb     Verb
	ID       string // of the object; "" if it does not exist yet
	Version  string // ID of the version of a policy or policy set; "" if it does not exist yet
	Changes  []Change
	Warnings []string
	Failure  *Failure // why the object cannot be changed; nil: it can
	step     step     // nil: there is nothing to do
	object   int      // index of the object in the document
	grant    grantKey // of a grant that is pruned
}

// Drift returns the names of the fields that differ. It is empty for an object that does
// not exist yet.
func (a Action) Drift() (fields []string) {
	if a.Verb != Update {
		return nil
	}
	for _, c := range a.Changes {
		field, _, _ := strings.Cut(c.Field, ".") // a secret is a part of the field that contains it
		if !slices.Contains(fields, field) {
			fields = append(fields, field)
		}
	}
	return fields
}

// A Change is a field that changes. The values are nil if they are not known or sensitive.
type Change struct {
	Field         string
	Before, After any
	Sensitive     bool // the caller must not see the values
}

// A Failure is why an object cannot be changed.
type Failure struct {
	Code   string // invalid, denied, not_found, conflict or upstream
	Reason string
}

// newFailure returns the failure of an error that has a code.
func newFailure(err error) *Failure {
	errCode, _ := problemOf(err)
	kind := "upstream"
	switch code.Table[errCode].Status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		kind = "invalid"
	case http.StatusForbidden:
		kind = "denied"
	case http.StatusNotFound:
		kind = "not_found"
	case http.StatusConflict, http.StatusPreconditionFailed:
		kind = "conflict"
	}
	return &Failure{kind, Explain(err)}
}

// fail marks the objects that issues are about as failed, and returns the issues that are
// about none.
func (p *Plan) fail(issues []code.Issue) (others []code.Issue) {
	for _, issue := range issues {
		i := objectOf(issue)
		if i < 0 {
			others = append(others, issue)
			continue
		}
		a := &p.Actions[i]
		reason := strings.TrimPrefix(strings.Join(issue.Path[min(3, len(issue.Path)):], ".")+": "+issue.Message, ": ") // without objects, the index and spec
		if a.Failure == nil {
			*a = Action{Kind: a.Kind, Identity: a.Identity, Verb: Unchanged, object: i, Failure: &Failure{"invalid", reason}}
		} else {
			a.Failure.Reason += "; " + reason
		}
	}
	return others
}

// failures returns the failures of the objects to archive as issues.
func (p *Plan) failures() (issues []code.Issue) {
	for _, a := range p.Actions {
		if a.Verb == Archive && a.Failure != nil {
			issues = append(issues, code.Issue{Path: []string{"prune"}, Message: string(a.Kind) + " " + a.Identity + ": " + a.Failure.Reason})
		}
	}
	return issues
}

// A step carries an action out.
type step interface {
	run(context.Context, *execution) (Result, error)
	// effect returns, as a value for JSON, what the step does that the changes do not say. It
	// contains no secrets.
	effect() any
	// seals reports whether the step requires the data key of the zone.
	seals() bool
}

// unsealed is embedded in steps that seal no secrets.
type unsealed struct{}

func (unsealed) seals() bool { return false }

// explicit is embedded in steps that do only what the changes say.
type explicit struct{}

func (explicit) effect() any { return nil }

// Make plans what has to be changed so that a zone is as a document says. It returns every
// issue that the document has in this zone; the plan can be used only if there are none.
func Make(zone store.ZoneState, d Document, o Options) (*Plan, []code.Issue) {
	p := &planner{
		Options: o, zone: newIndex(zone), document: d, declared: map[any]int{}, newest: map[string]policyVersion{}, referenced: map[store.ManagedObject][]code.Issue{},
	}
	for i, object := range d.Objects {
		p.declared[object.key()] = i
	}
	plan := &Plan{Revision: revision(zone), Prunes: d.Prune.Enabled, Actions: make([]Action, len(d.Objects)), owners: p.zone.owners}
	for i, object := range d.Objects {
		plan.Actions[i] = Action{Kind: object.Kind, Identity: object.Identity(), Verb: Unchanged, object: i}
		if set, ok := object.Spec.(*PolicySetSpec); ok && valueOr(set.Activate, false) {
			p.activated = append(p.activated, i)
		}
	}
	for _, i := range plan.Order() {
		p.at = i
		a := &plan.Actions[i]
		switch spec := d.Objects[i].Spec.(type) {
		case *ZoneSpec:
			p.zoneSettings(a, spec)
		case *ApplicationSpec:
			p.application(a, spec)
		case *ProviderSpec:
			p.provider(a, spec)
		case *ResourceSpec:
			p.resource(a, spec)
		case *PolicySpec:
			p.policy(a, spec)
		case *PolicySetSpec:
			p.policySet(a, spec)
		case *GrantSpec:
			p.grant(a, spec)
		}
		p.owner(plan, a)
	}
	p.prune(plan)
	plan.ID = plan.id(d.Owner)
	slices.SortStableFunc(p.issues, func(a, b code.Issue) int { return cmp.Compare(objectOf(a), objectOf(b)) })
	return plan, p.issues
}

// owner plans that the owner of the document manages an object of the zone.
func (p *planner) owner(plan *Plan, a *Action) {
	present, owner := p.zone.owners[store.ManagedObject{Kind: string(a.Kind), ID: a.ID}], p.document.Owner
	if owner == "" || a.Kind == Zone || a.ID == "" || present == owner {
		return
	}
	var before any
	if present != "" {
		before = present
		a.Warnings = append(a.Warnings, "the object is managed by "+present+": requires take_ownership")
		plan.taken = append(plan.taken, code.Issue{Path: []string{"objects", strconv.Itoa(p.at)}, Message: "is managed by " + present + ": requires take_ownership"})
	}
	a.changed("owner", before, owner)
	if a.Verb == Unchanged {
		a.Verb = Update
	}
}

// objectOf returns the index of the object that an issue is about.
func objectOf(issue code.Issue) int {
	if len(issue.Path) < 2 {
		return -1 // about the document
	}
	i, _ := strconv.Atoi(issue.Path[1]) // [issueAt] has written it
	return i
}

// Order returns the indexes of the actions in an order in which they can be carried out: each object
// after those that it refers to.
func (p *Plan) Order() []int {
	position := map[Kind]int{Application: 1, Provider: 2, Resource: 3, Policy: 4, PolicySet: 5, Grant: 6}
	order := make([]int, len(p.Actions))
	for i := range order {
		order[i] = i
	}
	at := func(i int) int {
		if p.Actions[i].Verb == Archive { // after everything else, in the reverse order
			return 2*len(position) - position[p.Actions[i].Kind]
		}
		return position[p.Actions[i].Kind]
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(at(a), at(b)) })
	return order
}

// An objectKey identifies an object by its kind and identity.
type objectKey struct {
	kind     Kind
	identity string
}

// A planner has the state of [Make].
type planner struct {
	Options
	zone     index
	document Document
	declared map[any]int // the objects of the document, by their keys
	at       int         // index of the object that is being planned
	issues   []code.Issue

	// referenced has, for each object of the zone that the document refers to, the issues to
	// add if it would be archived.
	referenced map[store.ManagedObject][]code.Issue

	newest    map[string]policyVersion // of each policy, by its name, when the plan is carried out
	activated []int                    // the policy sets that the document activates
}

// issue adds an issue about a field of the spec of the present object.
func (p *planner) issue(message string, path ...string) {
	p.issues = append(p.issues, issueAt(p.at, message, path...))
}

// issueAt returns an issue about a field of the spec of an object.
func issueAt(object int, message string, path ...string) code.Issue {
	return code.Issue{Path: append([]string{"objects", strconv.Itoa(object), "spec"}, path...), Message: message}
}

// check adds the issues of an error that an operation would return for the present
// object, and reports whether there is none. They are about a field of the spec, or the
// fields that the error names.
func (p *planner) check(err error, path ...string) bool {
	if err == nil {
		return true
	}
	var e *code.Error
	if errors.As(err, &e) && len(e.Issues) > 0 {
		for _, issue := range e.Issues {
			named := issue.Path
			if len(path) > 0 && len(named) > 0 && named[0] == path[0] {
				named = named[1:]
			}
			p.issue(issue.Message, append(slices.Clone(path), named...)...)
		}
		return false
	}
	p.issue(Explain(err), path...)
	return false
}

// Explain returns the code of an error, and what it says.
func Explain(err error) string {
	errCode, detail := problemOf(err)
	return string(errCode) + ": " + detail
}

// problemOf returns the code of an error, and what it says: its detail or its sentence.
func problemOf(err error) (errCode code.Code, detail string) {
	if !errors.As(err, &errCode) {
		return code.InternalError, code.Table[code.InternalError].Sentence
	}
	detail = code.Table[errCode].Sentence
	var e *code.Error
	if errors.As(err, &e) {
		detail = cmp.Or(e.Sentence, detail)
		if text, _ := e.Fields["detail"].(string); text != "" {
			detail = text
		}
		for _, issue := range e.Issues {
			detail = strings.TrimPrefix(strings.Join(issue.Path, ".")+": "+issue.Message, ": ")
			break
		}
	}
	return errCode, detail
}

// A reference is an object that another one refers to.
type reference struct {
	objectKey
	id string // "": the same plan creates the object
}

// changed adds a field that changes to an action.
func (a *Action) changed(field string, before, after any) {
	a.Changes = append(a.Changes, Change{Field: field, Before: before, After: after})
}

// given adds a field of an object that does not exist yet, if the spec has it.
func given[T any](a *Action, field string, value *T) {
	if value != nil {
		a.changed(field, nil, *value)
	}
}

// differs adds a field to an action if the spec has it with another value than the object,
// and reports whether it does.
func differs[T comparable](a *Action, field string, before T, spec *T) bool {
	if spec == nil || *spec == before {
		return false
	}
	a.changed(field, before, *spec)
	return true
}

// differsAsSet is like differs for lists whose order and repetitions have no meaning.
func differsAsSet[T comparable](a *Action, field string, before []T, spec *[]T) bool {
	if spec == nil || sameSet(before, *spec) {
		return false
	}
	a.changed(field, before, *spec)
	return true
}

func sameSet[T comparable](a, b []T) bool {
	set := func(list []T) map[T]bool {
		all := make(map[T]bool, len(list))
		for _, value := range list {
			all[value] = true
		}
		return all
	}
	one, other := set(a), set(b)
	for value := range one {
		if !other[value] {
			return false
		}
	}
	return len(one) == len(other)
}
