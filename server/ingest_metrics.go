package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"caracal.run/management/store/ingest"
)

// registerIngest registers the metrics of the ingestion of audit events. Those of the
// stream are read every ten seconds.
func (m *metrics) registerIngest(stat func() ingest.Stat) {
	counter := func(name, help string, value func(ingest.Stat) uint64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "caracal_audit_" + name, Help: help}, func() float64 { return float64(value(stat())) }))
	}
	gauge := func(name, help string, value func(ingest.Stat) float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "caracal_audit_" + name, Help: help}, func() float64 { return value(stat()) }))
	}
	counter("inserts_total", "Audit events that this process has stored.", func(s ingest.Stat) uint64 { return s.Inserts })
	counter("duplicates_total", "Received audit events that were already stored.", func(s ingest.Stat) uint64 { return s.Duplicates })
	counter("parse_errors_total", "Received audit events that were not valid.", func(s ingest.Stat) uint64 { return s.ParseErrors })
	counter("hmac_failures_total", "Received audit events with a missing or invalid signature.", func(s ingest.Stat) uint64 { return s.HMACFailures })
	counter("tamper_replay_total", "Received audit events with the ID of a stored event and other content.", func(s ingest.Stat) uint64 { return s.TamperReplays })
	counter("dlq_total", "Audit events that this process has copied to the dead-letter stream.", func(s ingest.Stat) uint64 { return s.DeadLetters })
	counter("retries_total", "Failed transactions of audit events that were tried again.", func(s ingest.Stat) uint64 { return s.Retries })
	gauge("consumer_lag", "Audit events in the stream that no replica has received.", func(s ingest.Stat) float64 { return float64(s.Lag) })
	gauge("consumer_pending", "Audit events that a replica has received and not stored.", func(s ingest.Stat) float64 { return float64(s.Pending) })
	gauge("consumer_pel_oldest_seconds", "Age in seconds of the oldest audit event that a replica has received and not stored.", func(s ingest.Stat) float64 { return s.OldestPendingAge })
	gauge("dlq_size", "Entries of the dead-letter stream of audit events.", func(s ingest.Stat) float64 { return float64(s.DeadLetterCount) })
	gauge("dlq_oldest_age_seconds", "Age in seconds of the oldest entry of the dead-letter stream.", func(s ingest.Stat) float64 { return s.OldestDeadLetterAge })
}
