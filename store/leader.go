package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/db"
)

// RunAsLeader waits until this process is the leader of the given name, then runs
// work with a store that can access all zones. Leadership is a session-level
// advisory lock, and that store uses the connection that holds it: when the
// connection is lost, leadership is lost and the store's methods fail. RunAsLeader
// returns when work returns, when the connection is lost or when ctx ends; then
// another process can become the leader at once.
func (s *Store) RunAsLeader(ctx context.Context, name string, work func(context.Context, *Store) error) error {
	const retryInterval, closeTimeout = 500 * time.Millisecond, 2 * time.Second
	config := s.pool.Config().ConnConfig
	// With these, Postgres closes the connection of a leader that is frozen or whose
	// host is down.
	for setting, value := range map[string]string{
		"idle_session_timeout": "5s",
		"tcp_keepalives_idle":  "2", "tcp_keepalives_interval": "1", "tcp_keepalives_count": "3",
		"tcp_user_timeout": "5s",
	} {
		config.RuntimeParams[setting] = value
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
		acquired, err := leader.q.TryAcquireLeadership(ctx, name)
		if err != nil {
			return err
		}
		if acquired {
			return work(ctx, leader)
		}
		select {
		case <-time.After(retryInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
