package store

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// What the replicas tell each other through Postgres.
const (
	// AdminTokensChannel is heard when a token was revoked.
	AdminTokensChannel = "caracal_admin_tokens"
	// OutboxChannel is heard when another replica has committed events.
	OutboxChannel = "caracal_outbox"
)

// Listen calls heard[channel] whenever another replica, or this one, speaks on
// it, until ctx ends. It tells up whether it can hear at all: while it cannot,
// nobody may rely on being told. A connection that has silently died is found
// out within a few seconds.
func (s *Store) Listen(ctx context.Context, log *slog.Logger, handlers map[string]func(), onConnectionChange func(bool)) {
	const isRetryable = 200 * time.Millisecond
	lost := false
	for ctx.Err() == nil {
		err := s.listen(ctx, handlers, func() {
			if lost {
				log.InfoContext(ctx, "hears the other replicas again")
			}
			lost = false
			onConnectionChange(true)
		})
		onConnectionChange(false)
		if ctx.Err() == nil && !lost {
			lost = true
			log.WarnContext(ctx, "lost the connection that hears the other replicas; trying until it is back", "error", err)
		}
		select {
		case <-time.After(isRetryable):
		case <-ctx.Done():
		}
	}
}

func (s *Store) listen(ctx context.Context, handlers map[string]func(), onConnectionChange func()) error {
	const pingInterval, timeout = 2 * time.Second, 2 * time.Second
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		_ = conn.Close(closeCtx)
	}()
	for channel := range handlers {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return err
		}
	}
	onConnectionChange()
	for {
		quiet, cancel := context.WithTimeout(ctx, pingInterval)
		notification, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			if f := handlers[notification.Channel]; f != nil {
				f()
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case quiet.Err() != nil: // nothing was said: is anybody there?
			ping, cancel := context.WithTimeout(ctx, timeout)
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
