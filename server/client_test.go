package server_test

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
)

// TestClientCallsEveryOperation calls every operation through its method. The
// transport validates the responses against the spec, and repeats the requests that take an
// Idempotency-Key.
func TestClientCallsEveryOperation(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "OUTBOX_MAX_ATTEMPTS=1")
	recorder := &operationRecorder{next: repeater{t, a}, calls: map[string]int{}}
	c, ctx := newClient(t, a, recorder), t.Context()

	zone := result(c.CreateZone(ctx, client.NewZone{Name: "Production", DCREnabled: new(true)}))(t)
	t.Run("zones", func(t *testing.T) {
		var etag string
		if got := result(c.GetZone(ctx, zone.ID, client.ReadETag(&etag)))(t); got != zone {
			t.Errorf("got %+v, want %+v", got, zone)
		}
		updated := result(c.UpdateZone(ctx, zone.ID, client.ZonePatch{Name: new("Staging")}, client.IfMatch(etag)))(t)
		if updated.Name != "Staging" {
			t.Errorf("got %+v", updated)
		}
		_, err := c.UpdateZone(ctx, zone.ID, client.ZonePatch{Name: new("Other")}, client.IfMatch(etag))
		expectCode(t, err, client.CodeVersionConflict)
		if page := result(c.ListZones(ctx))(t); len(page.Items) != 1 || page.Items[0] != updated || page.Next != "" {
			t.Errorf("got %+v", page)
		}
		if page := result(c.ListZones(ctx, client.ListZonesParams{Slug: "other"}))(t); len(page.Items) != 0 {
			t.Errorf("got %+v", page)
		}
		if status := result(c.GetDCRStatus(ctx, zone.ID))(t); status.ID != zone.ID || !status.DCREnabled {
			t.Errorf("got %+v", status)
		}
	})

	app := result(c.CreateApplication(ctx, zone.ID, client.NewApplication{Name: "Billing", RegistrationMethod: client.NewApplicationRegistrationMethodManaged}))(t)
	t.Run("applications", func(t *testing.T) {
		dcrApplications := result(c.RegisterApplication(ctx, zone.ID, client.ApplicationRegistration{Name: "Agent"}))(t)
		if app.ClientSecret == "" || dcrApplications.ExpiresAt == nil {
			t.Errorf("got %+v and %+v", app, dcrApplications)
		}
		result(c.UpdateApplication(ctx, zone.ID, app.ID, client.ApplicationPatch{Name: new("Invoicing")}))(t)
		if rotated := result(c.RotateApplicationSecret(ctx, zone.ID, app.ID, client.SecretRotation{OverlapSeconds: new(int64(60))}))(t); len(rotated.Secrets) != 2 {
			t.Errorf("got %+v", rotated)
		}
		if got := result(c.GetApplication(ctx, zone.ID, app.ID))(t); got.Name != "Invoicing" {
			t.Errorf("got %+v", got)
		}
		var names []string
		for item, err := range c.Applications(ctx, zone.ID, client.Limit(1)) {
			names = append(names, result(item, err)(t).Name)
		}
		if !slices.Equal(names, []string{"Agent", "Invoicing"}) {
			t.Errorf("listed %q", names)
		}
		for item, err := range c.Applications(ctx, zone.ID, client.ListApplicationsParams{RegistrationMethod: client.RegistrationMethodDCR}) {
			if got := result(item, err)(t); got.ID != dcrApplications.ID {
				t.Errorf("listed %+v", got)
			}
		}
		noError(t, c.DeleteApplication(ctx, zone.ID, dcrApplications.ID))
		expectCode(t, c.DeleteApplication(ctx, zone.ID, dcrApplications.ID), client.CodeApplicationNotFound)
	})

	t.Run("control keys", func(t *testing.T) {
		zone := result(c.CreateZone(ctx, client.NewZone{Name: "Automation"}))(t)
		key := result(c.CreateControlKey(ctx, zone.ID, client.NewControlKey{Name: "Nightly", AllowedScopes: []client.ControlScope{client.ControlScopeControlAppRead}}))(t)
		if got := result(c.GetControlKey(ctx, zone.ID, key.ID))(t); got.Name != "Nightly" {
			t.Errorf("got %+v", got)
		}
		for item, err := range c.ControlKeys(ctx, zone.ID) {
			if got := result(item, err)(t); got.ID != key.ID {
				t.Errorf("listed %+v", got)
			}
		}
		if page := result(c.ListControlKeys(ctx, zone.ID))(t); len(page.Items) != 1 {
			t.Errorf("got %+v", page)
		}
		noError(t, c.DeleteControlKey(ctx, zone.ID, key.ID))
		b := controlBenchOf(t, a, zone.ID)
		as, err := client.New(a.URL, b.token(), client.WithTransport(recorder))
		if err != nil {
			t.Fatal(err)
		}
		got := result(as.InvokeControl(ctx, client.ControlInvocation{Command: new("catalog"), Subcommand: new("describe")}))(t)
		if !got.OK || !strings.Contains(string(got.Result), "control:app:read") {
			t.Errorf("got %+v", got)
		}
		_, err = as.InvokeControl(ctx, client.ControlInvocation{Command: new("app"), Subcommand: new("list")})
		expectCode(t, err, client.CodeControlDenied)
	})

	provider := result(c.CreateProvider(ctx, zone.ID, client.NewProvider{
		Name: new("Ledger"), Kind: client.ProviderKindOAuth2ClientCredentials,
		ConfigJSON: client.OAuth2ClientCredentialsProviderConfig{
			TokenEndpoint: "https://localhost/token", AllowedTokenHosts: []string{"localhost"}, ClientID: "caracal", ClientSecret: new("hush-client"),
		},
	}))(t)
	t.Run("client registration", func(t *testing.T) { callClientRegistration(t, c, zone.ID) })
	t.Run("tokens", func(t *testing.T) { callTokenOperations(t, c) })

	t.Run("providers", func(t *testing.T) {
		if !slices.Equal(provider.SecretConfigKeys, []string{"client_secret"}) || strings.Contains(string(provider.ConfigJSON), "hush") {
			t.Errorf("got %+v", provider)
		}
		if test := result(c.TestProvider(ctx, zone.ID, provider.ID))(t); test.Reachable || test.Status != nil {
			t.Errorf("the loopback address is reachable: %+v", test)
		}
		if found := result(c.DiscoverProvider(ctx, client.ProviderToDiscover{Resource: "https://127.0.0.1/mcp"}))(t); found.Found || found.ConfigJSON != nil {
			t.Errorf("the loopback address has metadata: %+v", found)
		}
		key := result(c.UpdateProvider(ctx, zone.ID, provider.ID, client.ProviderPatch{
			Kind: new(client.ProviderKindAPIKey), ConfigJSON: client.APIKeyProviderConfig{HeaderName: new("X-Api-Key"), APIKey: new("hush-key")},
		}))(t)
		if got := result(c.GetProvider(ctx, zone.ID, provider.ID))(t); !reflect.DeepEqual(got, key) || got.Kind != client.ProviderKindAPIKey {
			t.Errorf("got %+v, want %+v", got, key)
		}
		none := result(c.CreateProvider(ctx, zone.ID, client.NewProvider{Name: new("None"), Kind: client.ProviderKindNone, ConfigJSON: client.NoProviderConfig{}}))(t)
		noError(t, c.DeleteProvider(ctx, zone.ID, none.ID))
		if page := result(c.ListProviders(ctx, zone.ID))(t); len(page.Items) != 1 || !reflect.DeepEqual(page.Items[0], key) {
			t.Errorf("got %+v", page)
		}
		_, err := c.CreateProvider(ctx, zone.ID, client.NewProvider{Name: new("Broken"), Kind: client.ProviderKindAPIKey, ConfigJSON: client.RawJSON(`{"api_key":7}`)})
		expectCode(t, err, client.CodeInvalidProviderConfig)
	})

	t.Run("resources", func(t *testing.T) {
		resource := result(c.CreateResource(ctx, zone.ID, client.NewResource{
			Name: new("Invoices"), UpstreamURL: new("https://invoices.example.com"), Scopes: []string{"invoices:read"},
			CredentialProviderID: &provider.ID, GatewayApplicationID: &app.ID,
		}))(t)
		result(c.UpdateResource(ctx, zone.ID, resource.ID, client.ResourcePatch{UpstreamURL: client.Set("https://other.example.com")}))(t)
		got := result(c.GetResource(ctx, zone.ID, resource.ID))(t)
		if got.UpstreamURL == nil || *got.UpstreamURL != "https://other.example.com" {
			t.Errorf("got %+v", got)
		}
		_, err := c.UpdateResource(ctx, zone.ID, resource.ID, client.ResourcePatch{GatewayApplicationID: client.Null[string]()})
		expectCode(t, err, client.CodeGatewayApplicationRequired)
		expectCode(t, c.DeleteProvider(ctx, zone.ID, provider.ID), client.CodeProviderInUse)
		if page := result(c.ListResources(ctx, zone.ID))(t); len(page.Items) != 1 || page.Items[0].ID != resource.ID {
			t.Errorf("got %+v", page)
		}
		grant := result(c.CreateGrant(ctx, zone.ID, client.NewGrant{ApplicationID: app.ID, UserID: "user-7", ResourceID: resource.ID, Scopes: []string{"invoices:read"}}))(t)
		if got := result(c.GetGrant(ctx, zone.ID, grant.ID))(t); !reflect.DeepEqual(got, grant) || got.Status != client.GrantStatusActive {
			t.Errorf("got %+v, want %+v", got, grant)
		}
		for item, err := range c.Grants(ctx, zone.ID, client.ListGrantsParams{UserID: "user-7", Scopes: []string{"invoices:read", "invoices:read"}}) {
			if got := result(item, err)(t); got.ID != grant.ID || got.ApplicationName != "Invoicing" || got.ProviderID != provider.ID {
				t.Errorf("listed %+v", got)
			}
		}
		if page := result(c.ListGrants(ctx, zone.ID, client.ListGrantsParams{Scopes: []string{"invoices:read", "invoices:write"}}))(t); len(page.Items) != 0 {
			t.Errorf("got %+v", page)
		}
		noError(t, c.RevokeGrant(ctx, zone.ID, grant.ID))
		if got := result(c.GetGrant(ctx, zone.ID, grant.ID))(t); got.Status != client.GrantStatusRevoked {
			t.Errorf("got %+v", got)
		}
		noError(t, c.DeleteResource(ctx, zone.ID, resource.ID))
	})

	t.Run("sessions", func(t *testing.T) {
		ids := []string{a.DB.ApplicationSession(zone.ID, app.ID), a.DB.Session(zone.ID)}
		agent := a.DB.AgentSession(zone.ID, app.ID, ids[0])
		page := result(c.ListSessions(ctx, zone.ID, client.Limit(1)))(t)
		if len(page.Items) != 1 || page.Items[0].ID != ids[1] || page.Next == "" {
			t.Errorf("got %+v", page)
		}
		var got []string
		for session, err := range c.Sessions(ctx, zone.ID, client.Limit(1), client.ListSessionsParams{Status: client.SessionStatusActive}) {
			got = append(got, result(session, err)(t).ID)
		}
		if !slices.Equal(got, []string{ids[1], ids[0]}) {
			t.Errorf("got %v, want %v", got, ids)
		}
		for found, err := range c.AgentSessions(ctx, zone.ID, client.ListAgentSessionsParams{Label: "planner", ApplicationID: app.ID}) {
			if got := result(found, err)(t); got.ID != agent || !slices.Equal(got.Labels, []string{"planner"}) {
				t.Errorf("got %+v", got)
			}
		}
		for _, export := range []*client.Export{
			result(c.ExportSessions(ctx, zone.ID, client.ListFormatCSV, client.ListSessionsParams{Status: client.SessionStatusActive}))(t),
			result(c.ExportSessions(ctx, zone.ID, client.ListFormatNDJSON))(t),
			result(c.ExportAgentSessions(ctx, zone.ID, client.ListFormatCSV))(t),
		} {
			text, err := io.ReadAll(export)
			noError(t, errors.Join(err, export.Close()))
			if export.Rows() == 0 || !strings.Contains(string(text), agent) && !strings.Contains(string(text), ids[0]) {
				t.Errorf("exported %d rows: %s", export.Rows(), text)
			}
		}
		if page := result(c.ListAgentSessions(ctx, zone.ID, client.ListAgentSessionsParams{Lifecycle: client.AgentLifecycleService}))(t); len(page.Items) != 0 || page.Next != "" {
			t.Errorf("got %+v", page)
		}
	})

	t.Run("audit events", func(t *testing.T) {
		ids := []string{a.DB.AuditEvent(zone.ID, map[string]any{"request_id": "r-1"}), a.DB.AuditEvent(zone.ID, map[string]any{"decision": "deny", "metadata": nil})}
		page := result(c.ListAuditEvents(ctx, zone.ID, client.Limit(1), client.ListAuditEventsParams{RequestID: "r-1", Since: "2020-01-01T00:00Z"}))(t)
		if len(page.Items) != 1 || page.Items[0].ID != ids[0] || *page.Items[0].RequestID != "r-1" || !strings.Contains(string(page.Items[0].MetadataJSON), `"session_id":"session-1"`) {
			t.Errorf("got %+v", page)
		}
		var labels []string
		for event, err := range c.AuditEvents(ctx, zone.ID, client.Limit(1), client.ListAuditEventsParams{Fields: "agent_labels"}) {
			labels = append(labels, string(result(event, err)(t).AgentLabels))
		}
		if !slices.Equal(labels, []string{"", `["planner"]`}) { // the newest event has no metadata
			t.Errorf("got %q", labels)
		}
		if page := result(c.ListAuditEventsOfRequest(ctx, zone.ID, "r-1", client.Limit(1)))(t); len(page.Items) != 1 || page.Items[0].ID != ids[0] || page.Next != "" {
			t.Errorf("got %+v", page)
		}
		if got := result(c.GetOverview(ctx, zone.ID))(t); got.Decisions24H.Denied != 1 || len(got.RecentEvents) != 2 {
			t.Errorf("got %+v", got)
		}
		if got := result(c.ExplainRequest(ctx, zone.ID, "r-1"))(t); got.FinalDecision != "allow" || len(got.Events) != 1 {
			t.Errorf("got %+v", got)
		}
		export := result(c.ExportAuditEvents(ctx, zone.ID, client.ListFormatCSV, client.ListAuditEventsParams{Decision: client.AuditDecisionDeny, Fields: "id"}))(t)
		text, err := io.ReadAll(export)
		noError(t, errors.Join(err, export.Close()))
		if string(text) != "id\r\n"+ids[1]+"\r\n" {
			t.Errorf("exported %q", text)
		}
	})

	t.Run("provider grants", func(t *testing.T) {
		login := result(c.CreateProvider(ctx, zone.ID, client.NewProvider{Name: new("Login"), Kind: client.ProviderKindOAuth2AuthorizationCode, ConfigJSON: rawConfig(codeConfig)}))(t)
		resource := result(c.CreateResource(ctx, zone.ID, client.NewResource{
			Name: new("Receipts"), UpstreamURL: new("https://receipts.example.com"), Scopes: []string{"read"}, CredentialProviderID: &login.ID, GatewayApplicationID: &app.ID,
		}))(t)
		granted := result(c.CreateProviderGrant(ctx, zone.ID, client.NewProviderGrant{
			UserID: "user-1", ResourceID: resource.ID, ProviderID: login.ID, Scopes: []string{"read"}, AccessToken: "hush",
		}))(t)
		if got := result(c.GetProviderGrant(ctx, zone.ID, granted.ID))(t); !reflect.DeepEqual(got, granted) || !slices.Equal(got.StoredTokens, []client.StoredToken{client.StoredTokenAccessToken}) {
			t.Errorf("got %+v", got)
		}
		if page := result(c.ListProviderGrants(ctx, zone.ID, client.ListProviderGrantsParams{Status: client.ProviderGrantStatusActive}))(t); len(page.Items) != 1 || page.Items[0].ID != granted.ID {
			t.Errorf("got %+v", page)
		}
		for grant, err := range c.ProviderGrants(ctx, zone.ID, client.ListProviderGrantsParams{UserID: "user-1"}) {
			if err != nil || grant.ID != granted.ID {
				t.Errorf("got %+v, %v", grant, err)
			}
		}
		started := result(c.AuthorizeProviderGrant(ctx, zone.ID, client.NewProviderAuthorization{UserID: "user-1", ResourceID: resource.ID, ProviderID: login.ID, Scopes: []string{"read"}}))(t)
		_, err := c.CompleteProviderGrant(ctx, zone.ID, client.CompleteProviderGrantParams{State: started.State, Error: "access_denied"})
		expectCode(t, err, client.CodeProviderOAuthDenied)
		key := client.ProviderGrantRevocation{UserID: "user-1", ResourceID: resource.ID, ProviderID: login.ID}
		if revoked := result(c.RevokeProviderGrant(ctx, zone.ID, key))(t); revoked.ID != granted.ID || revoked.Status != client.ProviderGrantStatusRevoked {
			t.Errorf("got %+v", revoked)
		}
		_, err = c.RevokeProviderGrant(ctx, zone.ID, key)
		expectCode(t, err, client.CodeProviderGrantNotFound)
	})

	t.Run("policies", func(t *testing.T) {
		created := result(c.CreatePolicy(ctx, zone.ID, client.NewPolicy{Name: "Grants", Content: documentOf("one")}))(t)
		if created.OwnerType != "customer" || created.Version.Version != 1 || created.VersionID != created.Version.ID {
			t.Errorf("got %+v", created)
		}
		added := result(c.AddPolicyVersion(ctx, zone.ID, created.ID, client.NewPolicyVersion{Content: documentOf("two")}))(t)
		policy := result(c.GetPolicy(ctx, zone.ID, created.ID, client.GetPolicyParams{Content: "latest"}))(t)
		if len(policy.Versions) != 2 || policy.Versions[0].Content != documentOf("two") || policy.Versions[1].Content != "" {
			t.Errorf("got %+v", policy)
		}
		if first := result(c.GetPolicyVersion(ctx, zone.ID, created.ID, created.VersionID))(t); first.Content != documentOf("one") {
			t.Errorf("got %+v", first)
		}
		var versions []string
		for item, err := range c.PolicyVersions(ctx, zone.ID, created.ID, client.Limit(1)) {
			versions = append(versions, result(item, err)(t).ID)
		}
		if !slices.Equal(versions, []string{added.ID, created.VersionID}) {
			t.Errorf("listed %q", versions)
		}
		_, err := c.AddPolicyVersion(ctx, zone.ID, created.ID, client.NewPolicyVersion{Content: "allow = true"})
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.CodeInvalidRego || e.Extra["detail"] == nil || len(client.PolicyIssues(err)) == 0 || !strings.Contains(err.Error(), " 1:1: The first statement must be: package caracal.authz.") {
			t.Errorf("got %v", err)
		}
		if page := result(c.ListPolicies(ctx, zone.ID))(t); len(page.Items) != 1 || page.Items[0].ID != created.ID {
			t.Errorf("got %+v", page)
		}
		noError(t, c.DeletePolicy(ctx, zone.ID, created.ID))
		templates := result(c.ListPolicyTemplates(ctx))(t)
		template := result(c.GetPolicyTemplate(ctx, templates[0].ID))(t)
		if v := result(c.ValidatePolicy(ctx, client.PolicyToValidate{Content: template.Content}))(t); !v.Valid || !slices.Equal(v.Preview.Rules, []string{"app_ids"}) {
			t.Errorf("got %+v", v)
		}
	})

	t.Run("policy sets", func(t *testing.T) {
		set := result(c.CreatePolicySet(ctx, zone.ID, client.NewPolicySet{Name: "Payments"}))(t)
		if got := result(c.GetPolicySet(ctx, zone.ID, set.ID))(t); got != set {
			t.Errorf("got %+v, want %+v", got, set)
		}
		first := result(c.AddPolicySetVersion(ctx, zone.ID, set.ID, client.NewPolicySetVersion{Manifest: []client.NewManifestEntry{{PolicyVersionID: insertPolicyVersion(a.DB, zone.ID)}}}))(t)
		if got := result(c.GetPolicySetVersion(ctx, zone.ID, set.ID, first.ID))(t); got.Version != 1 || len(got.Policies) != 1 {
			t.Errorf("got %+v", got)
		}
		activation := result(c.ActivatePolicySet(ctx, zone.ID, set.ID, client.NewPolicySetActivation{VersionID: first.ID, ShadowVersionID: &first.ID}))(t)
		_, err := c.RollbackPolicySet(ctx, zone.ID, set.ID)
		expectCode(t, err, client.CodeNoPreviousVersion)
		for change, err := range c.PolicyActivations(ctx, zone.ID) {
			if err != nil || change.OutboxID != activation.OutboxID {
				t.Errorf("got %+v, %v", change, err)
			}
		}
		status := result(c.GetActivationStatus(ctx, zone.ID, set.ID, client.GetActivationStatusParams{OutboxID: activation.OutboxID}))(t)
		if !status.Active || *status.Outbox.ID != activation.OutboxID || status.STS.State != client.STSPolicyStatusStateNotConfigured {
			t.Errorf("got %+v", status)
		}
		if d := result(c.DeactivatePolicySet(ctx, zone.ID, set.ID))(t); d.OutboxID == "" || d.Status != client.PolicySetDeactivationStatusDeactivated {
			t.Errorf("got %+v", d)
		}
		for v, err := range c.PolicySetVersions(ctx, zone.ID, set.ID) {
			if err != nil || v.ID != first.ID {
				t.Errorf("got %+v, %v", v, err)
			}
		}
		if page := result(c.ListPolicySets(ctx, zone.ID))(t); len(page.Items) != 1 || page.Items[0] != set {
			t.Errorf("got %+v", page)
		}
		input := json.RawMessage(`{"principal":{"id":"nobody"}}`)
		simulated := result(c.SimulatePolicySet(ctx, zone.ID, set.ID, client.PolicySimulation{VersionID: first.ID, Input: &input}))(t)
		if simulated.Decision == nil || *simulated.Decision != "deny" || simulated.Result == nil || len(simulated.Result.Diagnostics) < 2 {
			t.Errorf("got %+v", simulated)
		}
		if batch := result(c.SimulatePolicySetBatch(ctx, zone.ID, set.ID, client.PolicySimulationBatch{VersionID: first.ID, Inputs: client.PolicyInputs{input, input}}))(t); batch.Denied != 2 {
			t.Errorf("got %+v", batch)
		}
		comparison := client.PolicyComparison{FromVersionID: first.ID, ToVersionID: first.ID, Inputs: client.PolicyInputs{input}}
		if compared := result(c.ComparePolicySetVersions(ctx, zone.ID, set.ID, comparison))(t); compared.Unchanged != 1 {
			t.Errorf("got %+v", compared)
		}
		noError(t, c.DeletePolicySet(ctx, zone.ID, set.ID))
	})

	t.Run("state", func(t *testing.T) { callStateOperations(t, c, zone.ID) })

	t.Run("admin tokens", func(t *testing.T) {
		created := result(c.CreateAdminToken(ctx, client.NewAdminToken{
			Name: "reader", Scope: client.AdminTokenScopeZone, ZoneID: &zone.ID, Capability: new(client.AdminTokenCapabilityRead), ExpiresIn: new(int64(time.Hour / time.Second)),
		}))(t)
		reader, err := client.New(a.URL, created.Token, client.WithTransport(a.Transport()))
		if err != nil {
			t.Fatal(err)
		}
		result(reader.GetZone(ctx, zone.ID))(t)
		expectCode(t, reader.DeleteZone(ctx, zone.ID), client.CodeAdminTokenReadOnly)
		var names []string
		for item, err := range c.AdminTokens(ctx) {
			names = append(names, result(item, err)(t).Name)
		}
		if !slices.Contains(names, "reader") {
			t.Errorf("listed %q", names)
		}
		if got := result(c.GetOwnAdminToken(ctx))(t); got.Name != "bootstrap" {
			t.Errorf("got %+v", got)
		}
		if got := result(c.GetAdminToken(ctx, created.ID))(t); got.Name != "reader" {
			t.Errorf("got %+v", got)
		}
		until := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
		if got := result(c.UpdateAdminToken(ctx, created.ID, client.AdminTokenPatch{ExpiresAt: client.Set(until)}))(t); got.ExpiresAt == nil || !got.ExpiresAt.Equal(until) {
			t.Errorf("got %+v", got)
		}
		noError(t, c.DeleteAdminToken(ctx, created.ID))
		_, err = reader.GetZone(ctx, zone.ID)
		expectCode(t, err, client.CodeInvalidAdminToken)
	})

	t.Run("step-up challenges", func(t *testing.T) {
		session := a.DB.Session(zone.ID)
		first, second := a.DB.StepUpChallenge(zone.ID, session), a.DB.StepUpChallenge(zone.ID, session)
		var etag string
		if got := result(c.GetStepUpChallenge(ctx, zone.ID, first, client.ReadETag(&etag)))(t); got.Status != client.StepUpChallengeStatusPending || *got.SessionID != session {
			t.Errorf("got %+v", got)
		}
		approval := result(c.SatisfyStepUpChallenge(ctx, zone.ID, first, client.IfMatch(etag)))(t)
		if approval.ID != first || !strings.HasPrefix(approval.ApproverSubjectID, "admin:") {
			t.Errorf("got %+v", approval)
		}
		_, err := c.SatisfyStepUpChallenge(ctx, zone.ID, first)
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.CodeChallengeNotSatisfiable || e.Extra["reason"] != string(client.ChallengeNotSatisfiableReasonAlreadySatisfied) {
			t.Errorf("got %v", err)
		}
		if rejection := result(c.RejectStepUpChallenge(ctx, zone.ID, second, client.NewStepUpRejection{Reason: "No."}))(t); rejection.RejectedReason != "No." {
			t.Errorf("got %+v", rejection)
		}
		for one, err := range c.StepUpChallenges(ctx, zone.ID, client.ListStepUpChallengesParams{Status: client.StepUpChallengeStatusRejected}) {
			if got := result(one, err)(t); got.ID != second || *got.RejectedReason != "No." {
				t.Errorf("listed %+v", got)
			}
		}
	})

	t.Run("dead letters", func(t *testing.T) {
		const stream = "caracal.sessions.revoke"
		a.Redis.Set(ctx, stream, "a string", 0) // Redis rejects XADD to it
		first, second := a.DB.Event(zone.ID, stream), a.DB.Event(zone.ID, stream)
		eventually(t, "both events are dead letters", func() bool { return len(result(c.ListDeadLetters(ctx))(t).Items) == 2 })
		noError(t, c.DiscardDeadLetter(ctx, second))
		a.Redis.Del(ctx, stream)
		noError(t, c.RearmDeadLetter(ctx, first))
		for letter, err := range c.DeadLetters(ctx) {
			t.Errorf("still a dead letter: %+v, %v", letter, err)
		}
	})

	recorder.next = a.Transport() // the audit log has the repeated requests that were denied, too
	t.Run("audit entries", func(t *testing.T) { callAuditOperations(t, c) })
	t.Run("audit events", func(t *testing.T) { callAuditEventOperations(t, a, c) })

	t.Run("operations", func(t *testing.T) {
		if health := result(c.GetHealth(ctx))(t); !health.OK {
			t.Errorf("got %+v", health)
		}
		if ready := result(c.GetReadiness(ctx))(t); !ready.OK || ready.Redis != client.ReadinessRedisReachable {
			t.Errorf("got %+v", ready)
		}
		if metrics := result(c.GetMetrics(ctx))(t); !strings.Contains(metrics, "caracal_api_outbox_pending_total") {
			t.Errorf("got %s", metrics)
		}
		if document := result(c.GetOpenAPIJSON(ctx))(t); document["openapi"] == nil {
			t.Errorf("got %v", document)
		}
		if document := result(c.GetOpenAPIYAML(ctx))(t); !strings.Contains(document, "openapi: 3.0.3") {
			t.Errorf("got %s", document)
		}
	})

	noError(t, c.DeleteZone(ctx, zone.ID, client.RequestID("the-end")))
	_, err := c.GetZone(ctx, zone.ID, client.RequestID("after-the-end"))
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != client.CodeZoneNotFound || e.RequestID != "after-the-end" {
		t.Errorf("got %v", err)
	}
	for _, op := range servertest.Operations() {
		if recorder.calls[op.OperationID] == 0 {
			t.Errorf("%s was not called", op.OperationID)
		}
	}
}
