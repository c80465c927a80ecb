//go:build faults

package faults_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"caracal.run/management/gen/client"
)

// createProvider creates a provider with a secret.
func (l *load) createProvider(zone string) (*entity, bool) {
	ctx, id, cancel := l.newRequest()
	defer cancel()
	config := client.APIKeyProviderConfig{HeaderName: new("X-Api-Key"), APIKey: new("secret of " + id)}
	resp, err := l.client.CreateProviderWithResponse(ctx, zone, client.NewProvider{Name: &id, Kind: client.ProviderKindAPIKey, ConfigJSON: config})
	e := entity{kind: "providers", zone: zone, name: id}
	if err == nil && resp.JSON201 != nil {
		e.id = resp.JSON201.ID
	}
	return l.record(id, resp, err, http.StatusCreated, e)
}

// createResource creates a resource that references a provider and an
// application of its zone. It does nothing if no application is in the zone.
func (l *load) createResource(provider *entity, applications []*entity) (*entity, bool) {
	i := slices.IndexFunc(applications, func(a *entity) bool { return a.zone == provider.zone })
	if i < 0 {
		return nil, false
	}
	ctx, id, cancel := l.newRequest()
	defer cancel()
	resp, err := l.client.CreateResourceWithResponse(ctx, provider.zone, client.NewResource{
		Name: &id, UpstreamURL: new("https://upstream.example.com"), Scopes: []string{"read"},
		CredentialProviderID: &provider.id, GatewayApplicationID: &applications[i].id,
	})
	e := entity{kind: "resources", zone: provider.zone, name: id}
	if err == nil && resp.JSON201 != nil {
		e.id = resp.JSON201.ID
	}
	return l.record(id, resp, err, http.StatusCreated, e)
}

// createGrant creates a grant of an application of the resource's zone. It does nothing
// if there is none.
func (l *load) createGrant(resource *entity, applications []*entity) (*entity, bool) {
	i := slices.IndexFunc(applications, func(a *entity) bool { return a.zone == resource.zone })
	if i < 0 {
		return nil, false
	}
	ctx, id, cancel := l.newRequest()
	defer cancel()
	resp, err := l.client.CreateGrantWithResponse(ctx, resource.zone, client.NewGrant{ApplicationID: applications[i].id, UserID: id, ResourceID: resource.id, Scopes: []string{"read"}})
	e := entity{kind: "grants", zone: resource.zone, name: id}
	if err == nil && resp.JSON201 != nil {
		e.id = resp.JSON201.ID
	}
	return l.record(id, resp, err, http.StatusCreated, e)
}

// revokeGrant revokes a grant whose user has a session, so that the service revokes the
// session and publishes an event.
func (l *load) revokeGrant(g *entity) {
	insert, cancelInsert := context.WithTimeout(context.Background(), time.Second)
	defer cancelInsert()
	_, err := l.b.owner.Exec(insert, `INSERT INTO sessions (zone_id, id, session_type, subject_id, application_id, expires_at)
		SELECT zone_id, $3, 'user', user_id, application_id, now() + interval '1 hour' FROM grants WHERE zone_id = $1 AND id = $2`,
		g.zone, g.id, fmt.Sprintf("session-%d", serial.Add(1)))
	if err != nil {
		return // the session may still be committed, perhaps after the grant is revoked
	}
	ctx, id, cancel := l.newRequest()
	defer cancel()
	resp, err := l.client.RevokeGrantWithResponse(ctx, g.zone, g.id, nil)
	l.record(id, resp, err, http.StatusNoContent, entity{kind: g.kind, zone: g.zone, id: g.id, name: g.name, archived: true})
}

var grantInvariants = []invariant{
	{"each change of a grant has one audit entry, and each entry a change", `
		SELECT coalesce(g.id, e.entity_id) || ': ' || coalesce(g.version, 0) || ' changes, ' || coalesce(e.n, 0) || ' entries'
		FROM grants AS g
		FULL JOIN (SELECT zone_id, entity_id, count(*) AS n FROM audit_entries WHERE entity_type = 'grants' AND status_code < 400 GROUP BY 1, 2) AS e
			ON e.zone_id = g.zone_id AND e.entity_id = g.id
		WHERE g.version IS DISTINCT FROM e.n`},
	{"a grant can be found by its scopes", `
		SELECT id FROM grants AS g
		WHERE NOT EXISTS (SELECT FROM grant_scopes AS s WHERE s.zone_id = g.zone_id AND s.scope = 'read' AND s.created_at = g.created_at AND s.grant_id = g.id)`},
	{"no session of the user of a revoked grant is active", `
		SELECT s.id FROM grants AS g JOIN sessions AS s ON s.zone_id = g.zone_id AND s.subject_id = g.user_id
		WHERE g.status = 'revoked' AND s.status = 'active' AND s.created_at < g.updated_at`},
}
