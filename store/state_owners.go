package store

import (
	"context"
	"maps"
	"slices"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/db"
)

// A ManagedObject is an object that an owner manages, of a kind of documents.
type ManagedObject struct{ Kind, ID string }

// managedKinds maps the kinds of objects that owners manage to their kinds in the audit log.
var managedKinds = map[string]audit.Kind{
	"application": audit.Applications, "identity-provider": audit.Providers, "resource": audit.Resources,
	"policy": audit.Policies, "policy-set": audit.PolicySets, "grant": audit.Grants,
}

// SetStateOwner makes an owner manage objects of a zone. before has who manages them until
// then, if anybody does. The audit entry of an object that the transaction has created or
// changed has the owner, too; other objects get one.
func (tx *Tx) SetStateOwner(ctx context.Context, zone, owner string, objects []ManagedObject, before map[ManagedObject]string) error {
	type object struct {
		kind audit.Kind
		id   string
	}
	recorded := map[object]*entry{}
	for i := range tx.entries {
		if e := &tx.entries[i]; e.zone == zone {
			recorded[object{e.kind, e.id}] = e
		}
	}
	p := db.SetStateOwnerParams{ZoneID: zone, Owner: owner}
	var others []ManagedObject
	for _, o := range objects {
		from := before[o]
		if from == owner {
			continue
		}
		p.Kinds, p.ObjectIds = append(p.Kinds, o.Kind), append(p.ObjectIds, o.ID)
		if e := recorded[object{managedKinds[o.Kind], o.ID}]; e != nil {
			e.payload = e.payload.(auditChange).withOwner(from, owner) // as of every change of these kinds
		} else {
			others = append(others, o)
		}
	}
	for _, o := range others {
		unchanged := auditChange{Fields: []string{}, Change: "updated"}
		tx.record(zone, managedKinds[o.Kind], o.ID, unchanged.withOwner(before[o], owner))
	}
	if len(p.Kinds) == 0 {
		return nil
	}
	return db.New(deferredConn{tx.conn}).SetStateOwner(ctx, p)
}

// withOwner returns a change that includes that of the owner.
func (c auditChange) withOwner(from, to string) auditChange {
	const field = "owner"
	c.Fields = append(slices.Clone(c.Fields), field)
	slices.Sort(c.Fields)
	c.Values = maps.Clone(c.Values)
	if c.Values == nil {
		c.Values = map[string]fieldChange{}
	}
	change := fieldChange{To: to}
	if from != "" {
		change.From = from
	}
	c.Values[field] = change
	return c
}

// removeOwners removes the owners of the objects that the transaction has archived or
// revoked, so that none is left to an object that becomes active again.
func (tx *Tx) removeOwners(ctx context.Context) error {
	removed := map[string]*db.DeleteStateOwnersParams{} // by zone
	for kind, recorded := range managedKinds {
		for _, e := range tx.entries {
			c, isChange := e.payload.(auditChange)
			if e.kind != recorded || !isChange || c.Change != "deleted" && c.Values["status"].To != "revoked" {
				continue
			}
			if removed[e.zone] == nil {
				removed[e.zone] = &db.DeleteStateOwnersParams{ZoneID: e.zone}
			}
			p := removed[e.zone]
			p.Kinds, p.ObjectIds = append(p.Kinds, kind), append(p.ObjectIds, e.id)
		}
	}
	for _, p := range removed {
		if err := db.New(deferredConn{tx.conn}).DeleteStateOwners(ctx, *p); err != nil {
			return err
		}
	}
	return nil
}
