package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"caracal.run/management/gen/client"
	"caracal.run/management/store"
)

// A demo says where to create the demo zone.
type demo struct {
	url, token string // of the service
	ownerURL   string // of Postgres, with the owner role
	redisURL   string
	auditKey   []byte // signs audit events
	file       string // in which the zone's ID is kept
}

// seed creates a demo zone if there is none yet: with a managed application and two
// registered ones, which have sessions and agents, a resource with grants, an active
// policy set, audit events of an allowed and a denied request, and two step-up challenges,
// a pending and a satisfied one. It prints the zone's ID and returns it.
func (d demo) seed(ctx context.Context, out io.Writer) (string, error) {
	c, err := client.New(d.url, d.token)
	if err != nil {
		return "", err
	}
	id, err := os.ReadFile(d.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", err
	default:
		zone := strings.TrimSpace(string(id))
		if _, err := c.GetZone(ctx, zone); err == nil {
			return zone, printDemo(out, "The demo zone already exists", zone)
		}
	}
	zone, err := c.CreateZone(ctx, client.NewZone{Name: "Demo", DCREnabled: new(true)})
	if err != nil {
		return "", fmt.Errorf("creating the demo zone: %w", err)
	}
	billing, err := c.CreateApplication(ctx, zone.ID, client.NewApplication{Name: "Billing", RegistrationMethod: "managed"})
	if err != nil {
		return "", fmt.Errorf("creating the managed application: %w", err)
	}
	active, err := seedPolicies(ctx, c, zone.ID, billing.ID)
	if err != nil {
		return "", fmt.Errorf("creating the policies: %w", err)
	}
	if err := d.publishAudit(ctx, c, zone.ID, billing.ID, active); err != nil {
		return "", fmt.Errorf("publishing audit events: %w", err)
	}
	var registered []string
	for _, name := range []string{"Invoice agent", "Reminder agent"} {
		app, err := c.RegisterApplication(ctx, zone.ID, client.ApplicationRegistration{Name: name})
		if err != nil {
			return "", fmt.Errorf("registering %s: %w", name, err)
		}
		registered = append(registered, app.ID)
	}
	if err := store.Demo(ctx, d.ownerURL, zone.ID, registered, store.DemoUsers{Application: billing.ID, Names: slices.Sorted(maps.Keys(demoGrants))}); err != nil {
		return "", err
	}
	if err := satisfyOldest(ctx, c, zone.ID); err != nil {
		return "", fmt.Errorf("satisfying a step-up challenge: %w", err)
	}
	if err := os.WriteFile(d.file, []byte(zone.ID+"\n"), 0o600); err != nil {
		return "", err
	}
	return zone.ID, printDemo(out, "Created a demo zone with a managed application, grants of users, two registered applications, sessions, agents, active policies, audit events, and step-up challenges", zone.ID)
}

// satisfyOldest satisfies the oldest step-up challenge.
func satisfyOldest(ctx context.Context, c *client.Client, zone string) error {
	var oldest string
	for challenge, err := range c.StepUpChallenges(ctx, zone) {
		if err != nil {
			return err
		}
		oldest = challenge.ID
	}
	_, err := c.SatisfyStepUpChallenge(ctx, zone, oldest)
	return err
}

// demoPolicies are the policies of the demo zone. The first one has the ID of the
// application that owns the resource.
var demoPolicies = []struct{ name, description, content string }{
	{"Applications", "The keys by which grants refer to applications.", `app_ids := {"billing": %q}
`},
	{"Grants", "Who can do what with invoices.", `grants := {
	"resource://invoices": {
		"application": "billing",
		"roles": {
			"clerk": ["invoices:read", "invoices:write"],
			"auditor": ["invoices:read"],
		},
	},
}
`},
	{"Customers", "Agents that act for a customer can only read.", `confinement := [{"label_prefix": "customer:", "scopes": ["invoices:read"]}]
`},
	{"Approval", "A person must approve changes of invoices.", `risk := [
	{"scope": "invoices:write", "tier": "high"},
	{"scope": "invoices:read", "tier": "low"},
]
approval_tiers := ["high"]
`},
}

// demoGrants are the scopes that users of the demo zone have granted to the application
// that owns the resource.
var demoGrants = map[string][]string{
	"ada":   {"invoices:read", "invoices:write"},
	"grace": {"invoices:read"},
	"alan":  {"invoices:read"},
}

// seedPolicies creates a resource with grants and policies for it, and activates them. It
// returns the active version.
func seedPolicies(ctx context.Context, c *client.Client, zone, application string) (active client.AddedPolicySetVersion, err error) {
	provider, err := c.CreateProvider(ctx, zone, client.NewProvider{Name: new("Mandates"), Kind: client.ProviderKindCaracalMandate})
	if err != nil {
		return active, err
	}
	invoices, err := c.CreateResource(ctx, zone, client.NewResource{
		Name: new("Invoices"), Identifier: new("resource://invoices"), Scopes: []string{"invoices:read", "invoices:write"},
		CredentialProviderID: &provider.ID, UpstreamURL: new("https://invoices.example.com"), GatewayApplicationID: &application,
	})
	if err != nil {
		return active, err
	}
	for user, scopes := range demoGrants {
		if _, err := c.CreateGrant(ctx, zone, client.NewGrant{ApplicationID: application, UserID: user, ResourceID: invoices.ID, Scopes: scopes}); err != nil {
			return active, err
		}
	}
	var manifest []client.NewManifestEntry
	for _, p := range demoPolicies {
		content := "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n\n" + strings.Replace(p.content, "%q", strconv.Quote(application), 1)
		created, err := c.CreatePolicy(ctx, zone, client.NewPolicy{Name: p.name, Description: &p.description, Content: content})
		if err != nil {
			return active, err
		}
		manifest = append(manifest, client.NewManifestEntry{PolicyVersionID: created.VersionID})
	}
	set, err := c.CreatePolicySet(ctx, zone, client.NewPolicySet{Name: "Invoices"})
	if err != nil {
		return active, err
	}
	version, err := c.AddPolicySetVersion(ctx, zone, set.ID, client.NewPolicySetVersion{Manifest: manifest})
	if err != nil {
		return active, err
	}
	_, err = c.ActivatePolicySet(ctx, zone, set.ID, client.NewPolicySetActivation{VersionID: version.ID})
	return version, err
}

func printDemo(out io.Writer, status, zone string) error {
	_, err := fmt.Fprintf(out, "%s.\n\n  export DEMO_ZONE=%s\n\n", status, zone)
	return err
}
