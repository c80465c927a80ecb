//go:build faults

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"caracal.run/management/gen/client"
)

// controlSettings open the Control API. All replicas have the same URL, and so are one
// issuer of tokens.
var controlSettings = []string{
	"CARACAL_CONTROL_ENABLED=true", "CONTROL_GATE_FILE=/dev/null", "CONTROL_INVOKE_IP_RATE_LIMIT_PER_MIN=0", "CONTROL_RATE_CAPACITY=0",
	"PUBLIC_URL=http://control.example.com", "AUDIT_CLAIM_IDLE_SECS=1",
}

// A controlCaller invokes commands with a Control key.
type controlCaller struct {
	t    *testing.T
	key  client.CreatedControlKey
	next func() string // returns the URL of a replica
}

// newControlKey creates a Control key that can create applications.
func newControlKey(t *testing.T, s *service, zone string) client.CreatedControlKey {
	t.Helper()
	c, err := client.New(s.url, token)
	if err != nil {
		t.Fatal(err)
	}
	key, err := c.CreateControlKey(t.Context(), zone, client.NewControlKey{Name: "key", AllowedScopes: []client.ControlScope{client.ControlScopeControlAppWrite}})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// token returns a token, from the first replica that issues one.
func (c controlCaller) token() string {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {c.key.ID}, "client_secret": {c.key.ClientSecret}, "resource": {c.key.Resource}, "scope": {"control:app:write"},
	}.Encode()
	for {
		status, body := post(c.t, c.next()+"/oauth/2/token", form, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, maxRequestTime)
		var issued client.IssuedToken
		switch {
		case status == http.StatusOK && json.Unmarshal([]byte(body), &issued) == nil:
			return issued.AccessToken
		case status != 0 && status != http.StatusServiceUnavailable:
			c.t.Errorf("the token request got %d %s", status, body)
			return ""
		}
	}
}

// create invokes a command that creates an application.
func (c controlCaller) create(at, token, name string, timeout time.Duration) (status int, body string) {
	command := fmt.Sprintf(`{"command":"app","subcommand":"create","flags":{"name":%q}}`, name)
	return post(c.t, at+"/v1/control/invoke", command, map[string]string{"Content-Type": "application/json", "Authorization": "Bearer " + token}, timeout)
}

// A process that is killed while an invocation waits for Postgres has used its token up, and
// changed nothing.
func TestKilledInvocationHasUsedItsTokenAndChangedNothing(t *testing.T) {
	t.Parallel()
	b := newBackends(t)
	killed, other := b.start("killed", controlSettings...), b.start("other", controlSettings...)
	zone := createZone(t, killed)
	c := controlCaller{t, newControlKey(t, killed, zone), func() string { return other.url }}
	token := c.token()
	lock, err := b.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.Background()) }()
	if _, err := lock.Exec(t.Context(), "SELECT pg_advisory_xact_lock(hashtextextended('zone:' || $1, 0))", zone); err != nil {
		t.Fatal(err)
	}
	done := make(chan int)
	go func() {
		status, _ := c.create(killed.url, token, "Created", maxRequestTime)
		done <- status
	}()
	eventually(t, 5*time.Second, "the invocation waits for the zone lock", func() bool {
		return column[int](b, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")[0] > 0
	})
	killed.kill()
	if status := <-done; status != 0 {
		t.Errorf("the invocation got %d from a process that was killed", status)
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, body := c.create(other.url, token, "Created", maxRequestTime); status != http.StatusUnauthorized || !strings.Contains(body, "control_token_replayed") {
		t.Errorf("the second use of the token got %d %s", status, body)
	}
	if n := column[int](b, "SELECT count(*) FROM applications WHERE name = 'Created'")[0]; n != 0 {
		t.Errorf("%d applications were created", n)
	}
	other.terminate()
}

// Whatever is killed, an invocation is applied at most once, however often it is sent, and
// what was applied is in the audit log. The audit event of an invocation can be lost only
// with the process that has applied it, and never says more than what was done.
func TestKilledProcessesApplyInvocationsOnce(t *testing.T) {
	t.Parallel()
	const kills, workers = 6, 4
	b := newBackends(t)
	var replicas replicaSet
	running := []*service{b.start("replica-0", controlSettings...), b.start("replica-1", controlSettings...)}
	for _, s := range running {
		replicas.add(s.url)
	}
	zone := createZone(t, running[0])
	c := controlCaller{t, newControlKey(t, running[0], zone), replicas.next}
	seed := rand.Uint64()
	var mu sync.Mutex
	appliedAt := map[string]string{} // URLs of replicas by name, of the invocations with a success response
	attempts := 0
	stopping := make(chan struct{})
	var all sync.WaitGroup
	for worker := range workers {
		random := rand.New(rand.NewPCG(seed, uint64(worker)))
		all.Go(func() {
			for n := 0; ; n++ {
				name, token := fmt.Sprintf("invoked %d %d", worker, n), c.token()
				for range 4 {
					timeout := time.Duration(1+random.IntN(40)) * time.Millisecond
					if random.IntN(2) == 0 {
						timeout = maxRequestTime
					}
					at := replicas.next()
					status, body := c.create(at, token, name, timeout)
					mu.Lock()
					attempts++
					switch _, again := appliedAt[name]; {
					case status == http.StatusOK && again:
						t.Errorf("%s was applied twice", name)
					case status == http.StatusOK:
						appliedAt[name] = at
					case status != 0 && status != http.StatusServiceUnavailable && !strings.Contains(body, "control_token_replayed"):
						t.Errorf("%s got %d %s", name, status, body)
					}
					mu.Unlock()
				}
				select {
				case <-stopping:
					return
				case <-time.After(denseInterval):
				}
			}
		})
	}
	random := rand.New(rand.NewPCG(seed, workers))
	var killed []string
	for n := range kills {
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		next := b.start(fmt.Sprintf("replica-%d", n+2), controlSettings...)
		replicas.add(next.url)
		running[0].kill()
		killed = append(killed, running[0].url)
		replicas.remove(running[0].url) // after the kill, so that some requests go to a dead process
		running = append(running[1:], next)
	}
	close(stopping)
	all.Wait()
	if violations := column[string](b, `SELECT name || ' was applied ' || count(*) || ' times' FROM applications WHERE zone_id = $1 AND name LIKE 'invoked %' GROUP BY name HAVING count(*) > 1
		UNION ALL SELECT a.name || ' has ' || count(e.id) || ' audit entries' FROM applications AS a
			LEFT JOIN audit_entries AS e ON e.zone_id = a.zone_id AND e.entity_id = a.id AND e.operation = 'createApplication' AND e.actor_id = $2
			WHERE a.zone_id = $1 AND a.name LIKE 'invoked %' GROUP BY a.name HAVING count(e.id) <> 1`, zone, c.key.ID); len(violations) > 0 {
		t.Errorf("%v", violations)
	}
	stored := column[string](b, "SELECT name FROM applications WHERE zone_id = $1 AND name LIKE 'invoked %'", zone)
	const recorded = `SELECT a.name FROM audit_events AS e JOIN applications AS a ON a.zone_id = e.zone_id AND a.id = e.metadata::jsonb -> 'object_ids' ->> 0
		WHERE e.zone_id = $1 AND e.event_type = 'control.invoke' AND e.decision = 'allow'`
	var wanted []string // names of invocations whose audit event is not lost
	for name, at := range appliedAt {
		if !slices.Contains(stored, name) {
			t.Errorf("%s got a success response and is not stored", name)
		}
		if !slices.Contains(killed, at) {
			wanted = append(wanted, name)
		}
	}
	var missing []string
	eventually(t, 15*time.Second, "the audit events of the processes that were not killed are stored", func() bool {
		events := column[string](b, recorded, zone)
		missing = slices.DeleteFunc(slices.Clone(wanted), func(name string) bool { return slices.Contains(events, name) })
		return len(missing) == 0
	})
	if len(missing) > 0 {
		t.Errorf("they are not stored: %v", missing)
	}
	if events := column[string](b, recorded, zone); len(events) > len(slices.Compact(slices.Sorted(slices.Values(events)))) {
		t.Error("an invocation has two audit events that say it was applied")
	}
	if lies := column[string](b, `SELECT e.id FROM audit_events AS e WHERE e.zone_id = $1 AND e.event_type = 'control.invoke' AND e.decision = 'allow'
		AND NOT EXISTS (SELECT FROM applications AS a WHERE a.zone_id = e.zone_id AND a.id = e.metadata::jsonb -> 'object_ids' ->> 0)`, zone); len(lies) > 0 {
		t.Errorf("audit events say that invocations were applied that were not: %v", lies)
	}
	for _, s := range running {
		s.terminate()
	}
	t.Logf("%d invocations were applied, %d of them without a response; %d attempts", len(stored), len(stored)-len(appliedAt), attempts)
}
