package private

import (
	"context"
	"errors"
	"net/url"
	"os"
	"sync"
)

// Servers are a running Postgres and Redis.
type Servers struct {
	folder   *folder
	postgres *Process
	redis    *Process

	stop    sync.Once
	stopErr error
}

// Start starts both servers and returns when they accept connections. It
// installs them first if they are missing (see [machine.install]). In a folder
// that was used before, they continue with its data. Start fails if the folder
// is in use. If it fails or ctx ends first, no server is left running.
func Start(ctx context.Context, o Options) (*Servers, error) {
	if o.Log == nil {
		o.Log = func(string) {}
	}
	m := thisMachine()
	if err := m.install(ctx, o.Log); err != nil {
		return nil, err
	}
	f, err := openFolder(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &Servers{folder: f}
	if err := s.start(ctx, m, o.Log); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Servers) start(ctx context.Context, m machine, log func(string)) (err error) {
	programs, err := findPostgres(m, s.folder)
	if err != nil {
		return err
	}
	if err := createCluster(ctx, s.folder, programs, log); err != nil {
		return err
	}
	if err := removeStalePid(s.folder); err != nil {
		return err
	}
	if s.redis, err = newRedis(s.folder, m.redis()); err != nil {
		return err
	}
	s.postgres = newPostgres(s.folder, programs)
	both := []*Process{s.postgres, s.redis}
	log("starting Postgres and Redis…")
	for _, p := range both {
		// A log has one run only: enough to explain a failure, and bounded.
		if err := os.RemoveAll(p.log); err != nil {
			return err
		}
		if err := p.launch(); err != nil {
			return err
		}
	}
	for _, p := range both {
		if err := p.ready(ctx); err != nil {
			return err
		}
	}
	return createDatabase(ctx, s.folder, log)
}

// Dir returns the folder with the data and the logs of both servers.
func (s *Servers) Dir() string { return s.folder.dir }

// PostgresURL returns the URL of a database for a role, as pgx parses it.
func (s *Servers) PostgresURL(role, database string) string {
	return postgresURL(s.folder, role, database)
}

// RedisURL returns the URL of Redis, as go-redis parses it.
func (s *Servers) RedisURL() string {
	return (&url.URL{Scheme: "unix", Path: redisSocket(s.folder)}).String()
}

// Postgres returns the server process, for tests of its failure.
func (s *Servers) Postgres() *Process { return s.postgres }

// Redis returns the server process, for tests of its failure.
func (s *Servers) Redis() *Process { return s.redis }

// Stop shuts both servers down cleanly, waits until they and their child
// processes have ended, and removes an ephemeral folder. A second call waits for
// the first and returns the same error.
func (s *Servers) Stop() error {
	s.stop.Do(func() {
		var postgres, redis error
		var both sync.WaitGroup
		both.Go(func() { postgres = s.postgres.close() })
		both.Go(func() { redis = s.redis.close() })
		both.Wait()
		s.stopErr = errors.Join(postgres, redis, s.folder.close())
	})
	return s.stopErr
}
