//go:build faults

package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// A load is a number of callers that change and read entities until it is
// stopped. It records every response, to compare it with the database later.
type load struct {
	t       *testing.T
	b       *backends
	http    *http.Client  // validates every response against the spec
	baseURL func() string // of the service to call, or "" to wait
	client  *rawclient.ClientWithResponses

	stopping chan struct{}
	callers  sync.WaitGroup
	seed     uint64

	policySets map[string]policySet // by zone

	mu               sync.Mutex
	allowDisconnects bool // set while processes are killed: a request may fail without a response
	allowUnavailable bool // set during a fault: status 503 is no violation
	recoveredAt      time.Time
	statuses         map[string]int // by request id
	acknowledged     []change
	entities         map[string]*entity // as last acknowledged, by id; without those whose last change has an unknown outcome
	violations       []string
	counts           counts
}

// counts are the numbers of requests of a part of a load, by outcome.
type counts struct {
	succeeded, reads, unavailable, disconnected int
	slowest                                     time.Duration
	lastFailure                                 time.Time
}

func (c counts) String() string {
	return fmt.Sprintf("%d succeeded, %d of them reads, %d got status 503, %d got no response, slowest %v",
		c.succeeded, c.reads, c.unavailable, c.disconnected, c.slowest.Round(time.Millisecond))
}

// A change is a successful request to create, update or archive an entity.
type change struct{ request, kind, id string }

// An entity is a zone, application, provider, resource or grant, as it should be stored.
// The name of a grant is its user, and a revoked grant counts as archived.
type entity struct {
	kind, zone, id, name string
	archived             bool
}

var serial atomic.Int64

const (
	callers        = 4
	steadyInterval = 25 * time.Millisecond // between the requests of a caller
	denseInterval  = 10 * time.Millisecond // so short that at any time some requests are in progress
	minChanges     = 30                    // acknowledged before a test injects a fault
)

// startLoad starts a load. Each caller sends a request per interval, to the URL
// that baseURL returns; while it returns "", the callers wait.
func (b *backends) startLoad(interval time.Duration, baseURL func() string) *load {
	b.t.Helper()
	l := &load{
		t: b.t, b: b, baseURL: baseURL, stopping: make(chan struct{}), seed: rand.Uint64(), recoveredAt: time.Now(),
		http:     &http.Client{Transport: (&servertest.API{TB: b.t}).Transport()},
		statuses: map[string]int{}, entities: map[string]*entity{}, policySets: map[string]policySet{},
	}
	var err error
	l.client, err = rawclient.NewClientWithResponses("http://service", rawclient.WithHTTPClient(l))
	if err != nil {
		b.t.Fatal(err)
	}
	shared := make([]string, 3)
	for i := range shared {
		zone, ok := l.createZone(true)
		if !ok {
			b.t.Fatalf("creating a zone failed: %v", l.violations)
		}
		shared[i] = zone.id
		l.createPolicySet(zone.id)
	}
	for n := range callers {
		l.callers.Go(func() { l.runCaller(rand.New(rand.NewPCG(l.seed, uint64(n))), interval, shared) })
	}
	b.t.Cleanup(l.stop)
	eventually(b.t, 30*time.Second, fmt.Sprintf("more than %d changes are acknowledged", minChanges), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acknowledged) > minChanges
	})
	return l
}

// startLoadOn starts a load on one service, with the steady interval.
func (b *backends) startLoadOn(s *service) *load {
	b.t.Helper()
	return b.startLoad(steadyInterval, func() string { return s.url })
}

// stop stops the load. It returns when every caller has the response to its last
// request.
func (l *load) stop() {
	l.mu.Lock()
	select {
	case <-l.stopping:
	default:
		close(l.stopping)
	}
	l.mu.Unlock()
	l.callers.Wait()
}

// runFor waits while the load runs, and returns the counts of that time.
func (l *load) runFor(d time.Duration) counts {
	l.takeCounts()
	time.Sleep(d)
	return l.takeCounts()
}

// takeCounts returns the counts since they were last taken, and resets them.
func (l *load) takeCounts() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.counts
	l.counts = counts{}
	return taken
}

// allowFailures resets the counts. Until waitRecovered returns, status 503 is no
// violation.
func (l *load) allowFailures() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allowUnavailable = true
	l.counts = counts{}
}

// allowKills makes requests without a response no violation for the rest of the
// load. Until waitRecovered returns, status 503 is no violation either.
func (l *load) allowKills() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allowDisconnects, l.allowUnavailable = true, true
}

// waitRecovered waits until no request has failed for a while, and returns how
// long the recovery took. From then on, status 503 is a violation.
func (l *load) waitRecovered(timeout time.Duration) time.Duration {
	l.t.Helper()
	const quietPeriod = 500 * time.Millisecond
	l.mu.Lock()
	began := time.Now()
	l.counts.lastFailure = began
	succeeded := l.counts.succeeded
	l.mu.Unlock()
	took := eventually(l.t, timeout+quietPeriod, "requests succeed and none fails", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return time.Since(l.counts.lastFailure) > quietPeriod && l.counts.succeeded > succeeded+callers
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allowUnavailable, l.recoveredAt = false, time.Now()
	return max(0, took-quietPeriod)
}

// requestIDKey is the key of the request id in a context.
type requestIDKey struct{}

// Do sends a request of a caller, counts its outcome, and records a violation if
// the outcome is not allowed.
func (l *load) Do(r *http.Request) (*http.Response, error) {
	base, err := url.Parse(l.baseURL())
	if err != nil {
		return nil, err
	}
	r.URL.Host, r.Host = base.Host, ""
	id := r.Context().Value(requestIDKey{}).(string)
	r.Header.Set("X-Request-Id", id)
	r.Header.Set("Authorization", "Bearer "+token)
	began := time.Now()
	resp, err := l.http.Do(r)
	took := time.Since(began)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.slowest = max(l.counts.slowest, took)
	addViolation := func(format string, args ...any) {
		l.violations = append(l.violations, fmt.Sprintf("%s %s after %v: ", r.Method, r.URL.Path, took.Round(time.Millisecond))+fmt.Sprintf(format, args...))
	}
	if err != nil {
		l.counts.disconnected++
		l.counts.lastFailure = time.Now()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			addViolation("no response")
		case !l.allowDisconnects:
			addViolation("%v", err)
		}
		return nil, err
	}
	l.statuses[id] = resp.StatusCode
	switch {
	case resp.StatusCode < 300:
		l.counts.succeeded++
		if r.Method == http.MethodGet {
			l.counts.reads++
		}
	case resp.StatusCode == http.StatusServiceUnavailable:
		l.counts.unavailable++
		l.counts.lastFailure = time.Now()
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || seconds < 1 {
			addViolation("got status 503 with Retry-After %q, want a number of seconds", resp.Header.Get("Retry-After"))
		}
		if !l.allowUnavailable && began.After(l.recoveredAt) {
			addViolation("got status 503 without a fault")
		}
	case resp.StatusCode == http.StatusTooManyRequests && strings.HasSuffix(r.URL.Path, "/dcr"): // always has a rate limit
	default:
		addViolation("got status %d", resp.StatusCode)
	}
	return resp, nil
}

// runCaller is one caller. Only it changes the entities that it creates.
func (l *load) runCaller(r *rand.Rand, interval time.Duration, shared []string) {
	var zones, applications, providers, resources, grants []*entity
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-l.stopping:
			return
		case <-ticker.C:
		}
		if l.baseURL() == "" {
			continue
		}
		zone := shared[r.IntN(len(shared))]
		switch n := r.IntN(100); {
		case n < 3:
			if created, ok := l.createZone(false); ok {
				zones = append(zones, created)
			}
		case n < 6 && len(zones) > 0:
			if !l.updateZone(zones[0]) {
				zones = zones[1:]
			}
		case n < 8 && len(zones) > 0:
			l.deleteZone(zones[0])
			zones = zones[1:]
		case n < 12:
			l.activatePolicySet(r, zone)
		case n < 32 || n < 60 && len(applications) == 0:
			if created, ok := l.createApplication(zone); ok {
				applications = append(applications, created)
			}
		case len(applications) == 0:
			l.listApplications(zone)
		case n < 34:
			if created, ok := l.createProvider(applications[0].zone); ok {
				providers = append(providers, created)
			}
		case n < 36 && len(providers) > 0:
			if created, ok := l.createResource(providers[r.IntN(len(providers))], applications); ok {
				resources = append(resources, created)
			}
		case n < 39 && len(resources) > 0:
			if created, ok := l.createGrant(resources[r.IntN(len(resources))], applications); ok {
				grants = append(grants, created)
			}
		case n < 41 && len(grants) > 0:
			l.revokeGrant(grants[0])
			grants = grants[1:]
		case n < 42:
			l.registerApplication(zone)
		case n < 50:
			if i := r.IntN(len(applications)); !l.updateApplication(applications[i]) {
				applications = slices.Delete(applications, i, i+1)
			}
		case n < 72:
			i := r.IntN(len(applications))
			l.deleteApplication(applications[i])
			applications = slices.Delete(applications, i, i+1)
		case n < 90:
			l.getApplication(applications[r.IntN(len(applications))])
		default:
			l.listApplications(zone)
		}
	}
}

// newRequest returns the context of a new request, with its id and a timeout.
func (l *load) newRequest() (ctx context.Context, id string, cancel context.CancelFunc) {
	id = fmt.Sprintf("load-%d", serial.Add(1))
	ctx, cancel = context.WithTimeout(context.WithValue(context.Background(), requestIDKey{}, id), maxRequestTime)
	return ctx, id, cancel
}

// record records the result of a change: e, if the response has the status. It
// forgets the entity otherwise, because then the outcome is unknown.
func (l *load) record(request string, resp servertest.Response, err error, status int, e entity) (*entity, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || resp.StatusCode() != status {
		delete(l.entities, e.id)
		return nil, false
	}
	l.acknowledged = append(l.acknowledged, change{request, e.kind, e.id})
	l.entities[e.id] = &e
	return &e, true
}

func (l *load) createZone(dcr bool) (*entity, bool) {
	ctx, id, cancel := l.newRequest()
	defer cancel()
	resp, err := l.client.CreateZoneWithResponse(ctx, client.NewZone{Name: id, DCREnabled: &dcr})
	e := entity{kind: "zones", name: id}
	if err == nil && resp.JSON201 != nil {
		e.id = resp.JSON201.ID
	}
	return l.record(id, resp, err, http.StatusCreated, e)
}

func (l *load) updateZone(z *entity) bool {
	ctx, id, cancel := l.newRequest()
	defer cancel()
	resp, err := l.client.UpdateZoneWithResponse(ctx, z.id, nil, client.ZonePatch{Name: &id})
	_, ok := l.record(id, resp, err, http.StatusOK, entity{kind: z.kind, id: z.id, name: id})
	return ok
}

func (l *load) deleteZone(z *entity) {
	ctx, id, cancel := l.newRequest()
	defer cancel()
	resp, err := l.client.DeleteZoneWithResponse(ctx, z.id, nil)
	l.mu.Lock()
	name := l.entities[z.id].name
	l.mu.Unlock()
	l.record(id, resp, err, http.StatusNoContent, entity{kind: z.kind, id: z.id, name: name, archived: true})
}

func (l *load) createApplication(zone string) (*entity, bool) {
	ctx, id, cancel := l.newRequest()
	defer cancel()
	resp, err := l.client.CreateApplicationWithResponse(ctx, zone, client.NewApplication{Name: id, RegistrationMethod: "managed"})
	e := entity{kind: "applications", zone: zone, name: id}
	if err == nil && resp.JSON201 != nil {
		e.id = resp.JSON201.ID
	}
	return l.record(id, resp, err, http.StatusCreated, e)
}

func (l *load) registerApplication(zone string) {
	ctx, id, cancel := l.newRequest()
	defer cancel()
	resp, err := l.client.RegisterApplicationWithResponse(ctx, zone, client.ApplicationRegistration{Name: id})
	e := entity{kind: "applications", zone: zone, name: id}
	if err == nil && resp.JSON201 != nil {
		e.id = resp.JSON201.ID
	}
	l.record(id, resp, err, http.StatusCreated, e)
}

func (l *load) updateApplication(a *entity) bool {
	ctx, id, cancel := l.newRequest()
	defer cancel()
	resp, err := l.client.UpdateApplicationWithResponse(ctx, a.zone, a.id, nil, client.ApplicationPatch{Name: &id})
	_, ok := l.record(id, resp, err, http.StatusOK, entity{kind: a.kind, zone: a.zone, id: a.id, name: id})
	return ok
}

// deleteApplication archives an application with two sessions, so that the
// service revokes them and publishes events.
func (l *load) deleteApplication(a *entity) {
	if !l.createSessions(a) {
		return // the sessions may still be committed, perhaps after the application is archived
	}
	ctx, id, cancel := l.newRequest()
	defer cancel()
	resp, err := l.client.DeleteApplicationWithResponse(ctx, a.zone, a.id, nil)
	l.mu.Lock()
	name := l.entities[a.id].name
	l.mu.Unlock()
	l.record(id, resp, err, http.StatusNoContent, entity{kind: a.kind, zone: a.zone, id: a.id, name: name, archived: true})
}

// createSessions inserts a session of an application and a child of it. No
// operation creates sessions. It returns false if that fails, as it does while
// Postgres is unavailable.
func (l *load) createSessions(a *entity) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	parent := fmt.Sprintf("session-%d", serial.Add(2))
	_, err := l.b.owner.Exec(ctx, `INSERT INTO sessions (zone_id, id, session_type, subject_id, parent_id, expires_at)
		VALUES ($1, $2, 'application', $3, NULL, now() + interval '1 hour'), ($1, $2 || '-child', 'user', 'somebody', $2, now() + interval '1 hour')`,
		a.zone, parent, a.id)
	return err == nil
}

func (l *load) getApplication(a *entity) {
	ctx, _, cancel := l.newRequest()
	defer cancel()
	got, err := l.client.GetApplicationWithResponse(ctx, a.zone, a.id)
	if err != nil || got.JSON200 == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if want := l.entities[a.id]; want != nil && got.JSON200.Name != want.name {
		l.violations = append(l.violations, fmt.Sprintf("application %s: got name %q, want the acknowledged %q", a.id, got.JSON200.Name, want.name))
	}
}

func (l *load) listApplications(zone string) {
	ctx, _, cancel := l.newRequest()
	defer cancel()
	limit := 50
	_, _ = l.client.ListApplicationsWithResponse(ctx, zone, &rawclient.ListApplicationsParams{Limit: &limit})
}

// checkNoErrors checks that no request had an outcome that is not allowed.
func (l *load) checkNoErrors() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.violations) > 0 {
		l.t.Errorf("got %d violations, first:\n%s", len(l.violations), indent(l.violations[:min(len(l.violations), 5)]))
	}
}

// indent returns the lines, each with a tab before it.
func indent(lines []string) (text string) {
	for _, line := range lines {
		text += "\t" + line + "\n"
	}
	return text
}

// codeOf returns the error code in a response body, "" if there is none.
func codeOf(body string) code.Code {
	var problem struct{ Error string }
	_ = json.Unmarshal([]byte(body), &problem)
	return code.Code(problem.Error)
}

// redisOf returns the state of Redis in a response body of /ready.
func redisOf(body string) client.ReadinessRedis {
	var ready client.Readiness
	_ = json.Unmarshal([]byte(body), &ready)
	return ready.Redis
}
