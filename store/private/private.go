// Package private runs a Postgres and a Redis that belong to this program
// alone, from the binaries of the machine: for `caracald dev`, which keeps its
// data in a folder, and for tests, which throw theirs away.
//
// The servers listen on no port, only on unix sockets in a folder that nobody
// but their user may enter. So they clash with nothing on the machine, and can
// trust whoever reaches them. They do not outlive this program, however it
// ends: the kernel tells them to shut down when it is gone.
//
// Postgres refuses to run as root. Under root, both run as the owner of the
// folder's data, which in a new folder of root's is the user postgres or nobody.
package private

import (
	"context"
	"errors"
	"net/url"
	"os"
	"sync"
)

// The roles every private Postgres has, next to a database "caracal".
const (
	Owner   = "caracal_owner"   // owns the database, may create databases and roles
	Service = "caracal_service" // may log in, and owns nothing
)

// Options say where the data stays and who hears of the progress.
type Options struct {
	// Dir is where data stays; it is made if missing. Empty means a throw-away
	// folder, in RAM where there is room. Stop removes it, and a later Start
	// removes what a killed program left.
	Dir string
	// Log, if not nil, is told of each step that takes a while.
	Log func(step string)
}

// Servers are a Postgres and a Redis that answer.
type Servers struct {
	folder   *folder
	postgres *Process
	redis    *Process

	stop    sync.Once
	stopErr error
}

// Start starts both servers and returns when they answer. On a folder that was
// used before, it starts them on the data they left; a folder that is in use is
// refused. If ctx ends first or anything fails, nothing is left running.
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
		// A log holds one run: enough to explain it, and never too much.
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

// Dir is the folder with the data and the logs of both servers.
func (s *Servers) Dir() string { return s.folder.dir }

// PostgresURL is what pgx connects with to a database as a role.
func (s *Servers) PostgresURL(role, database string) string {
	return postgresURL(s.folder, role, database)
}

// RedisURL is what go-redis parses into the options of a client.
func (s *Servers) RedisURL() string {
	return (&url.URL{Scheme: "unix", Path: redisSocket(s.folder)}).String()
}

// Postgres is the server process, for tests of what happens when it fails.
func (s *Servers) Postgres() *Process { return s.postgres }

// Redis is the server process, for tests of what happens when it fails.
func (s *Servers) Redis() *Process { return s.redis }

// Stop shuts both servers down cleanly, waits until they and all they forked
// are gone, and removes a throw-away folder. A second call waits for the first
// and returns the same.
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
