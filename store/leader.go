package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/db"
)

// RunAsLeader waits until this process is the only one that leads what is named so,
// and runs work then, with a store that sees all zones and that speaks through
// the very connection which holds the lead: when that is lost, so is the lead,
// and the store fails. It returns when work does, when the connection is lost,
// or when ctx ends; another process can lead at once.
func (s *Store) RunAsLeader(ctx context.Context, name string, work func(context.Context, *Store) error) error {
	const retryInterval, closeTimeout = 500 * time.Millisecond, 2 * time.Second
	config := s.pool.Config().ConnConfig
	// Postgres ends the lead of a process that is frozen, or whose machine is gone.
	for name, value := range map[string]string{
		"idle_session_timeout": "5s",
		"tcp_keepalives_idle":  "2", "tcp_keepalives_interval": "1", "tcp_keepalives_count": "3",
		"tcp_user_timeout": "5s",
	} {
		config.RuntimeParams[name] = value
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return mapError(err)
	}
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = conn.Close(closeCtx)
	}()
	leader := &Store{core: s.core, actor: System, q: db.New(scoped{conn: conn, zone: AllZones})}
	for {
		leads, err := leader.q.TryAcquireLeadership(ctx, name)
		if err != nil {
			return err
		}
		if leads {
			return work(ctx, leader)
		}
		select {
		case <-time.After(retryInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
