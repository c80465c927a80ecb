package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/server/limiter"
	"caracal.run/management/store"
	"caracal.run/management/store/redisconn"
	"caracal.run/management/store/seal"
)

// go-redis has a log of its own for connection errors. This service reports them in
// its metrics, in /ready and in its log.
func init() { redis.SetLogger(discardLogger{}) }

type discardLogger struct{}

func (discardLogger) Printf(context.Context, string, ...any) {}

// Run serves until ctx is done, then shuts down gracefully: accepted requests are
// completed.
func Run(ctx context.Context, c Config, log *slog.Logger) error {
	svc, err := Start(ctx, c, log)
	if err != nil {
		return err
	}
	return svc.Wait(ctx)
}

// A Service is a started service.
type Service struct {
	URL    string
	Server *Server
	log    *slog.Logger
	grace  time.Duration
	failed chan error
	stops  []func(context.Context) error // functions that Stop calls, in order of registration
}

// Start starts the service and returns when it accepts requests. It fails if the
// schema version does not match or a key-encryption key is missing; it does not
// wait for Redis.
func Start(ctx context.Context, c Config, log *slog.Logger) (_ *Service, err error) {
	svc := &Service{log: log, grace: c.DrainDelay.duration() + c.ShutdownGrace.duration(), failed: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, svc.Stop())
		}
	}()
	db, keys, err := c.OpenStore(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	svc.onShutdown(func(deadline context.Context) error { return waitUntil(deadline, db.Close) })
	if err := db.CheckSchema(ctx); err != nil {
		return nil, err
	}
	if err := db.CheckPooler(ctx); err != nil {
		return nil, err
	}
	if db.Pooled() {
		log.Info("connection pooler detected")
	}
	if err := db.CheckKeys(ctx); err != nil {
		return nil, err
	}
	if c.AdminToken.IsZero() {
		log.Warn("CARACAL_ADMIN_TOKEN is not set, only existing admin tokens can authenticate")
	} else {
		seedCause := store.Cause{Actor: store.System, RequestID: c.WorkerID, Operation: "seed-admin-tokens"}
		if err := db.InTx(ctx, seedCause, func(tx *store.Tx) error { return tx.SeedAdminTokens(ctx, c.AdminToken.Reveal()) }); err != nil {
			return nil, fmt.Errorf("seed the bootstrap token: %w", err)
		}
	}
	client, err := redisconn.Open(c.RedisURL.Reveal(), c.WorkerID)
	if err != nil {
		return nil, ConfigErrors{{"REDIS_URL", err.Error()}}
	}
	svc.onShutdown(func(context.Context) error { return client.Close() })

	traces, flush, err := newTracing(ctx)
	if err != nil {
		return nil, err
	}
	svc.onShutdown(func(deadline context.Context) error {
		if err := flush(deadline); err != nil {
			log.Warn("failed to flush traces", "error", err)
		}
		return nil
	})

	var handler http.Handler
	svc.Server, handler, err = New(Options{Config: c, Store: db, Redis: client, Log: log, Traces: traces})
	if err != nil {
		return nil, err
	}
	s := svc.Server
	if c.Mode != "dev" && c.baseURL() != string(c.PublicURL) {
		log.Warn("PUBLIC_URL is not an absolute URL, so tokens and the metadata for OAuth clients have URLs that only this machine can reach", "url", c.baseURL())
	}
	svc.goBackground(ctx, s.verifier.Run)
	svc.goBackground(ctx, s.denied.run)
	svc.goBackground(ctx, s.auditEvents.run)
	svc.goBackground(ctx, s.verifier.WatchRevocations)
	svc.goBackground(ctx, func(ctx context.Context) {
		db.Listen(ctx, log, map[string]func(){store.AdminTokensChannel: s.verifier.InvalidateCache, store.OutboxChannel: s.outbox.Wake})
	})
	svc.goBackground(ctx, s.redis.Run)
	svc.goBackground(ctx, func(ctx context.Context) { limiter.SyncLoop(ctx, client, s.sharesLimits, s.limits.all()...) })
	svc.goBackground(ctx, func(ctx context.Context) { reloadKeysPeriodically(ctx, keys, log) })
	svc.goBackground(ctx, s.sealer.Run)
	svc.goBackground(ctx, s.streams.run)
	svc.goBackground(ctx, s.outbox.Run)
	svc.goBackground(ctx, s.outbox.NotifyLoop)
	svc.goBackground(ctx, s.outbox.Watch)
	if !c.ManualJobs {
		svc.goBackground(ctx, s.jobs.Run)
	}
	svc.goBackground(ctx, s.ingester.Run)
	return svc, svc.listen(ctx, c, handler)
}

// RunJobs runs each periodic job once, and returns when nothing is due.
func (svc *Service) RunJobs(ctx context.Context) { svc.Server.jobs.RunAll(ctx) }

// OpenStore opens the store and loads the key-encryption keys.
func (c *Config) OpenStore(ctx context.Context) (*store.Store, *seal.Keys, error) {
	keys, err := c.Keys()
	if err != nil {
		return nil, nil, err
	}
	db, err := store.Open(ctx, store.Config{
		URL: c.DatabaseURL.Reveal(), Name: c.WorkerID, PoolMax: c.PoolMax,
		ConnectTimeout: c.ConnectTimeout.duration(), IdleTimeout: c.IdleTimeout.duration(),
		StatementTimeout: c.StatementTimeout.duration(), IdleInTxTimeout: c.IdleInTxTimeout.duration(),
		Keys: keys, ControlAudience: c.ControlAudience, MaxResources: c.MaxResourcesPerZone,
	})
	return db, keys, err
}

// reloadKeysPeriodically reloads the key-encryption keys until ctx is done, so that
// their file can be changed while the service runs.
func reloadKeysPeriodically(ctx context.Context, keys *seal.Keys, log *slog.Logger) {
	const reloadInterval = 10 * time.Second
	tick := time.NewTicker(reloadInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			before := keys.Current()
			if err := keys.Reload(); err != nil {
				log.WarnContext(ctx, "failed to reload ZONE_KEK, keeping current keys", "error", err)
			} else if now := keys.Current(); now != before {
				log.InfoContext(ctx, "key-encryption key changed", "key_id", now, "previous_key_id", before)
			}
		}
	}
}

// Wait waits until ctx is done or serving fails, then stops the service.
func (svc *Service) Wait(ctx context.Context) error {
	collectGarbageLessOften()
	select {
	case <-ctx.Done():
		svc.log.Info("draining")
		err := svc.Stop()
		if err == nil {
			svc.log.Info("stopped")
		}
		return err
	case err := <-svc.failed:
		return errors.Join(err, svc.Stop())
	}
}

// collectGarbageLessOften is for a program that only serves. A service keeps about 10 MB
// and allocates much more each second: at the default of 100, a seventh of its time is
// garbage collection. Memory that only its start needed is returned first.
func collectGarbageLessOften() {
	const percent = 150
	debug.FreeOSMemory()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// onShutdown registers a function that Stop calls, in reverse order of registration.
func (svc *Service) onShutdown(f func(context.Context) error) { svc.stops = append(svc.stops, f) }

// goBackground runs a background worker until Stop, which cancels its context and
// waits for it.
func (svc *Service) goBackground(ctx context.Context, work func(context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() { work(ctx) })
	svc.onShutdown(func(deadline context.Context) error {
		cancel()
		return waitUntil(deadline, done.Wait)
	})
}

// waitUntil calls wait and returns nil when it returns. If the deadline is exceeded
// first, it returns the error of the context.
func waitUntil(deadline context.Context, wait func()) error {
	finished := make(chan struct{})
	go func() { wait(); close(finished) }()
	select {
	case <-finished:
		return nil
	case <-deadline.Done():
		return deadline.Err()
	}
}

func (svc *Service) listen(ctx context.Context, c Config, handler http.Handler) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	if err != nil {
		return err
	}
	svc.URL = "http://" + address(listener.Addr().(*net.TCPAddr))
	const maxHeader = 16 << 10
	server := &http.Server{
		Handler:           handler,
		ReadTimeout:       c.RequestTimeout.duration(),
		ReadHeaderTimeout: min(c.RequestTimeout.duration(), 10*time.Second),
		WriteTimeout:      c.RequestTimeout.duration() + c.ConnectTimeout.duration() + c.StatementTimeout.duration(),
		IdleTimeout:       c.KeepAlive.duration(),
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(svc.log.Handler(), slog.LevelDebug),
	}
	go func() {
		if err := server.Serve(jsonErrorListener{listener}); !errors.Is(err, http.ErrServerClosed) {
			svc.failed <- err
		}
	}()
	svc.onShutdown(func(deadline context.Context) error {
		close(svc.Server.draining)
		select {
		case <-time.After(c.DrainDelay.duration()):
		case <-deadline.Done():
		}
		if err := server.Shutdown(deadline); err != nil {
			return errors.Join(err, server.Close())
		}
		return nil
	})
	svc.log.Info("serving", "url", svc.URL, "mode", c.Mode)
	return nil
}

// address returns the host and port at which this machine can reach the service.
func address(a *net.TCPAddr) string {
	if a.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", strconv.Itoa(a.Port))
	}
	return a.String()
}

// Stop makes /ready report draining, completes accepted requests, and stops
// everything in reverse order of its start. It takes at most DRAIN_DELAY_MS plus
// SHUTDOWN_GRACE_MS.
func (svc *Service) Stop() error {
	deadline, cancel := context.WithTimeout(context.Background(), svc.grace)
	defer cancel()
	var errs []error
	for len(svc.stops) > 0 {
		last := svc.stops[len(svc.stops)-1]
		svc.stops = svc.stops[:len(svc.stops)-1]
		if err := last(deadline); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
