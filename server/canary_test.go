package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/jackc/pgx/v5"

	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// leave sends what ends before it is answered.
func (w *watched) leave() {
	w.t.Helper()
	address := strings.TrimPrefix(w.URL, "http://")
	providers := "/v1/zones/" + w.zone.ID + "/providers"
	for _, text := range []string{
		"POST " + providers + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.admin + "\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{\"config_json\":{\"api_key\":\"" + w.secret(),
		"POST " + providers + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.admin + "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + w.secret() + "\r\n",
		"GET /v1/zones/%zz" + w.secret() + "?token=" + w.secret() + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/zones HTTP/1.1\r\nHost: x\r\nAuthorization : " + w.secret() + "\r\n\r\n",
		"GET /v1/zones HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.secret() + "\x00\r\n\r\n",
		"GET /v1/zones HTTP/1.1\r\nHost: x\r\nAuthorization: " + strings.Repeat(w.secret(), 2000) + "\r\n\r\n",
		"GET /v1/zones?a;b=" + w.secret() + " HTTP/9.1\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			w.t.Fatal(err)
		}
		_, _ = conn.Write([]byte(text))
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(conn) // it may be reset
		w.mu.Lock()
		w.answers.Write(answer)
		w.mu.Unlock()
		_ = conn.Close()
	}
	// And one whose caller leaves while Postgres works.
	conn, err := pgx.Connect(w.t.Context(), w.DB.OwnerURL())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(w.t.Context())
	if _, err := conn.Exec(w.t.Context(), "BEGIN; LOCK TABLE providers IN ACCESS EXCLUSIVE MODE"); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	body := `{"name":"Left","kind":"bearer_token","config_json":{"bearer_token":"` + w.secret() + `"}}`
	r, err := http.NewRequestWithContext(ctx, "POST", w.URL+providers, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.admin)
	r.Header.Set("Content-Type", jsonType)
	var asking sync.WaitGroup
	asking.Go(func() {
		if resp, err := http.DefaultClient.Do(r); err == nil {
			_ = resp.Body.Close()
			w.t.Errorf("it answered %d to a caller who had left", resp.StatusCode)
		}
	})
	eventually(w.t, "the request waits", func() bool {
		return storetest.Value[int](w.DB, "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") > 0
	})
	cancel()
	asking.Wait()
	eventually(w.t, "its end is logged", func() bool { return strings.Contains(w.Log.String(), `"status":499`) })
}

// expectNothing fails if a secret is anywhere.
func (w *watched) expectNothing() {
	w.t.Helper()
	places := w.everywhere()
	w.dataKeys()
	w.secrets["a made-up secret"] = []byte(stem)
	for _, found := range find(w.secrets, places) {
		w.t.Error(found)
	}
	operations, sizes := map[string]bool{}, []string{}
	for one := range w.met {
		operations[strings.Fields(one)[0]] = true
	}
	for _, p := range places {
		sizes = append(sizes, fmt.Sprintf("%s (%d)", p.name, len(p.text)))
	}
	w.t.Logf("%d secrets made up and %d of the service's own, in %d forms; %d requests to %d operations, %d ways to end; searched: %s",
		w.planted, len(w.secrets)-1, len(forms([]byte(stem))), w.requests, len(operations), len(w.met), strings.Join(sizes, ", "))
}

// onEveryTable has every write to every table fail.
func onEveryTable(db *storetest.DB, raise string) {
	db.Exec("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + raise + "; END $$")
	for _, table := range storetest.Column[string](db, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'") {
		db.Exec("CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON " + table + " FOR EACH ROW EXECUTE FUNCTION refuse()")
	}
}

const quotingTheRow = `RAISE EXCEPTION 'refused: %', NEW USING DETAIL = to_jsonb(NEW)::text, HINT = NEW::text`

func TestCanaryNoSecretLeavesTheProcess(t *testing.T) { // not parallel: see captureProcess; its subtests are
	output := captureProcess(t)
	for _, tt := range []struct {
		name          string
		breaks, mends func(*watched)
		only          func(servertest.Operation) bool // nil is all
		settings      []string
	}{
		{"nothing fails", nil, nil, nil, nil},
		{"Redis is away", nil, nil, writes, []string{"REDIS_URL=redis://:redis-" + stem + "@127.0.0.1:1"}},
		{"callers leave", (*watched).leave, nil, public, nil},
		{"Postgres quotes the row that it refuses", func(w *watched) { onEveryTable(w.DB, quotingTheRow) }, nil, writes, nil},
		{"statements take too long", func(w *watched) {
			w.DB.Exec("CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); END $$")
			w.DB.Exec("CREATE TRIGGER take_long BEFORE INSERT ON providers FOR EACH ROW EXECUTE FUNCTION take_long()")
		}, nil, func(op servertest.Operation) bool { return op.OperationID == "createProvider" }, []string{"DB_STATEMENT_TIMEOUT_MS=200"}},
		{"transactions meet deadlocks", func(w *watched) { onEveryTable(w.DB, quotingTheRow+", ERRCODE = '40P01'") }, nil, hides, nil},
		{"columns are gone", func(w *watched) {
			w.DB.Exec("ALTER TABLE providers RENAME secret_config TO gone")
			w.DB.Exec("ALTER TABLE applications RENAME client_secret_hash TO gone")
			w.DB.Exec("ALTER TABLE data_keys RENAME wrapped TO gone")
			w.DB.Exec("ALTER TABLE resources RENAME operations TO gone")
		}, func(w *watched) { w.DB.Exec("ALTER TABLE data_keys RENAME gone TO wrapped") }, nil, nil},
		{"columns have other types", func(w *watched) {
			for _, table := range []string{"applications", "providers", "resources"} {
				w.DB.Exec("ALTER TABLE " + table + " ALTER version TYPE text")
			}
		}, nil, nil, nil},
		{"nobody is recognised any more", func(w *watched) { w.DB.Exec("ALTER TABLE admin_tokens RENAME token_sha256 TO gone") }, nil, nil, nil},
		{"nothing can be recorded", func(w *watched) { w.DB.Exec("REVOKE INSERT ON audit_entries, outbox FROM caracal_service") }, nil, nil, nil},
		{"what is sealed does not open", func(w *watched) { w.DB.Exec(`UPDATE data_keys SET wrapped = '\x00'`) }, func(w *watched) {
			w.DB.Exec("DELETE FROM provider_grants; UPDATE providers SET secret_config = NULL, data_key = NULL, secret_config_keys = '{}'; DELETE FROM data_keys")
		}, takesBody, nil},
		{"Postgres is away", func(w *watched) { w.DB.Away() }, func(w *watched) { w.DB.Back() }, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := watch(t, output, tt.settings...)
			w.brief = tt.name != "nothing fails"
			if tt.breaks != nil {
				tt.breaks(w)
			}
			only := tt.only
			if only == nil {
				only = func(servertest.Operation) bool { return true }
			}
			w.everyOperation(only)
			if tt.mends != nil {
				tt.mends(w)
			}
			w.expectNothing()
		})
	}
}

// Whoever adds a secret member to a request plants one here too.
func TestCanaryCoversEverySecretField(t *testing.T) {
	t.Parallel()
	secretive := regexp.MustCompile(`(^|_)(secret|password|passphrase|private_key|credential)$`)
	var members []string
	var look func(*openapi3.SchemaRef)
	look = func(s *openapi3.SchemaRef) {
		if s == nil || s.Value == nil {
			return
		}
		for name, member := range s.Value.Properties {
			if member.Value.WriteOnly || secretive.MatchString(name) {
				members = append(members, name)
			}
			look(member)
		}
		look(s.Value.Items)
		for _, part := range slices.Concat(s.Value.AllOf, s.Value.AnyOf, s.Value.OneOf) {
			look(part)
		}
	}
	eachOperation(t, takesBody, func(_ *testing.T, op servertest.Operation) {
		look(op.RequestBody.Value.Content.Get(jsonType).Schema)
	})
	slices.Sort(members)
	if members = slices.Compact(members); !slices.Equal(members, plantedMembers) {
		t.Errorf("secret members are %v, and secrets are planted in %v", members, plantedMembers)
	}
}
