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

// A load is callers who change and read all kinds of things, and remember what
// they were told. It goes on until it is stopped.
type load struct {
	t      *testing.T
	w      *world
	http   *http.Client // holds every answer against the spec
	where  func() string
	client *rawclient.ClientWithResponses

	stopping chan struct{}
	callers  sync.WaitGroup
	seed     uint64

	mu       sync.Mutex
	breaks   bool // connections may break: the process is being killed
	faulty   bool // something is broken: a refusal is no surprise
	calm     time.Time
	answered map[string]int    // request id -> status
	promised []spec            // changes that were acknowledged
	things   map[string]*thing // as last acknowledged; those in doubt are not there
	wrong    []string
	counts   counts
}

// counts are of one part of a load.
type counts struct {
	ok, read, refused, broken int
	slowest                   time.Duration
	last                      time.Time // of the latest refusal or break
}

func (c counts) String() string {
	return fmt.Sprintf("%d done, %d of them reads, %d refused, %d broken off, slowest %v", c.ok, c.read, c.refused, c.broken, c.slowest.Round(time.Millisecond))
}

// A spec is a change that was acknowledged.
type spec struct{ request, kind, id string }

// A thing is a zone or an application as it must be.
type thing struct {
	kind, zone, id, name string
	gone                 bool
}

var serial atomic.Int64

const (
	callers = 4
	steady  = 25 * time.Millisecond // how often each of them calls
	enough  = 30                    // changes, for a load
	dense   = 10 * time.Millisecond // so that there are always some underway
)

// load begins a load on whatever serves at the address that where tells; while
// that is nobody, "", the callers wait.
func (w *world) load(pace time.Duration, where func() string) *load {
	w.t.Helper()
	l := &load{
		t: w.t, w: w, where: where, stopping: make(chan struct{}), seed: rand.Uint64(), calm: time.Now(),
		http:     &http.Client{Transport: (&servertest.API{TB: w.t}).Transport()},
		answered: map[string]int{}, things: map[string]*thing{},
	}
	var err error
	l.client, err = rawclient.NewClientWithResponses("http://service", rawclient.WithHTTPClient(l))
	if err != nil {
		w.t.Fatal(err)
	}
	shared := make([]string, 3)
	for i := range shared {
		zone, ok := l.createZone(true)
		if !ok {
			w.t.Fatalf("no zone could be made: %v", l.wrong)
		}
		shared[i] = zone.id
	}
	for n := range callers {
		l.callers.Go(func() { l.call(rand.New(rand.NewPCG(l.seed, uint64(n))), pace, shared) })
	}
	w.t.Cleanup(l.stop)
	eventually(w.t, 30*time.Second, "there is something to lose", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.promised) > enough
	})
	return l
}

// on is a load on one service.
func (w *world) on(s *service) *load {
	w.t.Helper()
	return w.load(steady, func() string { return s.url })
}

// stop ends the load when every caller has heard the answer to the last
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

// lasts lets the load go on for a while and says what it met.
func (l *load) lasts(d time.Duration) counts {
	l.take()
	time.Sleep(d)
	return l.take()
}

// take is the counts since they were last taken.
func (l *load) take() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.counts
	l.counts = counts{}
	return taken
}

// breaking says that from now on something is broken.
func (l *load) breaking() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faulty = true
	l.counts = counts{}
}

// recovers waits until nobody has been refused for a while, and says how long
// it took. From then on a refusal is wrong.
func (l *load) recovers(waitUntil time.Duration) time.Duration {
	l.t.Helper()
	const discardLogger = 500 * time.Millisecond
	l.mu.Lock()
	began := time.Now()
	l.counts.last = began
	done := l.counts.ok
	l.mu.Unlock()
	took := eventually(l.t, waitUntil+discardLogger, "everything works again", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return time.Since(l.counts.last) > discardLogger && l.counts.ok > done+callers
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faulty, l.calm = false, time.Now()
	return max(0, took-discardLogger)
}

// requestKey is of the request's id, in a context.
type requestKey struct{}

// Do sends a request of the load and judges the answer.
func (l *load) Do(r *http.Request) (*http.Response, error) {
	at, err := url.Parse(l.where())
	if err != nil {
		return nil, err
	}
	r.URL.Host, r.Host = at.Host, ""
	id := r.Context().Value(requestKey{}).(string)
	r.Header.Set("X-Request-Id", id)
	r.Header.Set("Authorization", "Bearer "+token)
	began := time.Now()
	resp, err := l.http.Do(r)
	took := time.Since(began)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.slowest = max(l.counts.slowest, took)
	say := func(format string, args ...any) {
		l.wrong = append(l.wrong, fmt.Sprintf("%s %s after %v: ", r.Method, r.URL.Path, took.Round(time.Millisecond))+fmt.Sprintf(format, args...))
	}
	if err != nil {
		l.counts.broken++
		l.counts.last = time.Now()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			say("no answer")
		case !l.breaks:
			say("%v", err)
		}
		return nil, err
	}
	l.answered[id] = resp.StatusCode
	switch {
	case resp.StatusCode < 300:
		l.counts.ok++
		if r.Method == http.MethodGet {
			l.counts.read++
		}
	case resp.StatusCode == http.StatusServiceUnavailable:
		l.counts.refused++
		l.counts.last = time.Now()
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || seconds < 1 {
			say("refused, and not told when to try again: %q", resp.Header.Get("Retry-After"))
		}
		if !l.faulty && began.After(l.calm) {
			say("refused, though nothing is broken")
		}
	case resp.StatusCode == http.StatusTooManyRequests && strings.HasSuffix(r.URL.Path, "/dcr"): // has a limit of its own
	default:
		say("answered %d", resp.StatusCode)
	}
	return resp, nil
}

// call is one caller. Nobody else changes what it made.
func (l *load) call(r *rand.Rand, every time.Duration, shared []string) {
	var zones, applications, providers []*thing
	pace := time.NewTicker(every)
	defer pace.Stop()
	for {
		select {
		case <-l.stopping:
			return
		case <-pace.C:
		}
		if l.where() == "" {
			continue
		}
		zone := shared[r.IntN(len(shared))]
		switch n := r.IntN(100); {
		case n < 3:
			if made, ok := l.createZone(false); ok {
				zones = append(zones, made)
			}
		case n < 6 && len(zones) > 0:
			if !l.updateZone(zones[0]) {
				zones = zones[1:]
			}
		case n < 8 && len(zones) > 0:
			l.deleteZone(zones[0])
			zones = zones[1:]
		case n < 30 || n < 60 && len(applications) == 0:
			if made, ok := l.createApplication(zone); ok {
				applications = append(applications, made)
			}
		case len(applications) == 0:
			l.list(zone)
		case n < 32:
			if made, ok := l.createProvider(applications[0].zone); ok {
				providers = append(providers, made)
			}
		case n < 34 && len(providers) > 0:
			l.createResource(providers[r.IntN(len(providers))], applications)
		case n < 35:
			l.register(zone)
		case n < 50:
			if i := r.IntN(len(applications)); !l.updateApplication(applications[i]) {
				applications = slices.Delete(applications, i, i+1)
			}
		case n < 72:
			i := r.IntN(len(applications))
			l.deleteApplication(applications[i])
			applications = slices.Delete(applications, i, i+1)
		case n < 90:
			l.read(applications[r.IntN(len(applications))])
		default:
			l.list(zone)
		}
	}
}

func (l *load) request() (ctx context.Context, id string, cancel context.CancelFunc) {
	id = fmt.Sprintf("load-%d", serial.Add(1))
	ctx, cancel = context.WithTimeout(context.WithValue(context.Background(), requestKey{}, id), bound)
	return ctx, id, cancel
}

// noted keeps what was acknowledged. A change of whose outcome the caller heard
// nothing leaves the thing in doubt.
func (l *load) noted(request string, answer servertest.Response, err error, status int, now thing) (*thing, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || answer.StatusCode() != status {
		delete(l.things, now.id)
		return nil, false
	}
	l.promised = append(l.promised, spec{request, now.kind, now.id})
	l.things[now.id] = &now
	return &now, true
}

func (l *load) createZone(dcr bool) (*thing, bool) {
	ctx, id, cancel := l.request()
	defer cancel()
	made, err := l.client.CreateZoneWithResponse(ctx, client.NewZone{Name: id, DCREnabled: &dcr})
	now := thing{kind: "zones", name: id}
	if err == nil && made.JSON201 != nil {
		now.id = made.JSON201.ID
	}
	return l.noted(id, made, err, http.StatusCreated, now)
}

func (l *load) updateZone(z *thing) bool {
	ctx, id, cancel := l.request()
	defer cancel()
	changed, err := l.client.UpdateZoneWithResponse(ctx, z.id, nil, client.ZonePatch{Name: &id})
	_, ok := l.noted(id, changed, err, http.StatusOK, thing{kind: z.kind, id: z.id, name: id})
	return ok
}

func (l *load) deleteZone(z *thing) {
	ctx, id, cancel := l.request()
	defer cancel()
	gone, err := l.client.DeleteZoneWithResponse(ctx, z.id, nil)
	l.mu.Lock()
	name := l.things[z.id].name
	l.mu.Unlock()
	l.noted(id, gone, err, http.StatusNoContent, thing{kind: z.kind, id: z.id, name: name, gone: true})
}

func (l *load) createApplication(zone string) (*thing, bool) {
	ctx, id, cancel := l.request()
	defer cancel()
	made, err := l.client.CreateApplicationWithResponse(ctx, zone, client.NewApplication{Name: id, RegistrationMethod: "managed"})
	now := thing{kind: "applications", zone: zone, name: id}
	if err == nil && made.JSON201 != nil {
		now.id = made.JSON201.ID
	}
	return l.noted(id, made, err, http.StatusCreated, now)
}

// createProvider makes one with a secret.
func (l *load) createProvider(zone string) (*thing, bool) {
	ctx, id, cancel := l.request()
	defer cancel()
	config := client.APIKeyProviderConfig{HeaderName: new("X-Api-Key"), APIKey: new("secret of " + id)}
	made, err := l.client.CreateProviderWithResponse(ctx, zone, client.NewProvider{Name: &id, Kind: client.ProviderKindAPIKey, ConfigJSON: config})
	now := thing{kind: "providers", zone: zone, name: id}
	if err == nil && made.JSON201 != nil {
		now.id = made.JSON201.ID
	}
	return l.noted(id, made, err, http.StatusCreated, now)
}

// createResource makes one that names a provider and an application of its zone.
func (l *load) createResource(provider *thing, applications []*thing) {
	i := slices.IndexFunc(applications, func(a *thing) bool { return a.zone == provider.zone })
	if i < 0 {
		return
	}
	ctx, id, cancel := l.request()
	defer cancel()
	made, err := l.client.CreateResourceWithResponse(ctx, provider.zone, client.NewResource{
		Name: &id, UpstreamURL: new("https://upstream.example.com"), Scopes: []string{"read"},
		CredentialProviderID: &provider.id, GatewayApplicationID: &applications[i].id,
	})
	now := thing{kind: "resources", zone: provider.zone, name: id}
	if err == nil && made.JSON201 != nil {
		now.id = made.JSON201.ID
	}
	l.noted(id, made, err, http.StatusCreated, now)
}

func (l *load) register(zone string) {
	ctx, id, cancel := l.request()
	defer cancel()
	made, err := l.client.RegisterApplicationWithResponse(ctx, zone, client.ApplicationRegistration{Name: id})
	now := thing{kind: "applications", zone: zone, name: id}
	if err == nil && made.JSON201 != nil {
		now.id = made.JSON201.ID
	}
	l.noted(id, made, err, http.StatusCreated, now)
}

func (l *load) updateApplication(a *thing) bool {
	ctx, id, cancel := l.request()
	defer cancel()
	changed, err := l.client.UpdateApplicationWithResponse(ctx, a.zone, a.id, nil, client.ApplicationPatch{Name: &id})
	_, ok := l.noted(id, changed, err, http.StatusOK, thing{kind: a.kind, zone: a.zone, id: a.id, name: id})
	return ok
}

// deleteApplication gives it two sessions first, so that others must hear.
func (l *load) deleteApplication(a *thing) {
	if !l.sessions(a) {
		return // they may come after all, and then too late for what ends them
	}
	ctx, id, cancel := l.request()
	defer cancel()
	gone, err := l.client.DeleteApplicationWithResponse(ctx, a.zone, a.id, nil)
	l.mu.Lock()
	name := l.things[a.id].name
	l.mu.Unlock()
	l.noted(id, gone, err, http.StatusNoContent, thing{kind: a.kind, zone: a.zone, id: a.id, name: name, gone: true})
}

// sessions adds what no operation writes: a session of an application and one
// that descends from it. While the database is away, there are none.
func (l *load) sessions(a *thing) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	parent := fmt.Sprintf("session-%d", serial.Add(2))
	_, err := l.w.owner.Exec(ctx, `INSERT INTO sessions (zone_id, id, session_type, subject_id, parent_id, expires_at)
		VALUES ($1, $2, 'application', $3, NULL, now() + interval '1 hour'), ($1, $2 || '-child', 'user', 'somebody', $2, now() + interval '1 hour')`,
		a.zone, parent, a.id)
	return err == nil
}

func (l *load) read(a *thing) {
	ctx, _, cancel := l.request()
	defer cancel()
	got, err := l.client.GetApplicationWithResponse(ctx, a.zone, a.id)
	if err != nil || got.JSON200 == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if want := l.things[a.id]; want != nil && got.JSON200.Name != want.name {
		l.wrong = append(l.wrong, fmt.Sprintf("application %s is called %q, though %q was acknowledged", a.id, got.JSON200.Name, want.name))
	}
}

func (l *load) list(zone string) {
	ctx, _, cancel := l.request()
	defer cancel()
	limit := 50
	_, _ = l.client.ListApplicationsWithResponse(ctx, zone, &rawclient.ListApplicationsParams{Limit: &limit})
}

// blameless fails if a caller was treated badly.
func (l *load) blameless() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) > 0 {
		l.t.Errorf("%d answers were wrong, first:\n%s", len(l.wrong), text(l.wrong[:min(len(l.wrong), 5)]))
	}
}

func text(lines []string) (all string) {
	for _, one := range lines {
		all += "\t" + one + "\n"
	}
	return all
}

// codeOf is the code in an answer's body.
func codeOf(body string) code.Code {
	var problem struct{ Error string }
	_ = json.Unmarshal([]byte(body), &problem)
	return code.Code(problem.Error)
}

// redisOf is what readiness says of Redis.
func redisOf(body string) client.ReadinessRedis {
	var ready client.Readiness
	_ = json.Unmarshal([]byte(body), &ready)
	return ready.Redis
}
