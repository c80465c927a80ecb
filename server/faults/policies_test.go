//go:build faults

package faults_test

import (
	"math/rand/v2"
	"net/http"

	"caracal.run/management/gen/client"
)

// A policySet is the policy set of a shared zone, with the IDs of its versions.
type policySet struct {
	id       string
	versions []string
}

// createPolicySet creates a policy with two versions, and a policy set with a version
// for each.
func (l *load) createPolicySet(zone string) {
	ctx, _, cancel := l.newRequest()
	defer cancel()
	fail := func(err error) {
		if err != nil {
			l.t.Fatal(err)
		}
	}
	content := func(application string) string {
		return "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {\"billing\": \"" + application + "\"}\n"
	}
	created, err := l.client.CreatePolicyWithResponse(ctx, zone, client.NewPolicy{Name: "Applications", Content: content("first")})
	fail(err)
	added, err := l.client.AddPolicyVersionWithResponse(ctx, zone, created.JSON201.ID, client.NewPolicyVersion{Content: content("second")})
	fail(err)
	set, err := l.client.CreatePolicySetWithResponse(ctx, zone, client.NewPolicySet{Name: "Production"})
	fail(err)
	p := policySet{id: set.JSON201.ID}
	for _, id := range []string{created.JSON201.VersionID, added.JSON201.VersionID} {
		version, err := l.client.AddPolicySetVersionWithResponse(ctx, zone, p.id, client.NewPolicySetVersion{Manifest: []client.NewManifestEntry{{PolicyVersionID: id}}})
		fail(err)
		p.versions = append(p.versions, version.JSON201.ID)
	}
	l.policySets[zone] = p
}

// activatePolicySet activates one of the versions of a zone's policy set.
func (l *load) activatePolicySet(r *rand.Rand, zone string) {
	ctx, id, cancel := l.newRequest()
	defer cancel()
	set := l.policySets[zone]
	resp, err := l.client.ActivatePolicySetWithResponse(ctx, zone, set.id, client.NewPolicySetActivation{VersionID: set.versions[r.IntN(len(set.versions))]})
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && resp.StatusCode() == http.StatusAccepted {
		l.acknowledged = append(l.acknowledged, change{id, "policy-sets", set.id})
	}
}

// policyInvariants are invariants of activations.
var policyInvariants = []invariant{
	{"at most one policy set of a zone is active, and it is not archived", `
		SELECT zone_id || ': ' || count(*) FROM policy_sets WHERE active_version_id IS NOT NULL GROUP BY zone_id HAVING count(*) > 1 OR bool_or(archived_at IS NOT NULL)`},
	{"the changes of a zone are numbered without gaps", `
		SELECT zone_id || ': ' || count(*) || ' changes up to ' || max(number) FROM policy_activations GROUP BY zone_id HAVING count(*) <> max(number)`},
	{"each change follows the one before", `
		SELECT zone_id || ': ' || number FROM (SELECT *, lag(version_id) OVER (PARTITION BY zone_id ORDER BY number) AS before FROM policy_activations) AS a
		WHERE previous_version_id IS DISTINCT FROM before`},
	{"the last change of a zone is what is active", `
		SELECT zone_id || ': ' || last.number FROM (SELECT DISTINCT ON (zone_id) * FROM policy_activations ORDER BY zone_id, number DESC) AS last
		LEFT JOIN policy_sets AS s USING (zone_id)
		GROUP BY zone_id, last.number, last.version_id HAVING last.version_id IS DISTINCT FROM max(s.active_version_id)`},
	{"each change has one event, in the same order", `
		SELECT coalesce(a.zone_id, o.zone_id) || ': change ' || coalesce(a.number, 0) || ', event ' || coalesce(o.number, 0)
		FROM policy_activations AS a
		FULL JOIN (SELECT zone_id, id, row_number() OVER (PARTITION BY zone_id ORDER BY seq) AS number FROM outbox WHERE fields ? 'policy_set_id') AS o
			ON o.zone_id = a.zone_id AND o.id = a.outbox_id
		WHERE a.number IS DISTINCT FROM o.number`},
	{"each change of a policy set has one audit entry, and each entry a change", `
		SELECT coalesce(s.id, e.entity_id) || ': ' || coalesce(s.version, 0) || ' changes, ' || coalesce(e.n, 0) || ' entries'
		FROM policy_sets AS s
		FULL JOIN (SELECT zone_id, entity_id, count(*) AS n FROM audit_entries WHERE entity_type = 'policy-sets' AND status_code < 400 GROUP BY 1, 2) AS e
			ON e.zone_id = s.zone_id AND e.entity_id = s.id
		WHERE s.version IS DISTINCT FROM e.n`},
}
