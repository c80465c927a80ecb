package store

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"caracal.run/management/gen/audit"
)

// auditFields are the fields of a row that may appear in the audit log.
type auditFields map[string]any

// redacted is the value of a secret field: the audit log records that it
// changed, not its value.
type redacted string

// snapshot returns the audit fields of a row, a struct of gen/db. openapi/audit.yaml
// declares which of its columns are tracked and which are redacted. A new column
// must be declared there before it can appear in the audit log.
func snapshot(kind audit.Kind, row any) auditFields {
	value := reflect.ValueOf(row)
	columns := auditedColumns(kind, value.Type())
	fields := make(auditFields, len(columns))
	for _, c := range columns {
		if v := value.Field(c.index); c.secret {
			fields[c.field] = redacted(v.Convert(stringType).String())
		} else {
			fields[c.field] = v.Interface()
		}
	}
	return fields
}

// An auditedColumn is a struct field of a row that the audit log tracks or
// redacts.
type auditedColumn struct {
	index  int
	field  string
	secret bool
}

var (
	stringType    = reflect.TypeFor[string]()
	columnsByType sync.Map // rowType -> []auditedColumn
)

type rowType struct {
	kind audit.Kind
	row  reflect.Type
}

// auditedColumns returns the audited columns of a row type. It caches them.
func auditedColumns(kind audit.Kind, row reflect.Type) []auditedColumn {
	if cached, ok := columnsByType.Load(rowType{kind, row}); ok {
		return cached.([]auditedColumn)
	}
	var columns []auditedColumn
	for i := range row.NumField() {
		column := row.Field(i).Tag.Get("db")
		if field, ok := audit.Kinds[kind].Tracked[column]; ok {
			columns = append(columns, auditedColumn{index: i, field: field})
		} else if field, ok := audit.Kinds[kind].Redacted[column]; ok {
			columns = append(columns, auditedColumn{index: i, field: field, secret: true})
		}
	}
	columnsByType.Store(rowType{kind, row}, columns)
	return columns
}

// An auditChange is the difference between a row before and after a write.
type auditChange struct {
	Fields        []string               `json:"changed_fields"`
	Values        map[string]fieldChange `json:"changes,omitempty"`
	SecretRotated bool                   `json:"secret_rotated,omitempty"`

	// AuthorizationRequestID is the id of the request that began what another request
	// completed.
	AuthorizationRequestID string `json:"authorization_request_id,omitempty"`

	Change string `json:"change,omitempty"` // created, updated or deleted; "" if the object was not changed
}

type fieldChange struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// diff returns the difference between the audit fields before and after a write.
// If before is nil, the write created the row.
func diff(before, after auditFields) auditChange {
	c := auditChange{Fields: []string{}, Values: map[string]fieldChange{}, Change: "updated"}
	if before == nil {
		c.Change = "created"
	}
	for _, field := range slices.Sorted(maps.Keys(after)) {
		from, to := before[field], after[field]
		if reflect.DeepEqual(from, to) {
			continue
		}
		if _, secret := to.(redacted); secret {
			c.SecretRotated = before != nil
			continue
		}
		c.Fields = append(c.Fields, field)
		c.Values[field] = fieldChange{from, to}
	}
	return c
}

// unchanged reports whether an update would change no field of a row. Every field
// that an update can set is in the audit log, if only as a secret.
func unchanged(kind audit.Kind, before, after any) bool {
	change := diff(snapshot(kind, before), snapshot(kind, after))
	return len(change.Fields) == 0 && !change.SecretRotated
}

// Changes without fields: of an operation that deletes the object, and of one that only
// uses it.
var (
	deleted = auditChange{Fields: []string{}, Change: "deleted"}
	used    = auditChange{Fields: []string{}}
)

// checkDeclared returns an error for a kind or field that openapi/audit.yaml does
// not declare.
func checkDeclared(kind audit.Kind, c auditChange) error {
	columns, ok := audit.Kinds[kind]
	if !ok {
		return errors.New("openapi/audit.yaml must declare the kind")
	}
	for _, field := range c.Fields {
		if columns.Tracked[field] != field && !slices.Contains(slices.Collect(maps.Values(columns.Tracked)), field) && !slices.Contains(columns.Parts, field) {
			return fmt.Errorf("openapi/audit.yaml must declare field %s as tracked", field)
		}
	}
	return nil
}
