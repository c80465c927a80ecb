package server

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
)

// metrics are what the process measures of itself. Labels are names of
// operations and codes of the spec: their number is bounded.
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
			Name: "caracal_api_request_duration_seconds", Help: "How long requests took, by operation.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"operation"}),
		statuses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caracal_api_requests_total", Help: "Requests, by operation and status class.",
		}, []string{"operation", "status"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caracal_api_errors_total", Help: "Errors that were answered, by operation and code.",
		}, []string{"operation", "code"}),
		outbox: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "caracal_api_outbox_latency_seconds", Help: "From the beginning of an event's transaction until Redis took the event.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600},
		}),
	}
}

// register the metrics, with those that a server's parts keep.
func (m *metrics) register(s *Server) {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	counter := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value)
	}
	pool := func(value func() int32) func() float64 { return func() float64 { return float64(value()) } }
	version := "dev"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	m.registry.MustRegister(m.requests, m.statuses, m.errors, m.outbox,
		gauge("caracal_api_db_pool_max_connections", "Postgres connections at the most.", pool(func() int32 { return s.store.Stat().MaxConns() })),
		gauge("caracal_api_db_pool_acquired_connections", "Postgres connections in use.", pool(func() int32 { return s.store.Stat().AcquiredConns() })),
		gauge("caracal_api_db_pool_idle_connections", "Postgres connections that wait for work.", pool(func() int32 { return s.store.Stat().IdleConns() })),
		counter("caracal_api_refusals_dropped_total", "Refusals that could not be recorded in the audit trail.", func() float64 { return float64(s.denied.dropped.Load()) }),
		counter("caracal_api_token_cache_hits_total", "Tokens that were recognised without a look into the database.", func() float64 { return float64(s.verifier.Stat().Hits) }),
		counter("caracal_api_token_cache_misses_total", "Tokens that had to be looked up.", func() float64 { return float64(s.verifier.Stat().Misses) }),
		counter("caracal_api_outbox_published_total", "Events that Redis has taken from this process.", func() float64 { return float64(s.outbox.Stat().Published) }),
		counter("caracal_api_outbox_refused_total", "Times that Redis refused an event.", func() float64 { return float64(s.outbox.Stat().Rejected) }),
		counter("caracal_api_outbox_away_total", "Times that Redis could not take events.", func() float64 { return float64(s.outbox.Stat().Unavailable) }),
		outboxDepth{s.store},
		counter("caracal_api_auth_failures_total", "Requests whose token was not recognised.", func() float64 { return float64(s.verifier.Stat().Failures) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "caracal_api_build_info", Help: "Which build this is; always 1.",
			ConstLabels: prometheus.Labels{"version": version}}, func() float64 { return 1 }),
	)
	for _, limit := range s.limits.named() {
		decisions := func(decision string, value func() uint64) {
			m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: "caracal_api_limit_decisions_total", Help: "Requests that a limit admitted or refused.",
				ConstLabels: prometheus.Labels{"limit": limit.name, "decision": decision},
			}, func() float64 { return float64(value()) }))
		}
		decisions("admitted", func() uint64 { return limit.Stat().Allowed })
		decisions("refused", func() uint64 { return limit.Stat().Denied })
	}
}

// observe one request. What is no operation of the spec counts under "".
func (m *metrics) observe(operation string, status int, deniedRequest code.Code, took time.Duration) {
	m.requests.WithLabelValues(operation).Observe(took.Seconds())
	m.statuses.WithLabelValues(operation, statusClass(status)).Inc()
	if deniedRequest != "" {
		m.errors.WithLabelValues(operation, string(deniedRequest)).Inc()
	}
}

func statusClass(status int) string {
	return [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}[min(max(status/100, 1), 5)-1]
}

// outboxDepth asks Postgres at each scrape. While Postgres is away it measures
// nothing, and leaves the other metrics alone.
type outboxDepth struct{ store *store.Store }

// The contract's names (operations.md §4), though two end in _total.
var (
	outboxPending    = prometheus.NewDesc("caracal_api_outbox_pending_total", "Events that wait to be published.", nil, nil)
	outboxDead       = prometheus.NewDesc("caracal_api_outbox_dead_total", "Events that Redis refused for good.", nil, nil)
	outboxPendingAge = prometheus.NewDesc("caracal_api_outbox_oldest_pending_age_seconds", "How long the oldest has waited.", nil, nil)
	outboxDeadAge    = prometheus.NewDesc("caracal_api_outbox_oldest_dead_age_seconds", "How old the oldest dead event is.", nil, nil)
)

// Describe names the metrics.
func (outboxDepth) Describe(names chan<- *prometheus.Desc) {
	for _, name := range []*prometheus.Desc{outboxPending, outboxDead, outboxPendingAge, outboxDeadAge} {
		names <- name
	}
}

// Collect measures.
func (o outboxDepth) Collect(into chan<- prometheus.Metric) {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	stat, err := o.store.OutboxStat(ctx)
	if err != nil {
		return
	}
	into <- prometheus.MustNewConstMetric(outboxPending, prometheus.GaugeValue, float64(stat.Pending))
	into <- prometheus.MustNewConstMetric(outboxDead, prometheus.GaugeValue, float64(stat.Dead))
	into <- prometheus.MustNewConstMetric(outboxPendingAge, prometheus.GaugeValue, stat.OldestPendingSeconds)
	into <- prometheus.MustNewConstMetric(outboxDeadAge, prometheus.GaugeValue, stat.OldestDeadSeconds)
}
