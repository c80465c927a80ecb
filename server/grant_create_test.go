package server_test

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestCreateGrant(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other, system := newResourceZone(a), newResourceZone(a), resourcesOf(a, systemZone(a).ID)
	scoped := func(b *client.NewResource) { b.Scopes = []string{"read", "write", "Read"} }
	resource, foreign, inSystem := z.resource(t, scoped).ID, other.resource(t).ID, system.resource(t).ID
	control := z.control(t).ID
	archivedResource, archivedApplication := z.resource(t).ID, a.DB.Application(z.zone)
	a.DB.Exec(archiveResource, z.zone, archivedResource)
	a.DB.Exec(archiveApplication, z.zone, archivedApplication)
	dcr, expired := dcrApplications(z)
	archivedZone := a.DB.ArchivedZone()
	application := func(id string) func(*client.NewGrant) { return func(n *client.NewGrant) { n.ApplicationID = id } }
	ofResource := func(id string) func(*client.NewGrant) { return func(n *client.NewGrant) { n.ResourceID = id } }
	scopes := func(all ...string) func(*client.NewGrant) { return func(n *client.NewGrant) { n.Scopes = all } }
	user := func(id string) func(*client.NewGrant) { return func(n *client.NewGrant) { n.UserID = id } }
	zoneClient := a.ClientFor(z.zone, "write")
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		in       resourceZone
		resource string
		change   func(*client.NewGrant)
		want     code.Code // "" is 201
	}{
		{"one scope", a.Admin, z, resource, nil, ""},
		{"all scopes, and one twice", a.Admin, z, resource, scopes("write", "read", "write"), ""},
		{"by a zone token", zoneClient, z, resource, nil, ""},
		{"registered application", a.Admin, z, resource, application(dcr), ""},
		{"the longest user ID", a.Admin, z, resource, user(incompressible(500)), ""},
		{"user ID too long", a.Admin, z, resource, user(strings.Repeat("x", 501)), code.InvalidBody},
		{"user ID with a line feed", a.Admin, z, resource, user("a\nb"), ""},
		{"user ID empty", a.Admin, z, resource, user(""), code.InvalidBody},
		{"application ID empty", a.Admin, z, resource, application(""), code.InvalidBody},
		{"resource ID empty", a.Admin, z, "", nil, code.InvalidBody},
		{"no scopes", a.Admin, z, resource, scopes(), code.InvalidBody},
		{"65 scopes", a.Admin, z, resource, scopes(strings.Split(strings.Repeat("read ", 64)+"read", " ")...), code.InvalidBody},
		{"64 scopes", a.Admin, z, resource, scopes(strings.Split(strings.Repeat("read ", 63)+"read", " ")...), ""},
		{"scope empty", a.Admin, z, resource, scopes("read", ""), code.InvalidBody},
		{"scope too long", a.Admin, z, resource, scopes(strings.Repeat("x", 201)), code.InvalidBody},
		{"scope that the grammar does not allow", a.Admin, z, resource, scopes("Read"), code.InvalidBody},
		{"scope with a space", a.Admin, z, resource, scopes("read write"), code.InvalidBody},
		{"scope of no resource", a.Admin, z, resource, scopes("read", "erase"), code.GrantScopesExceedResource},
		{"longest scope of no resource", a.Admin, z, resource, scopes(strings.Repeat("x", 200)), code.GrantScopesExceedResource},
		{"application unknown", a.Admin, z, resource, application("unknown"), code.ApplicationNotFound},
		{"application archived", a.Admin, z, resource, application(archivedApplication), code.ApplicationNotFound},
		{"application expired", a.Admin, z, resource, application(expired), code.ApplicationNotFound},
		{"application of another zone", a.Admin, z, resource, application(other.application), code.ApplicationNotFound},
		{"resource unknown", a.Admin, z, "unknown", nil, code.ResourceNotFound},
		{"resource archived", a.Admin, z, archivedResource, nil, code.ResourceNotFound},
		{"resource of another zone", a.Admin, z, foreign, nil, code.ResourceNotFound},
		{"application and resource unknown", a.Admin, z, "unknown", application("unknown"), code.ApplicationNotFound},
		{"control resource", a.Admin, z, control, scopes("control"), ""},
		{"control resource, by a zone token", zoneClient, z, control, scopes("control"), code.ResourceNotFound},
		{"zone unknown", a.Admin, resourceZone{a, "nowhere", z.provider, z.application}, resource, nil, code.ZoneNotFound},
		{"zone archived", a.Admin, resourceZone{a, archivedZone, z.provider, z.application}, resource, nil, code.ZoneNotFound},
		{"system zone", a.Admin, system, inSystem, nil, ""},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system, inSystem, nil, code.SystemZoneReadOnly},
		{"read token", a.ClientFor("", "read"), z, resource, nil, code.AdminTokenReadOnly},
		{"token of another zone", a.ClientFor(other.zone, "write"), z, resource, nil, code.AdminTokenZoneMismatch},
		{"token of another zone, its own", a.ClientFor(other.zone, "write"), other, resource, ofResource(resource), code.ResourceNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := tt.in.grantOf(tt.resource)
			if tt.change != nil {
				tt.change(&body)
			}
			resp := createGrant(t, tt.as, tt.in.zone, body)
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			created := *resp.JSON201
			want := client.Grant{
				ID: created.ID, ZoneID: tt.in.zone, ApplicationID: body.ApplicationID, UserID: body.UserID, ResourceID: body.ResourceID,
				Scopes: body.Scopes, Status: client.GrantStatusActive, CreatedAt: created.CreatedAt, UpdatedAt: created.CreatedAt,
			}
			read := getGrant(t, tt.as, tt.in.zone, created.ID)
			servertest.Expect(t, read, http.StatusOK, "")
			if !reflect.DeepEqual(created, want) || !reflect.DeepEqual(*read.JSON200, want) {
				t.Errorf("created %+v, then read %+v, want %+v", created, *read.JSON200, want)
			}
			if tag := resp.HTTPResponse.Header.Get("ETag"); tag == "" || tag != read.HTTPResponse.Header.Get("ETag") {
				t.Errorf("the ETag is %s, and then %s", tag, read.HTTPResponse.Header.Get("ETag"))
			}
		})
	}
}

func TestCreateGrantTwiceCreatesTwo(t *testing.T) {
	t.Parallel()
	z := newResourceZone(servertest.New(t))
	resource := z.resource(t).ID
	if one, two := z.grant(t, resource), z.grant(t, resource); one.ID == two.ID {
		t.Error("both have the same ID")
	}
}

func TestCreateGrantIgnoresUnknownFields(t *testing.T) {
	t.Parallel()
	z := newResourceZone(servertest.New(t))
	for fields, want := range map[string]code.Code{
		`"scopes":["read"],"status":"revoked","id":"mine","more":{}`: "",
		`"scopes":"read"`: code.InvalidBody, `"scopes":null`: code.InvalidBody, `"scopes":[1]`: code.InvalidBody, `"user_id":null,"scopes":["read"]`: code.InvalidBody, `"more":1`: code.InvalidBody,
	} {
		body := fmt.Sprintf(`{"application_id":%q,"resource_id":%q,"user_id":"user-7",%s}`, z.application, z.resource(t).ID, fields)
		raw := z.Do("POST", "/v1/zones/"+z.zone+"/grants", body, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		servertest.Expect(t, raw, http.StatusCreated, want)
		if want == "" && decode[client.Grant](t, raw).Status != client.GrantStatusActive {
			t.Errorf("got %s", raw.Body)
		}
	}
}

func TestCreateGrantIsAuditedWithoutEvent(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	resource := z.resource(t).ID
	g := z.grant(t, resource)
	got := storetest.Column[string](a.DB, "SELECT concat_ws(' | ', operation, action, entity_id, status_code, payload) FROM audit_entries WHERE entity_type = 'grants'")
	want := "createGrant | POST /v1/zones/" + z.zone + "/grants | " + g.ID + ` | 201 | {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":["application_id","resource_id","scopes","status","user_id"],` +
		`"changes":{"application_id":{"from":null,"to":"` + z.application + `"},"resource_id":{"from":null,"to":"` + resource + `"},"scopes":{"from":null,"to":["read"]},"status":{"from":null,"to":"active"},"user_id":{"from":null,"to":"user-7"}},"change":"created"}`
	if len(got) != 1 || got[0] != want {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	if events := storetest.Value[int](a.DB, "SELECT count(*) FROM outbox"); events > 0 {
		t.Errorf("%d events were published", events)
	}
}

// A change of the application or the resource that is not committed yet decides about
// the grant: the request waits for it.
func TestCreateGrantWaitsForConcurrentChange(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		name, change string // $1 is the zone, $2 the object
		application  bool
		commit       bool
		want         code.Code // "" is 201
	}{
		{"application archived", archiveApplication, true, true, code.ApplicationNotFound},
		{"application archived, then rolled back", archiveApplication, true, false, ""},
		{"resource archived", archiveResource, false, true, code.ResourceNotFound},
		{"resource archived, then rolled back", archiveResource, false, false, ""},
		{"scope removed", "UPDATE resources SET scopes = '{write}' WHERE zone_id = $1 AND id = $2", false, true, code.GrantScopesExceedResource},
		{"scope removed, then rolled back", "UPDATE resources SET scopes = '{write}' WHERE zone_id = $1 AND id = $2", false, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z := newResourceZone(a)
			resource := z.resource(t).ID
			changed := resource
			if tt.application {
				changed = z.application
			}
			tx := ownerTx(t, a.DB)
			pid := execOne(t, tx, tt.change, z.zone, changed)
			response := make(chan *rawclient.CreateGrantResponse, 1)
			go func() {
				resp, err := a.Admin.CreateGrantWithResponse(context.WithoutCancel(t.Context()), z.zone, z.grantOf(resource))
				if err != nil {
					t.Error(err)
				}
				response <- resp
			}()
			waitBlockedBy(t, a.DB, pid)
			end := tx.Commit
			if !tt.commit {
				end = tx.Rollback
			}
			if err := end(t.Context()); err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, <-response, http.StatusCreated, tt.want)
		})
	}
}

// A change of the application or the resource waits for a grant that is not committed yet.
func TestConcurrentChangesWaitForCreateGrant(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, z resourceZone, resource string) (servertest.Response, int){
		"archive the application": func(t *testing.T, z resourceZone, _ string) (servertest.Response, int) {
			return deleteApplicationOf(t, z), http.StatusNoContent
		},
		"archive the resource": func(t *testing.T, z resourceZone, resource string) (servertest.Response, int) {
			return deleteResource(t, z.Admin, z.zone, resource), http.StatusNoContent
		},
		"remove a scope": func(t *testing.T, z resourceZone, resource string) (servertest.Response, int) {
			return updateResource(t, z.Admin, z.zone, resource, client.ResourcePatch{Scopes: &[]string{"write"}, Operations: &[]client.NewResourceOperation{}}), http.StatusOK
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := servertest.New(t)
			z := newResourceZone(a)
			resource := z.resource(t).ID
			tx := ownerTx(t, a.DB) // it lets the grant be inserted, but not its audit entry
			if _, err := tx.Exec(t.Context(), "LOCK TABLE audit_entries IN EXCLUSIVE MODE"); err != nil {
				t.Fatal(err)
			}
			var requests sync.WaitGroup
			requests.Go(func() {
				servertest.Expect(t, createGrant(t, a.Admin, z.zone, z.grantOf(resource)), http.StatusCreated, "")
			})
			granting := waitBlockedBy(t, a.DB, tx.Conn().PgConn().PID())
			requests.Go(func() {
				resp, status := change(t, z, resource)
				servertest.Expect(t, resp, status, "")
			})
			waitBlockedBy(t, a.DB, granting)
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			requests.Wait()
		})
	}
}

// ownerTx begins a transaction that sees all zones. It is rolled back when the test ends.
func ownerTx(t *testing.T, db *storetest.DB) pgx.Tx {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.OwnerURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT set_config('caracal.zone_id', '*', true)"); err != nil {
		t.Fatal(err)
	}
	return tx
}

// execOne runs a statement that changes one row, and returns the process ID of the
// connection.
func execOne(t *testing.T, tx pgx.Tx, sql string, args ...any) (pid uint32) {
	t.Helper()
	tag, err := tx.Exec(t.Context(), sql, args...)
	if err != nil || tag.RowsAffected() != 1 {
		t.Fatalf("%s: %v, %v", sql, tag, err)
	}
	return tx.Conn().PgConn().PID()
}

// waitBlockedBy waits until a transaction waits for a lock of another one, and returns
// the process ID of its connection.
func waitBlockedBy(t *testing.T, db *storetest.DB, pid uint32) (blocked uint32) {
	t.Helper()
	eventually(t, "a transaction waits", func() bool {
		for _, waits := range storetest.Column[int32](db, "SELECT pid FROM pg_stat_activity WHERE $1::int = ANY (pg_blocking_pids(pid))", int32(pid)) {
			blocked = uint32(waits)
		}
		return blocked != 0
	})
	return blocked
}
