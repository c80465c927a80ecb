package server_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

const consoleWrite = "caracal:console:write:v1"

// Before the body is read, an operation that requires approval permission denies every
// token without it.
func TestEveryOperationDeniesApprovalWithoutPermission(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	removed := w.Token("", "write", servertest.CanApprove)
	servertest.Expect(t, updateToken(t, w.Admin, removed.ID, client.AdminTokenPatch{CanApprove: new(false)}), http.StatusOK, "")
	eachOperation(t, approves, func(t *testing.T, op servertest.Operation) {
		for name, token := range map[string]string{
			"global write": w.Token("", "write").Token, "global read": w.Token("", "read").Token, "zone write": w.Token(w.zone.ID, "write").Token,
			"Console": console(consoleWrite), "removed": removed.Token,
		} {
			raw := w.Do(op.Method, w.path(op, "x"), "{", append(bearer(token), "Content-Type", jsonType)...)
			if raw.StatusCode() != http.StatusForbidden {
				t.Errorf("%s: got %d", name, raw.StatusCode())
			}
			servertest.Expect(t, raw, 0, code.AdminTokenCannotApprove)
		}
	})
}

// With the setting, every token with write permission can approve, but none can give
// approval permission that it does not have.
func TestApproveWithWrite(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "STEP_UP_APPROVE_WITH_WRITE=true")
	zone, other := a.Zone().ID, a.Zone().ID
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		want code.Code
	}{
		{"global write", a.ClientFor("", "write"), ""},
		{"zone write", a.ClientFor(zone, "write"), ""},
		{"Console", a.ClientWithToken(console(consoleWrite)), ""},
		{"read with permission", a.ClientFor(zone, "read", servertest.CanApprove), ""},
		{"read", a.ClientFor(zone, "read"), code.AdminTokenCannotApprove},
		{"write of another zone", a.ClientFor(other, "write"), code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, d := range decisions {
				servertest.Expect(t, d.send(t, tt.as, zone, a.DB.StepUpChallenge(zone, a.DB.Session(zone))), http.StatusOK, tt.want)
			}
		})
	}
	resp, err := a.ClientFor("", "write").CreateAdminTokenWithResponse(t.Context(), client.NewAdminToken{Name: "x", Scope: client.AdminTokenScopeGlobal, CanApprove: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, 0, code.AdminTokenCannotGrantApproval)
}

func TestCreateAdminTokenWithApprovalPermission(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	minted := a.Token("", "write", servertest.CanApprove)
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		can  *bool
		want code.Code
	}{
		{"by the bootstrap token", a.Admin, new(true), ""},
		{"by a token that can approve", a.ClientWithToken(minted.Token), new(true), ""},
		{"without", a.ClientFor("", "write"), new(false), ""},
		{"omitted", a.Admin, nil, ""},
		{"by a token that cannot approve", a.ClientFor("", "write"), new(true), code.AdminTokenCannotGrantApproval},
		{"by the Console", a.ClientWithToken(console(consoleWrite)), new(true), code.AdminTokenManagementForbiddenForDerivedToken},
		{"by a read token that can approve", a.ClientFor("", "read", servertest.CanApprove), new(true), code.AdminTokenReadOnly},
		{"by a zone's token that can approve", a.ClientFor(zone, "write", servertest.CanApprove), new(true), code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := storetest.Value[int](a.DB, "SELECT count(*) FROM admin_tokens WHERE name = $1", tt.name)
			resp, err := tt.as.CreateAdminTokenWithResponse(t.Context(), client.NewAdminToken{
				Name: tt.name, Scope: client.AdminTokenScopeZone, ZoneID: &zone, Capability: new(client.AdminTokenCapabilityRead), CanApprove: tt.can,
			})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				if after := storetest.Value[int](a.DB, "SELECT count(*) FROM admin_tokens WHERE name = $1", tt.name); after != before {
					t.Error("a token was created")
				}
				return
			}
			want := tt.can != nil && *tt.can
			if resp.JSON201.CanApprove != want || getToken(t, a.Admin, resp.JSON201.ID).JSON200.CanApprove != want || listTokens(t, a.Admin)[resp.JSON201.ID].CanApprove != want {
				t.Errorf("got %s", resp.Body)
			}
			expected := code.Code("")
			if !want {
				expected = code.AdminTokenCannotApprove
			}
			servertest.Expect(t, satisfy(t, a.ClientWithToken(resp.JSON201.Token), zone, a.DB.StepUpChallenge(zone, a.DB.Session(zone))), http.StatusOK, expected)
		})
	}
	for _, body := range []string{`null`, `"true"`, `1`} {
		raw := a.Do("POST", "/v1/admin-tokens", `{"name":"x","scope":"global","can_approve":`+body+`}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		servertest.Expect(t, raw, 0, code.InvalidAdminTokenRequest)
	}
	all := listTokens(t, a.Admin)
	for creator, want := range map[string]bool{"env-bootstrap": true, "env-derived": false, "env-derived-write": false} {
		if got := all[seeded(a, creator)].CanApprove; got != want {
			t.Errorf("%s: can_approve is %t", creator, got)
		}
	}
	if entries := storetest.Column[string](a.DB, "SELECT payload::jsonb #>> '{changes,can_approve,to}' FROM audit_entries WHERE entity_id = $1", minted.ID); !slices.Equal(entries, []string{"true"}) {
		t.Errorf("the audit entries are %q", entries)
	}
}

func TestUpdateAdminTokenApprovalPermission(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	give, remove := client.AdminTokenPatch{CanApprove: new(true)}, client.AdminTokenPatch{CanApprove: new(false)}
	plain, approver := a.Token("", "write"), a.Token("", "write", servertest.CanApprove)
	plainClient, approverClient := a.ClientWithToken(plain.Token), a.ClientWithToken(approver.Token)
	with := func() string { return a.Token(zone, "read", servertest.CanApprove).ID }
	without := func() string { return a.Token(zone, "read").ID }
	later := time.Now().Add(2 * time.Hour)
	ending := func() string {
		return a.Token(zone, "read", servertest.CanApprove, func(n *client.NewAdminToken) { n.ExpiresIn = new(int64(3600)) }).ID
	}
	ended := func() string {
		id := ending()
		a.DB.Exec("UPDATE admin_tokens SET expires_at = now() WHERE id = $1", id)
		return id
	}
	always := func(id string) func() string { return func() string { return id } }
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		id   func() string
		body client.AdminTokenPatch
		want code.Code
		can  bool // afterwards
	}{
		{"given by the bootstrap token", a.Admin, without, give, "", true},
		{"given by a token that has it", approverClient, without, give, "", true},
		{"given by a token that does not have it", plainClient, without, give, code.AdminTokenCannotGrantApproval, false},
		{"given to itself", plainClient, always(plain.ID), give, code.AdminTokenCannotGrantApproval, false},
		{"given together with a name", plainClient, without, client.AdminTokenPatch{Name: new("x"), CanApprove: new(true)}, code.AdminTokenCannotGrantApproval, false},
		{"given to a token that has it, by one that does not", plainClient, with, give, "", true}, // nothing changes
		{"extended by the bootstrap token", a.Admin, ending, client.AdminTokenPatch{ExpiresAt: client.Set(later)}, "", true},
		{"extended by a token that does not have it", plainClient, ending, client.AdminTokenPatch{ExpiresAt: client.Set(later)}, code.AdminTokenCannotGrantApproval, true},
		{"without expiry, by a token that does not have it", plainClient, ending, client.AdminTokenPatch{ExpiresAt: client.Null[time.Time]()}, code.AdminTokenCannotGrantApproval, true},
		{"made valid again by a token that does not have it", plainClient, ended, client.AdminTokenPatch{ExpiresAt: client.Set(later)}, code.AdminTokenCannotGrantApproval, true},
		{"shortened by a token that does not have it", plainClient, ending, client.AdminTokenPatch{ExpiresAt: client.Set(time.Now().Add(time.Minute))}, "", true},
		{"extended and removed", plainClient, ending, client.AdminTokenPatch{ExpiresAt: client.Set(later), CanApprove: new(false)}, "", false},
		{"removed by the bootstrap token", a.Admin, with, remove, "", false},
		{"removed by a token that does not have it", plainClient, with, remove, "", false},
		{"not changed by a new name", plainClient, with, client.AdminTokenPatch{Name: new("x")}, "", true},
		{"removed from the bootstrap token", a.Admin, always(seeded(a, "env-bootstrap")), remove, code.AdminTokenProtected, true},
		{"given to the Console", a.Admin, always(seeded(a, "env-derived-write")), give, code.AdminTokenProtected, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := tt.id()
			resp := updateToken(t, tt.as, id, tt.body)
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			after := getToken(t, a.Admin, id).JSON200
			if after.CanApprove != tt.can || tt.want == "" && resp.JSON200.CanApprove != tt.can {
				t.Errorf("got %s and then %+v", resp.Body, after)
			}
			if tt.want != "" && after.Name == "x" {
				t.Error("the name was changed")
			}
		})
	}
}

// A token cannot approve any more as soon as its permission is removed, in every
// replica, which cache tokens.
func TestUpdateAdminTokenRemovesApprovalPermissionImmediately(t *testing.T) {
	t.Parallel()
	one := servertest.New(t)
	two := servertest.NewReplica(t, one.DB, storetest.RedisURL(t))
	zone := one.Zone().ID
	approver := one.Token(zone, "read", servertest.CanApprove)
	session := one.DB.Session(zone)
	approve := func(a *servertest.API) servertest.Response {
		return satisfy(t, a.ClientWithToken(approver.Token), zone, one.DB.StepUpChallenge(zone, session))
	}
	servertest.Expect(t, approve(one), http.StatusOK, "")
	servertest.Expect(t, approve(two), http.StatusOK, "")
	servertest.Expect(t, updateToken(t, one.Admin, approver.ID, client.AdminTokenPatch{CanApprove: new(false)}), http.StatusOK, "")
	servertest.Expect(t, approve(one), 0, code.AdminTokenCannotApprove)
	eventually(t, "the other replica denies it", func() bool { return approve(two).StatusCode() == http.StatusForbidden })
}
