//go:build faults

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
)

// A keyedCaller creates applications one after the other. It repeats each request, with its
// Idempotency-Key, at one replica after the other until it has the response.
type keyedCaller struct {
	t        *testing.T
	random   *rand.Rand
	next     func() string // returns the URL of a replica
	path     string
	attempts *atomic.Int64
}

// create creates an application and returns its id. It gives up most attempts after a random
// time, so that it cannot know whether they were processed.
func (c keyedCaller) create(name string) string {
	key := uuid.NewString()
	var first string
	for copies := 0; copies < 3; { // of the response: all must be the same
		timeout := time.Duration(1+c.random.IntN(40)) * time.Millisecond
		if c.random.IntN(4) == 0 || copies > 0 {
			timeout = maxRequestTime
		}
		status, body := c.send(name, key, timeout)
		switch {
		case status == http.StatusCreated && (copies == 0 || body == first):
			first = body
			copies++
		case status == http.StatusCreated:
			c.t.Errorf("%s: got two responses:\n%s\n%s", name, first, body)
			return ""
		case status == 0, status == http.StatusServiceUnavailable: // no response, or Postgres is unavailable
		case status == http.StatusConflict && codeOf(body) == code.IdempotencyKeyInUse:
		default:
			c.t.Errorf("%s: got %d %s", name, status, body)
			return ""
		}
	}
	var created struct {
		ID     string `json:"id"`
		Secret string `json:"client_secret"`
	}
	if err := json.Unmarshal([]byte(first), &created); err != nil || created.Secret == "" {
		c.t.Errorf("%s: got %s, %v", name, first, err)
	}
	return created.ID
}

// send sends a request once. It returns status 0 if there is no complete response.
func (c keyedCaller) send(name, key string, timeout time.Duration) (status int, body string) {
	c.attempts.Add(1)
	headers := map[string]string{"Content-Type": "application/json", "Authorization": "Bearer " + token, "Idempotency-Key": key}
	return post(c.t, c.next()+c.path, fmt.Sprintf(`{"name":%q,"registration_method":"managed"}`, name), headers, timeout)
}

// post sends a request. It returns status 0 if there is no complete response.
func post(t *testing.T, to, body string, headers map[string]string, timeout time.Duration) (status int, text string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(all)
}

// However often a request is repeated, and whatever is killed meanwhile, it creates one
// object, and each response is the same, with the same secret.
func TestRepeatedRequestsHaveOneEffectAndOneResponse(t *testing.T) {
	t.Parallel()
	const kills, workers = 6, 4
	b := newBackends(t)
	var replicas replicaSet
	running := []*service{b.start("replica-0"), b.start("replica-1")}
	for _, s := range running {
		replicas.add(s.url)
	}
	zone := createZone(t, running[0])
	var attempts atomic.Int64
	var mu sync.Mutex
	created := map[string]string{} // ids by name
	seed := rand.Uint64()
	killed := make(chan struct{}) // closed when no more processes are killed
	var all sync.WaitGroup
	for worker := range workers {
		c := keyedCaller{t, rand.New(rand.NewPCG(seed, uint64(worker))), replicas.next, "/v1/zones/" + zone + "/applications", &attempts}
		all.Go(func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("keyed %d %d", worker, n)
				id := c.create(name)
				mu.Lock()
				created[name] = id
				mu.Unlock()
				select {
				case <-killed:
					return
				case <-time.After(denseInterval):
				}
			}
		})
	}
	random := rand.New(rand.NewPCG(seed, workers))
	for n := range kills {
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		if n%3 == 0 { // of Postgres, in the middle of transactions
			b.superuser("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'replica-%'")
			continue
		}
		next := b.start(fmt.Sprintf("replica-%d", n+2))
		replicas.add(next.url)
		running[0].kill()
		replicas.remove(running[0].url) // after the kill, so that some requests go to a dead process
		running = append(running[1:], next)
	}
	close(killed)
	all.Wait()
	stored := map[string][]string{} // ids by name
	for _, application := range column[string](b, "SELECT id || ' ' || name FROM applications") {
		id, name, _ := strings.Cut(application, " ")
		stored[name] = append(stored[name], id)
	}
	for name, id := range created {
		if !slices.Equal(stored[name], []string{id}) {
			t.Errorf("%s: the response has the id %s, and the database %v", name, id, stored[name])
		}
	}
	if len(stored) != len(created) {
		t.Errorf("%d names are stored, and %d were created", len(stored), len(created))
	}
	if violations := column[string](b, `SELECT id FROM idempotency_keys WHERE response IS NULL
		UNION ALL SELECT 'there are ' || count(*) || ' keys' FROM idempotency_keys WHERE zone_id = $1 HAVING count(*) <> $2`, zone, len(created)); len(violations) > 0 {
		t.Errorf("stored responses: %v", violations)
	}
	b.waitIdle(running...)
	for _, i := range invariants {
		if violations := column[string](b, i.violations); len(violations) > 0 {
			t.Errorf("not true: %s: %v", i.name, violations)
		}
	}
	for _, s := range running {
		s.terminate()
	}
	t.Logf("%d applications, %d requests", len(created), attempts.Load())
}

// createZone creates a zone and returns its id.
func createZone(t *testing.T, s *service) string {
	t.Helper()
	c, err := client.New(s.url, token)
	if err != nil {
		t.Fatal(err)
	}
	zone, err := c.CreateZone(t.Context(), client.NewZone{Name: "Zone"})
	if err != nil {
		t.Fatal(err)
	}
	return zone.ID
}
