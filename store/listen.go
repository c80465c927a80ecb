package store

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// The Postgres channels on which the replicas notify each other (LISTEN/NOTIFY).
const (
	// AdminTokensChannel receives a notification after an admin token is revoked.
	AdminTokensChannel = "caracal_admin_tokens"
	// OutboxChannel receives a notification after a replica other than the leader
	// commits events.
	OutboxChannel = "caracal_outbox"
)

// Listen calls handlers[channel] for each notification on a channel, from any
// replica, until ctx ends. It reconnects when the connection is lost, and calls
// onConnectionChange with true after it connects and with false after the
// connection is lost. Notifications sent in between are not received. A dead
// connection is detected within a few seconds.
func (s *Store) Listen(ctx context.Context, log *slog.Logger, handlers map[string]func(), onConnectionChange func(bool)) {
	const retryInterval = 200 * time.Millisecond
	lost := false
	for ctx.Err() == nil {
		err := s.listen(ctx, handlers, func() {
			if lost {
				log.InfoContext(ctx, "notification connection re-established")
			}
			lost = false
			onConnectionChange(true)
		})
		onConnectionChange(false)
		if ctx.Err() == nil && !lost {
			lost = true
			log.WarnContext(ctx, "notification connection lost, reconnecting", "error", err)
		}
		select {
		case <-time.After(retryInterval):
		case <-ctx.Done():
		}
	}
}

// listen connects, calls onConnected and then the handlers, until the
// connection is lost or ctx ends.
func (s *Store) listen(ctx context.Context, handlers map[string]func(), onConnected func()) error {
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
	onConnected()
	for {
		waitCtx, cancel := context.WithTimeout(ctx, pingInterval)
		notification, err := conn.WaitForNotification(waitCtx)
		cancel()
		switch {
		case err == nil:
			if handle := handlers[notification.Channel]; handle != nil {
				handle()
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case waitCtx.Err() != nil: // no notification: check the connection
			pingCtx, cancel := context.WithTimeout(ctx, timeout)
			err := conn.Ping(pingCtx)
			cancel()
			if err != nil {
				return err
			}
		default:
			return err
		}
	}
}
