//go:build faults

package faults_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// A killed apply leaves the zone as it was: all objects of a document, or none. Each document
// replaces the applications of the one before.
func TestKilledAppliesChangeEverythingOrNothing(t *testing.T) {
	t.Parallel()
	const kills, size = 8, 60
	b := newBackends(t)
	s := b.start("replica-0")
	zone := createZone(t, s)
	names := func(document int) (all []string) {
		for i := range size {
			all = append(all, fmt.Sprintf("application %d of %d", i, document))
		}
		slices.Sort(all)
		return all
	}
	// apply applies a document, and returns the status, or 0 if there was no response.
	apply := func(s *service, document int) int {
		objects := make([]string, size)
		for i, name := range names(document) {
			objects[i] = fmt.Sprintf(`{"kind":"application","spec":{"name":%q}}`, name)
		}
		body := `{"prune":true,"prune_kinds":["application"],"objects":[` + strings.Join(objects, ",") + `]}`
		ctx, cancel := context.WithTimeout(context.Background(), maxRequestTime)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/zones/"+zone+"/state/apply?confirm_prune=true", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return 0
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return 0
		}
		return resp.StatusCode
	}
	if status := apply(s, 0); status != http.StatusOK {
		t.Fatalf("the first document: %d", status)
	}
	present, applied, undone := 0, 0, 0
	for document := 1; document <= kills; document++ {
		ended := make(chan int, 1)
		go func() { ended <- apply(s, document) }()
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
		s.kill()
		status := <-ended
		s = b.start(fmt.Sprintf("replica-%d", document))
		// A transaction whose commit the killed process has sent may end after it.
		eventually(t, maxRequestTime, "no transaction of the killed process is left", func() bool {
			return column[int](b, "SELECT count(*)::int FROM pg_stat_activity WHERE application_name = $1 AND state <> 'idle'", fmt.Sprintf("replica-%d", document-1))[0] == 0
		})
		got := column[string](b, "SELECT name FROM applications WHERE archived_at IS NULL ORDER BY name COLLATE \"C\"")
		switch {
		case slices.Equal(got, names(document)):
			present = document
			applied++
		case slices.Equal(got, names(present)) && status == 0:
			undone++
		default:
			t.Fatalf("document %d, of which the response was %d, left %d applications: %q", document, status, len(got), got)
		}
	}
	if status := apply(s, kills+1); status != http.StatusOK {
		t.Errorf("the last document: %d", status)
	}
	recorded := column[int](b, "SELECT count(*)::int FROM audit_entries WHERE operation = 'applyState' AND entity_type = 'applications'")[0]
	if changes := column[int](b, "SELECT (count(*) + count(archived_at))::int FROM applications")[0]; recorded != changes {
		t.Errorf("%d changes have %d audit entries", changes, recorded)
	}
	t.Logf("%d of %d killed applies were committed, and %d had no effect", applied, kills, undone)
}
