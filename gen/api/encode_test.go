package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"caracal.run/management/gen"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/server/timestamp"
)

func TestEncodersWriteWhatEncodingJSONWrites(t *testing.T) {
	t.Parallel()
	for _, encoder := range encoders {
		name := reflect.TypeOf(encoder).Name()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(500) {
				v := filler{Rand: rand.New(rand.NewPCG(seed, 0))}.encoder(encoder)
				want, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				got := v.AppendJSON([]byte("before "))
				got, found := bytes.CutPrefix(got, []byte("before "))
				if !found || !reflect.DeepEqual(decode(t, got), decode(t, want)) {
					t.Fatalf("seed %d is encoded as\n%s\nwant\n%s", seed, got, want)
				}
			}
		})
	}
}

func TestEncodersWriteFieldsInTheOrderOfTheSpec(t *testing.T) {
	t.Parallel()
	var spec struct {
		Components struct {
			Schemas map[string]struct{ Properties yaml.Node }
		}
	}
	if err := yaml.Unmarshal(gen.OpenAPI, &spec); err != nil {
		t.Fatal(err)
	}
	for _, encoder := range encoders {
		name := reflect.TypeOf(encoder).Name()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want []string
			for i, n := range spec.Components.Schemas[name].Properties.Content {
				if i%2 == 0 {
					want = append(want, n.Value)
				}
			}
			if len(want) == 0 {
				t.Fatal("the spec has no properties of the schema")
			}
			v := filler{Rand: rand.New(rand.NewPCG(0, 0)), everything: true}.encoder(encoder)
			if got := keys(t, v.AppendJSON(nil)); !slices.Equal(got, want) {
				t.Errorf("the fields are\n%v, want\n%v", got, want)
			}
		})
	}
}

// The spec does not allow null for an array or a map that is required, which is
// what encoding/json would write.
func TestEncodersWriteNilSlicesAndMapsAsEmpty(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, encoder := range encoders {
		written := decode(t, encoder.AppendJSON(nil)).(map[string]any)
		for f := range reflect.TypeOf(encoder).Fields() {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			var want any
			switch {
			case options != "" || f.Type == reflect.TypeFor[json.RawMessage]():
				continue
			case f.Type.Kind() == reflect.Slice:
				want = []any{}
			case f.Type.Kind() == reflect.Map:
				want = map[string]any{}
			default:
				continue
			}
			checked++
			if got := written[name]; !reflect.DeepEqual(got, want) {
				t.Errorf("%T: nil %s is encoded as %v, want %v", encoder, name, got, want)
			}
		}
	}
	if checked == 0 {
		t.Error("no encoder has a slice or a map")
	}
}

// A filler fills values at random. With everything, nothing is nil or empty.
type filler struct {
	*rand.Rand
	everything bool
}

func (f filler) encoder(like jsonresponse.Encoder) jsonresponse.Encoder {
	v := reflect.New(reflect.TypeOf(like)).Elem()
	f.fill(v)
	return v.Interface().(jsonresponse.Encoder)
}

var texts = []string{"", "Billing", "日本\u2028\u2029", `"quoted" \ </script>&`, "\t\r\n\b\f\x00\x1f\x7f", "\xff broken \xf0\x9f", "😀\ufffd"}

func (f filler) fill(v reflect.Value) {
	switch v := v.Addr().Interface().(type) {
	case *timestamp.Time:
		*v = timestamp.Time(time.UnixMicro(f.Int64N(4e15)))
		return
	case *jsonresponse.Encoder:
		*v = objects[f.IntN(len(objects))]
		return
	case *json.RawMessage:
		*v = []json.RawMessage{json.RawMessage(`{}`), json.RawMessage(`{"a": [1, "<", null]}`)}[f.IntN(2)]
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(texts[f.IntN(len(texts))] + texts[f.IntN(len(texts))])
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(f.Int64() >> f.IntN(64) * (f.Int64N(3) - 1)) // SetInt keeps the low bits
	case reflect.Pointer:
		if f.everything || f.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem())
		}
	case reflect.Slice:
		n := f.size()
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range f.size() {
			key, item := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(key)
			f.fill(item)
			v.SetMapIndex(key, item)
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			f.fill(field)
		}
	default:
		panic("no random values of type " + v.Type().String())
	}
}

// An object is a row of a list that package server encodes.
type object string

var objects = []object{`{}`, `{"id":"a","labels":["b"]}`}

func (o object) AppendJSON(b []byte) []byte { return append(b, o...) }

func (o object) MarshalJSON() ([]byte, error) { return []byte(o), nil }

func (f filler) size() int {
	if f.everything {
		return 2
	}
	return f.IntN(4)
}

func decode(t *testing.T, text []byte) (v any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		t.Fatalf("more than one value: %s", text)
	}
	return v
}

// keys returns the field names of an object in the order of the text.
func keys(t *testing.T, object []byte) (all []string) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.Token(); err != nil {
		t.Fatal(err)
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			t.Fatal(err)
		}
		all = append(all, key.(string))
	}
	return all
}
