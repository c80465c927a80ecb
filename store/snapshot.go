package store

import (
	"context"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// InSnapshot calls f with a store whose lists all see the database at the same moment,
// so that f can read a list of any length page by page. The pages have a connection of
// their own. Few snapshots can be open at once, so that they leave connections for other
// requests: if there are too many, InSnapshot returns too_many_exports.
//
// A snapshot keeps Postgres from removing old versions of rows. The context must limit
// its duration, and Postgres ends it if f reads nothing for the maximum idle time of a
// transaction.
func (s *Store) InSnapshot(ctx context.Context, f func(*Store) error) error {
	select {
	case s.pool.exports <- struct{}{}:
		defer func() { <-s.pool.exports }()
	default:
		return code.TooManyExports
	}
	return s.snapshot(ctx, s.timeouts.settings+", "+listPlans, func(conn db.DBTX) error {
		q := db.New(conn)
		return f(&Store{core: s.core, actor: s.actor, q: q, shared: q, frozen: conn})
	})
}

// snapshot calls f with a connection whose queries all see the database at the same
// moment. The settings are those of the transaction, with the zone as their parameter.
func (s *Store) snapshot(ctx context.Context, settings string, f func(db.DBTX) error) error {
	conn, err := s.pool.acquire(ctx)
	if err != nil {
		return mapError(err)
	}
	defer conn.Release()
	tx := &batcher{conn: conn.Conn()}
	tx.deferred.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	tx.deferred.Queue(settings, s.actor.Zone)
	defer func() {
		rollbackCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.pool.acquireTimeout)
		defer cancel()
		tx.rollback(rollbackCtx)
	}()
	return mapError(f(tx))
}
