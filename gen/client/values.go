package client

import "encoding/json"

// A Nullable is the value of a field in an update: omitted (the zero value), null
// ([Null]), or a value ([Set]).
type Nullable[T any] struct {
	value   T
	present bool
	null    bool
}

// Set returns a Nullable with a value.
func Set[T any](value T) Nullable[T] { return Nullable[T]{value: value, present: true} }

// Null returns a Nullable that is null, for example Null[string]().
func Null[T any]() Nullable[T] { return Nullable[T]{present: true, null: true} }

// Get returns the value, and reports whether there is one. There is none if the
// field is omitted or null.
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

// RawJSON is JSON text for a field that accepts several types, for example a
// [ProviderConfigInput] that was read from a file.
type RawJSON json.RawMessage

// MarshalJSON returns the text.
func (r RawJSON) MarshalJSON() ([]byte, error) { return json.RawMessage(r).MarshalJSON() }
