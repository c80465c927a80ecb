package chain

import (
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

var key, _ = hex.DecodeString("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")

// entries returns the entries of the worked example.
func entries() (first, second Entry) {
	first = Entry{
		ZoneID: "zone-1", ID: "entry-1", RequestID: "req-77", ActorID: new("tok-1"), ActorName: "bootstrap", ActorScope: new("global"),
		Operation: "updateApplication", Action: "PATCH /v1/zones/zone-1/applications/app-1", Method: "PATCH", Path: "/v1/zones/zone-1/applications/app-1",
		EntityType: new("applications"), EntityID: new("app-1"), StatusCode: 200, Payload: `{"changed_fields":["name"]}`,
		OccurredAt: time.Date(2026, 7, 1, 12, 0, 0, 123_000_000, time.UTC),
	}
	second = Entry{
		ZoneID: "zone-1", ID: "entry-2", ActorName: "caracald", Operation: "expire-sessions", Action: "expire-sessions", Payload: "{}",
		OccurredAt: time.Date(2026, 7, 1, 14, 0, 5, 0, time.FixedZone("", 2*60*60)),
	}
	return first, second
}

// The documentation of the package has the hashes and signatures of its example.
func TestWorkedExample(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("chain.go")
	if err != nil {
		t.Fatal(err)
	}
	first, second := entries()
	one := first.Hash(Hash{}, 1)
	two := second.Hash(one, 2)
	head := Head{Zone: "zone-1", Seq: 2, Hash: two, SealedAt: time.Date(2026, 7, 1, 12, 0, 5, 500_000_000, time.UTC)}
	for name, value := range map[string][]byte{"hash 1": one[:], "mac 1": Sign(key, one), "hash 2": two[:], "mac 2": Sign(key, two), "mac of head": head.Sign(key)} {
		if want := "//	" + name + strings.Repeat(" ", 13-len(name)) + hex.EncodeToString(value) + "\n"; !strings.Contains(string(source), want) {
			t.Errorf("the documentation does not contain %q", want)
		}
	}
}

func TestNoSignatureWithoutKey(t *testing.T) {
	t.Parallel()
	if Sign(nil, Hash{}) != nil || (Head{}).Sign(nil) != nil {
		t.Error("there is a signature without a key")
	}
}

// Each field of an entry changes the hash, and so does whether it is null.
func TestHashCoversEveryField(t *testing.T) {
	t.Parallel()
	first, _ := entries()
	want := first.Hash(Hash{}, 1)
	if first.Hash(Hash{}, 2) == want || first.Hash(want, 1) == want {
		t.Error("the hash does not depend on the sequence number and the previous hash")
	}
	for i := range reflect.TypeFor[Entry]().NumField() {
		name := reflect.TypeFor[Entry]().Field(i).Name
		changed, _ := entries()
		switch field := reflect.ValueOf(&changed).Elem().Field(i); v := field.Addr().Interface().(type) {
		case *string:
			*v += "x"
		case **string:
			*v = new("")
			if empty := changed.Hash(Hash{}, 1); empty == want {
				t.Errorf("%s does not change the hash", name)
			}
			*v = nil
			if null := changed.Hash(Hash{}, 1); null == func() Hash { *v = new(""); return changed.Hash(Hash{}, 1) }() {
				t.Errorf("%s: null and empty have the same hash", name)
			}
		case *int32:
			*v++
		case *time.Time:
			*v = v.Add(time.Microsecond)
		default:
			t.Fatalf("field %s of type %T", name, v)
		}
		if changed.Hash(Hash{}, 1) == want {
			t.Errorf("%s does not change the hash", name)
		}
	}
}

// Text cannot move from one field to the next without changing the hash.
func TestFieldsAreDelimited(t *testing.T) {
	t.Parallel()
	if (&Entry{Method: "ab", Path: "c"}).Hash(Hash{}, 1) == (&Entry{Method: "a", Path: "bc"}).Hash(Hash{}, 1) {
		t.Error("the hash does not depend on where a field ends")
	}
}
