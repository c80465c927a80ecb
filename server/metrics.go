package server

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/jobs"
	"caracal.run/management/store"
	"caracal.run/management/store/outbox"
)

// metrics holds the metrics of the process. The values of labels are operation ids,
// error codes and status classes, so that their number is bounded.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	statuses *prometheus.CounterVec
	errors   *prometheus.CounterVec
	outbox   prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "caracal_api_request_duration_seconds", Help: "Request duration in seconds by operation.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"operation"}),
		statuses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caracal_api_requests_total", Help: "Requests by operation and status class.",
		}, []string{"operation", "status"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caracal_api_errors_total", Help: "Error responses by operation and code.",
		}, []string{"operation", "code"}),
		outbox: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "caracal_api_outbox_latency_seconds", Help: "Seconds from the start of an event's transaction until the event is in Redis.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600},
		}),
	}
}

// register registers all metrics, including those that read the state of s.
func (m *metrics) register(s *Server) {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	counter := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
	}
	pool := func(value func() int32) func() float64 { return func() float64 { return float64(value()) } }
	m.registry.MustRegister(m.requests, m.statuses, m.errors, m.outbox,
		gauge("caracal_api_db_pool_max_connections", "Maximum number of Postgres connections.", pool(func() int32 { return s.store.Stat().MaxConns() })),
		gauge("caracal_api_db_pool_acquired_connections", "Postgres connections in use.", pool(func() int32 { return s.store.Stat().AcquiredConns() })),
		gauge("caracal_api_db_pool_idle_connections", "Idle Postgres connections.", pool(func() int32 { return s.store.Stat().IdleConns() })),
		counter("caracal_api_refusals_dropped_total", "Denied requests that could not be written to the audit log.", func() float64 { return float64(s.denied.dropped.Load()) }),
		counter("caracal_api_audit_events_dropped_total", "Audit events of token requests and of the Control API that could not be published.", func() float64 { return float64(s.auditEvents.dropped.Load()) }),
		counter("caracal_api_token_cache_hits_total", "Token cache hits.", func() float64 { return float64(s.verifier.Stat().Hits) }),
		counter("caracal_api_token_cache_misses_total", "Token cache misses.", func() float64 { return float64(s.verifier.Stat().Misses) }),
		counter("caracal_api_outbox_published_total", "Events that this process has published to Redis.", func() float64 { return float64(s.outbox.Stat().Published) }),
		counter("caracal_api_outbox_refused_total", "Publish attempts that Redis rejected.", func() float64 { return float64(s.outbox.Stat().Rejected) }),
		counter("caracal_api_outbox_away_total", "Publish attempts that failed because Redis was unavailable.", func() float64 { return float64(s.outbox.Stat().Unavailable) }),
		gauge("caracal_api_outbox_leader", "1 if this process is the leader, which publishes events. The sum over all replicas must be 1.", func() float64 { return float64(min(s.outbox.Stat().Term, 1)) }),
		outboxDepth{s.store},
		jobMetrics{s.jobs},
		gauge("caracal_api_event_streams", "Open streams of zone events.", func() float64 { return float64(s.streams.count()) }),
		counter("caracal_api_audit_sealed_total", "Audit entries that this process has sealed.", func() float64 { return float64(s.sealer.Sealed()) }),
		counter("caracal_api_auth_failures_total", "Failed token verifications.", func() float64 { return float64(s.verifier.Stat().Failures) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "caracal_api_build_info", Help: "Version of the build; always 1.",
			ConstLabels: prometheus.Labels{"version": Version()}}, func() float64 { return 1 }),
	)
	m.registerIngest(s.ingester.Stat)
	for _, state := range []outbox.State{outbox.OK, outbox.Stalled, outbox.NoLeader, outbox.TwoLeaders} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "caracal_api_outbox_state", Help: "1 for the state of the outbox, as this process sees it, and 0 for the others.",
			ConstLabels: prometheus.Labels{"state": string(state)},
		}, func() float64 {
			if s.outbox.Stat().State == state {
				return 1
			}
			return 0
		}))
	}
	for _, limit := range s.limits.named() {
		decisions := func(decision string, value func() uint64) {
			m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: "caracal_api_limit_decisions_total", Help: "Requests that a rate limit allowed or denied.",
				ConstLabels: prometheus.Labels{"limit": limit.name, "decision": decision},
			}, func() float64 { return float64(value()) }))
		}
		decisions("admitted", func() uint64 { return limit.Stat().Allowed })
		decisions("refused", func() uint64 { return limit.Stat().Denied })
	}
}

// Version returns the version of the program, or "dev" if it is unknown.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// observe records one request. The operation is "" if the request matches none.
func (m *metrics) observe(operation string, status int, errCode code.Code, duration time.Duration) {
	m.requests.WithLabelValues(operation).Observe(duration.Seconds())
	m.statuses.WithLabelValues(operation, statusClass(status)).Inc()
	if errCode != "" {
		m.errors.WithLabelValues(operation, string(errCode)).Inc()
	}
}

func statusClass(status int) string {
	return [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}[min(max(status/100, 1), 5)-1]
}

// outboxDepth reads the depth of the outbox, and of the queue of entries to seal, from Postgres at each scrape. While
// Postgres is unavailable, its metrics are absent and all others are present.
type outboxDepth struct{ store *store.Store }

// Two of these gauges end in _total, which is the suffix of counters: existing
// dashboards rely on the names.
var (
	outboxPending    = prometheus.NewDesc("caracal_api_outbox_pending_total", "Events that are not published yet.", nil, nil)
	outboxDead       = prometheus.NewDesc("caracal_api_outbox_dead_total", "Dead letters: events that Redis rejected too often.", nil, nil)
	outboxPendingAge = prometheus.NewDesc("caracal_api_outbox_oldest_pending_age_seconds", "Age in seconds of the oldest event that is not published yet.", nil, nil)
	outboxDeadAge    = prometheus.NewDesc("caracal_api_outbox_oldest_dead_age_seconds", "Age in seconds of the oldest dead letter.", nil, nil)
	auditUnsealed    = prometheus.NewDesc("caracal_api_audit_unsealed", "Audit entries that are not sealed yet; counted up to 10,000.", nil, nil)
	auditUnsealedAge = prometheus.NewDesc("caracal_api_audit_oldest_unsealed_age_seconds", "Age in seconds of the oldest audit entry that is not sealed yet.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (outboxDepth) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{outboxPending, outboxDead, outboxPendingAge, outboxDeadAge, auditUnsealed, auditUnsealedAge} {
		descs <- desc
	}
}

// Collect implements [prometheus.Collector].
func (o outboxDepth) Collect(collected chan<- prometheus.Metric) {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stat, err := o.store.OutboxStat(ctx)
	if err != nil {
		return
	}
	collected <- prometheus.MustNewConstMetric(outboxPending, prometheus.GaugeValue, float64(stat.Pending))
	collected <- prometheus.MustNewConstMetric(outboxDead, prometheus.GaugeValue, float64(stat.Dead))
	collected <- prometheus.MustNewConstMetric(outboxPendingAge, prometheus.GaugeValue, stat.OldestPendingSeconds)
	collected <- prometheus.MustNewConstMetric(outboxDeadAge, prometheus.GaugeValue, stat.OldestDeadSeconds)
	unsealed, err := o.store.SealStat(ctx)
	if err != nil {
		return
	}
	collected <- prometheus.MustNewConstMetric(auditUnsealed, prometheus.GaugeValue, float64(unsealed.Unsealed))
	collected <- prometheus.MustNewConstMetric(auditUnsealedAge, prometheus.GaugeValue, unsealed.OldestSeconds)
}

// jobMetrics are the metrics of the periodic jobs.
type jobMetrics struct{ jobs *jobs.Runner }

var (
	jobRuns    = prometheus.NewDesc("caracal_api_job_runs_total", "Runs of a periodic job by this process.", []string{"job"}, nil)
	jobErrors  = prometheus.NewDesc("caracal_api_job_errors_total", "Runs of a periodic job that failed.", []string{"job"}, nil)
	jobChanged = prometheus.NewDesc("caracal_api_job_changed_total", "Objects that a periodic job of this process has changed or deleted.", []string{"job"}, nil)
	jobSuccess = prometheus.NewDesc("caracal_api_job_last_success_timestamp_seconds", "Time at which a periodic job last succeeded in this process.", []string{"job"}, nil)
)

// Describe implements [prometheus.Collector].
func (jobMetrics) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{jobRuns, jobErrors, jobChanged, jobSuccess} {
		descs <- desc
	}
}

// Collect implements [prometheus.Collector].
func (m jobMetrics) Collect(collected chan<- prometheus.Metric) {
	for _, j := range m.jobs.Stats() {
		collected <- prometheus.MustNewConstMetric(jobRuns, prometheus.CounterValue, float64(j.Runs), j.Job)
		collected <- prometheus.MustNewConstMetric(jobErrors, prometheus.CounterValue, float64(j.Errors), j.Job)
		collected <- prometheus.MustNewConstMetric(jobChanged, prometheus.CounterValue, float64(j.Changed), j.Job)
		if !j.LastSuccess.IsZero() {
			collected <- prometheus.MustNewConstMetric(jobSuccess, prometheus.GaugeValue, float64(j.LastSuccess.UnixMilli())/1000, j.Job)
		}
	}
}
