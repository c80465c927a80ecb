package store

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// What the replicas tell each other through Postgres.
const (
	// AdminTokensRevoked is heard when a token was revoked.
	AdminTokensRevoked = "caracal_admin_tokens"
	// OutboxFilled is heard when another replica has committed events.
	OutboxFilled = "caracal_outbox"
)

// Listen calls heard[channel] whenever another replica, or this one, speaks on
// it, until ctx ends. It tells up whether it can hear at all: while it cannot,
// nobody may rely on being told. A connection that has silently died is found
// out within a few seconds.
func (s *Store) Listen(ctx context.Context, log *slog.Logger, heard map[string]func(), up func(bool)) {
	const again = 200 * time.Millisecond
	lost := false
	for ctx.Err() == nil {
		err := s.listen(ctx, heard, func() {
			if lost {
				log.InfoContext(ctx, "hears the other replicas again")
			}
			lost = false
			up(true)
		})
		up(false)
		if ctx.Err() == nil && !lost {
			lost = true
			log.WarnContext(ctx, "lost the connection that hears the other replicas; trying until it is back", "error", err)
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
		}
	}
}

func (s *Store) listen(ctx context.Context, heard map[string]func(), up func()) error {
	const every, patience = 2 * time.Second, 2 * time.Second
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer func() {
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_ = conn.Close(bye)
	}()
	for channel := range heard {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return err
		}
	}
	up()
	for {
		quiet, cancel := context.WithTimeout(ctx, every)
		notification, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			if f := heard[notification.Channel]; f != nil {
				f()
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case quiet.Err() != nil: // nothing was said: is anybody there?
			ping, cancel := context.WithTimeout(ctx, patience)
			err := conn.Ping(ping)
			cancel()
			if err != nil {
				return err
			}
		default:
			return err
		}
	}
}
