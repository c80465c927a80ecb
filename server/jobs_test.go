package server_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// Each job has metrics from the start of the service on, so that an alert can notice one
// that does not run.
func TestMetricsOfJobs(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "SESSION_RETENTION_DAYS=2")
	zone := openZone(a)
	lapsed, old, kept := a.DB.Session(zone), a.DB.Session(zone), a.DB.Session(zone)
	a.DB.Exec("UPDATE sessions SET expires_at = now() - interval '1 minute' WHERE id = $1", lapsed)
	a.DB.Exec("UPDATE sessions SET status = 'expired', expires_at = now() - interval '49 hours' WHERE id = $1", old)
	names := []string{"expire-sessions", "terminate-agent-sessions", "archive-dcr-applications", "delete-application-secrets", "delete-step-up-challenges", "delete-delegation-edges", "delete-agent-sessions", "delete-sessions"}
	metrics := func() string { return string(a.Do("GET", "/metrics", "").Body) }
	for _, name := range names {
		if text := metrics(); !containsLine(text, `caracal_api_job_runs_total{job="`+name+`"} 0`) || strings.Contains(text, "caracal_api_job_last_success_timestamp_seconds") {
			t.Errorf("%s: metrics before the first run:\n%s", name, text)
		}
	}
	began := time.Now()
	a.Service.RunJobs(t.Context())
	for _, name := range names {
		changed := "0"
		if name == "expire-sessions" || name == "delete-sessions" {
			changed = "1"
		}
		for _, line := range []string{`runs_total{job="` + name + `"} 1`, `errors_total{job="` + name + `"} 0`, `changed_total{job="` + name + `"} ` + changed} {
			if !containsLine(metrics(), "caracal_api_job_"+line) {
				t.Errorf("no metric caracal_api_job_%s", line)
			}
		}
	}
	_, after, _ := strings.Cut(metrics(), `caracal_api_job_last_success_timestamp_seconds{job="delete-sessions"} `)
	text, _, _ := strings.Cut(after, "\n")
	if at, err := strconv.ParseFloat(text, 64); err != nil || at < float64(began.Unix()) || at > float64(time.Now().Unix()+1) {
		t.Errorf("the last success was at %q", text)
	}
	if ids := storetest.Column[string](a.DB, "SELECT id FROM sessions ORDER BY id"); !slices.Equal(ids, slices.Sorted(slices.Values([]string{lapsed, kept}))) {
		t.Errorf("sessions %q are left", ids)
	}
}

// The events of a job are published like those of a request.
func TestEventsOfJobsArePublished(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := openZone(a)
	agent := a.DB.AgentSession(zone, a.DB.Application(zone), a.DB.Session(zone))
	a.DB.Exec("UPDATE agent_sessions SET spawned_at = now() - interval '2 hours' WHERE id = $1", agent)
	a.Service.RunJobs(t.Context())
	eventually(t, "the event is in its stream", func() bool {
		entries, err := a.Redis.XRange(context.Background(), "caracal.agents.lifecycle", "-", "+").Result()
		return err == nil && len(entries) == 1 && entries[0].Values["agent_session_id"] == agent && entries[0].Values["reason"] == "ttl"
	})
}
