package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
)

func TestCreateResourceGeneratesIdentifier(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		name string
		said []string // names of resources, one made after the other
		want []string // their identifiers, or a code
	}{
		{"words", []string{"  The Invoices, 2nd (é) "}, []string{"resource://the-invoices-2nd"}},
		{"taken", []string{"A", "a", "a!"}, []string{"resource://a", "resource://a-2", "resource://a-3"}},
		{"a numbered one taken", []string{"a-2", "a", "a"}, []string{"resource://a-2", "resource://a", "resource://a-3"}},
		{"an identifier", []string{" resource://Some/Thing?x ", "resource://Some/Thing?x"}, []string{"resource://Some/Thing?x", "resource://Some/Thing?x-2"}},
		{"an identifier in upper case is a name", []string{"RESOURCE://x"}, []string{"resource://resource-x"}},
		{"no letters", []string{"😀", "?!"}, []string{"resource://resource", "resource://resource-2"}},
		{"an identifier with a user", []string{"resource://user@x"}, []string{string(code.InvalidResourceIdentifier)}},
		{"an identifier with a space in its host", []string{"resource://a b"}, []string{string(code.InvalidResourceIdentifier)}},
		{"a name out of the reserved namespace leads elsewhere", []string{"caracal-sys://x"}, []string{"resource://caracal-sys-x"}},
		{"a number after which it is no audience any more", []string{"resource://x:80", "resource://x:80"}, []string{"resource://x:80", string(code.ResourceIdentifierConflict)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z := newResourceZone(a)
			var got []string
			for _, name := range tt.said {
				resp := createResource(t, a.ClientFor("", "write"), z.zone, z.body(func(b *client.NewResource) { b.Name = &name }))
				if resp.JSON201 == nil {
					got = append(got, problemOf(t, resp).Error)
					continue
				}
				got = append(got, resp.JSON201.Identifier)
				if resp.JSON201.Name != strings.TrimSpace(name) {
					t.Errorf("its name is %q", resp.JSON201.Name)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			z.checkTotals(t)
		})
	}
}

func TestCreateResourceWhenNumberedIdentifiersAreTaken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	a.DB.Exec(`INSERT INTO resources (zone_id, id, name, identifier, scopes, credential_provider_id, operation_enforcement)
		SELECT $1, 'r-' || n, 'x', 'resource://x' || CASE n WHEN 1 THEN '' ELSE '-' || n END, '{read}', $2, 'enforced' FROM generate_series(1, 999) AS n`, z.zone, z.provider)
	created := z.resource(t, func(b *client.NewResource) { b.Name = new("x") })
	if rest, ok := strings.CutPrefix(created.Identifier, "resource://x-"); !ok || len(rest) != 32 {
		t.Errorf("it is %s", created.Identifier)
	}
}

func TestCreateResourceConcurrentlyWithOneName(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	const many = 20
	var got, want [many]string
	all := make([]func(), many)
	for i := range all {
		want[i] = "resource://invoices"
		if i > 0 {
			want[i] = fmt.Sprintf("resource://invoices-%d", i+1)
		}
		all[i] = func() {
			resp, err := a.Admin.CreateResourceWithResponse(t.Context(), z.zone, z.body())
			if err != nil || resp.JSON201 == nil {
				t.Errorf("%v: %s", err, resp.Body)
				return
			}
			got[i] = resp.JSON201.Identifier
		}
	}
	concurrently(all...)
	slices.Sort(got[:])
	slices.Sort(want[:])
	if got != want {
		t.Errorf("got %q", got)
	}
	z.checkTotals(t)
}

func TestDeleteResourceFreesIdentifier(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	first := z.resource(t)
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, first.ID), http.StatusNoContent, "")
	if again := z.resource(t); again.Identifier != first.Identifier {
		t.Errorf("it was %s and is now %s", first.Identifier, again.Identifier)
	}
	third := z.resource(t)
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, third.ID, client.ResourcePatch{Identifier: new("urn:third")}), http.StatusOK, "")
	if fourth := z.resource(t); fourth.Identifier != third.Identifier {
		t.Errorf("what was %s is free, and yet it became %s", third.Identifier, fourth.Identifier)
	}
	z.checkTotals(t)
}
