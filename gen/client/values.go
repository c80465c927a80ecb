package client

import "encoding/json"

// A Nullable is a field of an update that can be omitted (the zero value), null
// ([Null]) or set ([Set]).
type Nullable[T any] struct {
	value   T
	present bool
	null    bool
}

// Set returns a field with a value.
func Set[T any](value T) Nullable[T] { return Nullable[T]{value: value, present: true} }

// Null returns a field that is null, such as Null[string]().
func Null[T any]() Nullable[T] { return Nullable[T]{present: true, null: true} }

// Get returns the value, and whether the field has one: it is neither omitted
// nor null.
func (n Nullable[T]) Get() (T, bool) { return n.value, n.present && !n.null }

// IsNull reports whether the field is null.
func (n Nullable[T]) IsNull() bool { return n.null }

// IsZero reports whether the field is omitted.
func (n Nullable[T]) IsZero() bool { return !n.present }

// MarshalJSON returns the value or null.
func (n Nullable[T]) MarshalJSON() ([]byte, error) {
	if _, ok := n.Get(); !ok {
		return []byte("null"), nil
	}
	return json.Marshal(n.value)
}

// UnmarshalJSON parses a value or null.
func (n *Nullable[T]) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*n = Null[T]()
		return nil
	}
	var value T
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	*n = Set(value)
	return nil
}

// RawJSON is JSON in place of any of the types that a field accepts, such as a
// [ProviderConfigInput] that was read from a file.
type RawJSON json.RawMessage

// MarshalJSON returns the JSON itself.
func (r RawJSON) MarshalJSON() ([]byte, error) { return json.RawMessage(r).MarshalJSON() }
