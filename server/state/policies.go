package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"unicode/utf8"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/policy"
	"caracal.run/management/store"
)

const (
	defaultOwnerType = "customer"
	maxContent       = 1 << 20 // characters, as in the spec
)

// A policyVersion is the newest version of a policy when the plan is carried out.
type policyVersion struct {
	policy        string // its name
	number        int32
	id            string // "": the plan adds it
	schemaVersion string
	content       *string // nil: it is stored
}

// applicationReference matches a reference to an application in a content, which stands for
// its ID.
var applicationReference = regexp.MustCompile(`\$\{application:([^{}]+)\}`)

// referredApplication returns the name in a reference to an application.
func referredApplication(reference string) string {
	name, _ := store.NormalizeName(applicationReference.FindStringSubmatch(reference)[1])
	return name
}

// withDummyIDs returns a content with an ID in place of each application that the plan
// creates, so that it is checked as it will be stored.
func withDummyIDs(content string) string {
	return applicationReference.ReplaceAllString(content, "00000000-0000-7000-8000-000000000000")
}

// withIDs returns a content with the IDs of the applications that it refers to by name, except
// those that the plan creates.
func (p *planner) withIDs(content string) string {
	return applicationReference.ReplaceAllStringFunc(content, func(text string) string {
		if found := p.find(Application, referredApplication(text), "content"); found != nil && found.id != "" {
			return found.id
		}
		return text
	})
}

// withIDs returns a content with the IDs of the created applications that it refers to.
func (x *execution) withIDs(content string) string {
	return applicationReference.ReplaceAllStringFunc(content, func(text string) string {
		if id := x.created[objectKey{Application, referredApplication(text)}]; id != "" {
			return id
		}
		return text
	})
}

// policy plans a policy.
func (p *planner) policy(a *Action, spec *PolicySpec) {
	content := spec.Content
	if content != nil {
		content = new(p.withIDs(*content))
	}
	present := p.zone.policies[spec.Name]
	if present == nil {
		a.Verb = Create
		a.changed("name", nil, spec.Name)
		given(a, "content", spec.Content)
		given(a, "schema_version", spec.SchemaVersion)
		given(a, "description", spec.Description)
		given(a, "owner_type", spec.OwnerType)
		p.check(store.CheckReservedName(p.Actor, store.PolicyName, spec.Name), "name")
		if spec.Content == nil {
			p.issue("is required in a new policy", "content")
			return
		}
		added := policyVersion{spec.Name, 1, "", valueOr(spec.SchemaVersion, policy.InputSchemaVersion), content}
		p.newest[spec.Name] = added
		a.step = changePolicy{spec: spec, version: added}
		return
	}
	a.ID = present.ID
	p.cannotChange(a, "description", present.Description, spec.Description)
	p.cannotChange(a, "owner_type", &present.OwnerType, spec.OwnerType)
	newest := policyVersion{spec.Name, present.VersionNumber, present.VersionID, valueOr(spec.SchemaVersion, present.SchemaVersion), content}
	if content != nil {
		digest := sha256.Sum256([]byte(*content))
		if sum := hex.EncodeToString(digest[:]); sum != present.ContentSHA256 {
			a.changed("content", map[string]string{"sha256": present.ContentSHA256}, map[string]string{"sha256": sum})
		}
	}
	differs(a, "schema_version", present.SchemaVersion, spec.SchemaVersion)
	if len(a.Changes) == 0 {
		a.Version, p.newest[spec.Name] = present.VersionID, newest
		return
	}
	if spec.Content == nil {
		p.issue("is required for another schema version", "content")
		return
	}
	a.Verb = Update
	newest.id, newest.number = "", present.VersionNumber+1
	p.newest[spec.Name] = newest
	a.step = changePolicy{id: a.ID, spec: spec, version: newest}
}

// cannotChange adds a warning if a spec has another value of a field that never changes.
func (p *planner) cannotChange(a *Action, field string, before, spec *string) {
	if spec != nil && *spec != valueOr(before, "") {
		a.Warnings = append(a.Warnings, field+" differs, and cannot be changed")
	}
}

// checkContents returns the issues of the contents of the policies that a plan writes. It
// takes long.
func checkContents(ctx context.Context, plan *Plan) (issues []code.Issue, err error) {
	for _, a := range plan.Actions {
		change, isPolicy := a.step.(changePolicy)
		if !isPolicy {
			continue
		}
		version := change.version
		if !policy.SupportedSchemaVersion(version.schemaVersion) {
			issues = append(issues, issueAt(a.object, code.Table[code.InvalidSchemaVersion].Sentence, "schema_version"))
			continue
		}
		content := withDummyIDs(*version.content)
		if utf8.RuneCountInString(content) > maxContent {
			issues = append(issues, issueAt(a.object, fmt.Sprintf("must have at most %d characters with the IDs of applications", maxContent), "content"))
			continue
		}
		_, err := policy.Validate(ctx, content, version.schemaVersion)
		var invalid *policy.CompileError
		switch {
		case errors.As(err, &invalid):
			for _, issue := range invalid.Issues {
				issues = append(issues, issueAt(a.object, positioned(issue), "content"))
			}
		case err != nil:
			return nil, err
		}
	}
	return issues, nil
}

// positioned returns an issue of a content with its position.
func positioned(issue policy.Issue) string {
	if issue.Row == 0 {
		return issue.Message
	}
	return fmt.Sprintf("%d:%d: %s", issue.Row, issue.Column, issue.Message)
}

// A changePolicy creates a policy, or adds a version to one.
type changePolicy struct {
	unsealed
	explicit
	id      string // "": creates it
	spec    *PolicySpec
	version policyVersion
}

func (s changePolicy) run(ctx context.Context, x *execution) (Result, error) {
	n := store.NewPolicyVersion{Content: x.withIDs(*s.version.content), SchemaVersion: s.version.schemaVersion}
	if s.id == "" {
		created, version, err := x.tx.CreatePolicy(ctx, x.zone, store.NewPolicy{
			Name: s.spec.Name, Description: s.spec.Description, OwnerType: valueOr(s.spec.OwnerType, defaultOwnerType), FirstVersion: n,
		})
		if err == nil {
			x.versions[s.spec.Name] = version.ID
		}
		return Result{ID: created.ID, VersionID: version.ID}, err
	}
	version, err := x.tx.AddPolicyVersion(ctx, x.zone, s.id, n)
	if err == nil {
		x.versions[s.spec.Name] = version.ID
	}
	return Result{ID: s.id, VersionID: version.ID}, err
}
