package storetest

import (
	"fmt"
	"time"
)

// A fixture's arguments are only the rows that it references; every other column
// has a valid value.

// id returns an id that no other fixture has, and that sorts after those of earlier ones.
func id(kind string) string { return fmt.Sprintf("%s-%06d", kind, serial.Add(1)) }

// Session inserts an active session of a user and returns its id.
func (d *DB) Session(zone string) string {
	d.tb.Helper()
	return d.insertSession(zone, "user", "user-1", nil)
}

// IssuedSession inserts an active session of a user that was issued to an application.
func (d *DB) IssuedSession(zone, user, application string) string {
	d.tb.Helper()
	s := d.insertSession(zone, "user", user, nil)
	d.Exec("UPDATE sessions SET application_id = $3 WHERE zone_id = $1 AND id = $2", zone, s, application)
	return s
}

// ApplicationSession inserts an active session of an application.
func (d *DB) ApplicationSession(zone, application string) string {
	d.tb.Helper()
	return d.insertSession(zone, "application", application, nil)
}

// ChildSession inserts an active child session of a session.
func (d *DB) ChildSession(zone, parent string) string {
	d.tb.Helper()
	return d.insertSession(zone, "user", "user-1", &parent)
}

func (d *DB) insertSession(zone, kind, subject string, parent *string) string {
	d.tb.Helper()
	s := id("session")
	d.Exec("INSERT INTO sessions (zone_id, id, session_type, subject_id, parent_id, expires_at) VALUES ($1, $2, $3, $4, $5, now() + interval '1 hour')",
		zone, s, kind, subject, parent)
	return s
}

// AgentSession inserts an active agent session of an application, with a subject
// session.
func (d *DB) AgentSession(zone, application, session string) string {
	d.tb.Helper()
	a := id("agent")
	d.Exec("INSERT INTO agent_sessions (zone_id, id, application_id, subject_session_id, labels) VALUES ($1, $2, $3, $4, '{planner}')", zone, a, application, session)
	return a
}

// ChildAgentSession inserts an active child agent session of an agent session.
func (d *DB) ChildAgentSession(zone, application, session, parent string) string {
	d.tb.Helper()
	a := id("agent")
	d.Exec("INSERT INTO agent_sessions (zone_id, id, application_id, subject_session_id, parent_id, depth) VALUES ($1, $2, $3, $4, $5, 1)",
		zone, a, application, session, parent)
	d.Exec("UPDATE agent_sessions SET child_count = child_count + 1 WHERE zone_id = $1 AND id = $2", zone, parent)
	return a
}

// DelegationEdge inserts an active delegation edge between agent sessions.
func (d *DB) DelegationEdge(zone, source, target string) string {
	d.tb.Helper()
	e := id("edge")
	d.Exec(`INSERT INTO delegation_edges (zone_id, id, source_session_id, target_session_id, issuer_application_id, receiver_application_id, expires_at)
		SELECT $1, $2, s.id, t.id, s.application_id, t.application_id, now() + interval '1 hour'
		FROM agent_sessions AS s, agent_sessions AS t WHERE s.zone_id = $1 AND s.id = $3 AND t.zone_id = $1 AND t.id = $4`, zone, e, source, target)
	return e
}

// DCRApplications inserts active registered applications.
func (d *DB) DCRApplications(zone string, count int) {
	d.tb.Helper()
	d.Exec(`WITH registered AS (
			INSERT INTO applications (zone_id, id, name, registration_method, expires_at)
			SELECT $1, $2 || '-' || n, 'Registered', 'dcr', now() + interval '1 hour' FROM generate_series(1, $3) AS n RETURNING zone_id, id)
		INSERT INTO application_secrets (zone_id, application_id, id, secret_hash) SELECT zone_id, id, 'secret-' || id, 'sha256$' FROM registered`, zone, id("dcr"), count)
}

// ArchivedZone inserts an archived zone.
func (d *DB) ArchivedZone() string {
	d.tb.Helper()
	z := id("archived")
	d.Exec("INSERT INTO zones (id, name, slug, reserved, archived_at) VALUES ($1, 'Archived', $1, false, now())", z)
	return z
}

// Event inserts a pending event.
func (d *DB) Event(zone, stream string) string {
	d.tb.Helper()
	e := id("event")
	d.Exec(`INSERT INTO outbox (zone_id, id, stream, fields, request_id) VALUES ($1, $2, $3, jsonb_build_object('zone_id', $1::text), 'fixture')`, zone, e, stream)
	return e
}

// DeadLetter inserts a dead event.
func (d *DB) DeadLetter(zone string) string {
	d.tb.Helper()
	e := id("dead")
	d.Exec(`INSERT INTO outbox (zone_id, id, stream, fields, request_id, attempts, last_error, dead_at) VALUES ($1, $2, 'caracal.policy.invalidate', '{}', 'fixture', 5, 'rejected', now())`, zone, e)
	return e
}

// Application inserts a managed application.
func (d *DB) Application(zone string) string {
	d.tb.Helper()
	a := id("application")
	d.Exec("INSERT INTO applications (zone_id, id, name, registration_method) VALUES ($1, $2, 'Billing', 'managed')", zone, a)
	d.ApplicationSecret(zone, a, nil)
	return a
}

// RegistrationToken inserts a token that allows clients to register.
func (d *DB) RegistrationToken(zone string) string {
	d.tb.Helper()
	t := id("registration-token")
	d.Exec("INSERT INTO registration_tokens (zone_id, id, name, token_sha256) VALUES ($1, $2, 'Clients', sha256(convert_to($2, 'UTF8')))", zone, t)
	return t
}

// ClientRegistration inserts the registration of an application.
func (d *DB) ClientRegistration(zone, application string) {
	d.tb.Helper()
	d.Exec("INSERT INTO client_registrations (zone_id, application_id, token_sha256, metadata) VALUES ($1, $2, sha256(convert_to($2, 'UTF8')), '{}')", zone, application)
}

// ApplicationSecret inserts a client secret of an application that expires at a time, or
// never if it is nil.
func (d *DB) ApplicationSecret(zone, application string, expires *time.Time) string {
	d.tb.Helper()
	s := id("secret")
	d.Exec("INSERT INTO application_secrets (zone_id, application_id, id, secret_hash, expires_at) VALUES ($1, $2, $3, 'sha256$', $4)", zone, application, s, expires)
	return s
}

// Provider inserts a provider without secrets.
func (d *DB) Provider(zone string) string {
	d.tb.Helper()
	p := id("provider")
	d.Exec("INSERT INTO providers (zone_id, id, name, identifier, kind) VALUES ($1, $2, 'Provider', 'provider://' || $2, 'caracal_mandate')", zone, p)
	return p
}

// Resource inserts a resource with its own provider and application.
func (d *DB) Resource(zone string) string {
	d.tb.Helper()
	r := id("resource")
	d.Exec(`INSERT INTO resources (zone_id, id, name, identifier, upstream_url, scopes, credential_provider_id, gateway_application_id, operation_enforcement)
		VALUES ($1, $2, 'Resource', 'https://' || $2 || '.example.com', 'https://upstream.example.com', '{read}', $3, $4, 'enforced')`, zone, r, d.Provider(zone), d.Application(zone))
	return r
}

// Grant inserts an active grant of an application for a user and a resource.
func (d *DB) Grant(zone, application, resource string) string {
	d.tb.Helper()
	g := id("grant")
	d.Exec("INSERT INTO grants (zone_id, id, application_id, user_id, resource_id, scopes) VALUES ($1, $2, $3, 'user-1', $4, '{read}')", zone, g, application, resource)
	d.Exec("INSERT INTO grant_scopes (zone_id, scope, created_at, grant_id) SELECT zone_id, 'read', created_at, id FROM grants WHERE zone_id = $1 AND id = $2", zone, g)
	return g
}

// ProviderGrant inserts an active grant of a user for a resource and its provider.
// Its tokens are not sealed: opening them fails.
func (d *DB) ProviderGrant(zone, resource string) string {
	d.tb.Helper()
	g := id("grant")
	d.Exec("INSERT INTO data_keys (zone_id, number, wrapped_by, wrapped) VALUES ($1, 1, 'kek', 'x') ON CONFLICT DO NOTHING", zone)
	d.Exec(`INSERT INTO provider_grants (zone_id, id, user_id, resource_id, provider_id, access_token, refresh_token, data_key)
		SELECT $1, $2, 'user-1', $3, credential_provider_id, 'access', 'refresh', 1 FROM resources WHERE zone_id = $1 AND id = $3`, zone, g, resource)
	return g
}

// SigningKey inserts the signing key of a zone. It is not sealed: signing with it fails.
func (d *DB) SigningKey(zone string) string {
	d.tb.Helper()
	k := id("key")
	d.Exec("INSERT INTO data_keys (zone_id, number, wrapped_by, wrapped) VALUES ($1, 1, 'kek', 'x') ON CONFLICT DO NOTHING", zone)
	d.Exec(`INSERT INTO signing_keys (zone_id, id, public_jwk, private_key, data_key)
		VALUES ($1, $2, '{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}', 'x', 1)`, zone, k)
	return k
}

// IdempotencyKey inserts the response of a request that was processed some hours ago. It is
// not sealed: opening it fails.
func (d *DB) IdempotencyKey(zone string, hoursAgo int) string {
	d.tb.Helper()
	k := id("idempotency-key")
	d.Exec(`INSERT INTO idempotency_keys (zone_id, id, locked, wrapped_by, wrapped, response, created_at)
		VALUES ($1, $2, true, 'kek', 'x', 'x', now() - $3 * interval '1 hour')`, zone, k, hoursAgo)
	return k
}

// Policy inserts a policy with one version. It returns the ids of both.
func (d *DB) Policy(zone string) (policy, version string) {
	d.tb.Helper()
	return d.PolicyWith(zone, "# caracal:data-document\npackage caracal.authz\n\nrestrict := []\n")
}

// PolicyWith inserts a policy with one version of the given content. It returns the
// ids of both.
func (d *DB) PolicyWith(zone, content string) (policy, version string) {
	d.tb.Helper()
	p, v := id("policy"), id("policy-version")
	d.Exec("INSERT INTO policies (zone_id, id, name, owner_type, latest_version, created_by) VALUES ($1, $2, $2, 'customer', 1, 'fixture')", zone, p)
	d.Exec(`INSERT INTO policy_versions (zone_id, id, policy_id, version, content, content_sha256, schema_version, created_by)
		VALUES ($1, $2, $3, 1, $4, encode(sha256(convert_to($4, 'UTF8')), 'hex'), '2026-05-20', 'fixture')`, zone, v, p, content)
	return p, v
}

// ActivePolicySet inserts a policy set whose only version contains a policy version,
// and activates it. The zone must not have an active policy set.
func (d *DB) ActivePolicySet(zone, policyVersion string) string {
	d.tb.Helper()
	s, v := d.PolicySet(zone, policyVersion)
	d.Exec("UPDATE policy_sets SET active_version_id = $3 WHERE zone_id = $1 AND id = $2", zone, s, v)
	d.Exec("INSERT INTO policy_activations (zone_id, number, action, policy_set_id, version_id, outbox_id, activated_by) VALUES ($1, 1, 'activate', $2, $3, $4, 'fixture')",
		zone, s, v, id("event"))
	return s
}

// PolicySet inserts a policy set whose only version contains a policy version. It
// returns the ids of both.
func (d *DB) PolicySet(zone, policyVersion string) (set, version string) {
	d.tb.Helper()
	s := id("policy-set")
	return s, d.PolicySetVersion(zone, s, policyVersion)
}

// PolicySetVersion inserts the next version of a policy set, which contains a policy
// version. It creates the policy set if it does not exist.
func (d *DB) PolicySetVersion(zone, policySet, policyVersion string) string {
	d.tb.Helper()
	v := id("policy-set-version")
	d.Exec(`INSERT INTO policy_sets AS s (zone_id, id, name, latest_version, created_by) VALUES ($1, $2, $2, 1, 'fixture')
		ON CONFLICT (zone_id, id) DO UPDATE SET latest_version = s.latest_version + 1`, zone, policySet)
	d.Exec(`INSERT INTO policy_set_versions (zone_id, id, policy_set_id, version, manifest_sha256, schema_version, created_by)
		SELECT zone_id, $3, id, latest_version, 'x', '2026-05-20', 'fixture' FROM policy_sets WHERE zone_id = $1 AND id = $2`, zone, policySet, v)
	d.Exec("INSERT INTO policy_set_manifests (zone_id, policy_set_version_id, position, policy_version_id) VALUES ($1, $2, 1, $3)", zone, v, policyVersion)
	return v
}
