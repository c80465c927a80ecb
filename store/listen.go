package store

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/db"
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
// replica, until ctx ends. It reconnects when the connection is lost. Notifications
// sent in between are not received, so they only ever make something happen sooner.
//
// It checks every few seconds that notifications arrive: a connection can be dead, and
// a connection pooler that assigns a connection to each transaction delivers none.
func (s *Store) Listen(ctx context.Context, log *slog.Logger, handlers map[string]func()) {
	const retryInterval, pooledRetryInterval = 200 * time.Millisecond, time.Minute
	lost := false
	for ctx.Err() == nil {
		err := s.listen(ctx, handlers, func() {
			if lost {
				log.InfoContext(ctx, "notifications arrive again")
			}
			lost = false
		})
		if ctx.Err() == nil && !lost {
			lost = true
			log.WarnContext(ctx, "notifications do not arrive, polling for revoked tokens and events", "error", err)
		}
		interval := retryInterval
		if errors.Is(err, errNotNotified) && s.Pooled() {
			interval = pooledRetryInterval
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
		}
	}
}

// errNotNotified means that a notification was sent and not received.
var errNotNotified = errors.New("a test notification did not arrive: a connection pooler may be in transaction mode")

// listen connects, and calls the handlers until the connection is lost, notifications
// do not arrive or ctx ends. It calls onArrival whenever a test notification arrives.
func (s *Store) listen(ctx context.Context, handlers map[string]func(), onArrival func()) error {
	const testInterval, timeout = 2 * time.Second, 2 * time.Second
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		_ = conn.Close(closeCtx)
	}()
	testChannel := "caracal_test_" + strings.ToLower(rand.Text())
	subscribe := func(channel string) error {
		_, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize())
		return err
	}
	if err := subscribe(testChannel); err != nil {
		return err
	}
	sender := s.q
	if !s.Pooled() {
		sender = db.New(s.scoped(conn, ""))
	} // else on another connection: on this one, a pooler may deliver what it otherwise loses
	due, testing, subscribed := time.Now(), false, false
	for {
		waitCtx, cancel := context.WithDeadline(ctx, due)
		notification, err := conn.WaitForNotification(waitCtx)
		timedOut := waitCtx.Err() != nil
		cancel()
		switch {
		case err == nil && notification.Channel == testChannel:
			due, testing = time.Now().Add(testInterval), false
			if !subscribed { // not before: a connection of a pooler would stay subscribed
				for channel := range handlers {
					if err := subscribe(channel); err != nil {
						return err
					}
				}
				subscribed = true
			}
			onArrival()
		case err == nil:
			if handle := handlers[notification.Channel]; handle != nil {
				handle()
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case !timedOut:
			return err
		case testing:
			return errNotNotified
		default:
			due, testing = time.Now().Add(timeout), true
			sendCtx, cancel := context.WithDeadline(ctx, due)
			err := sender.NotifyTest(sendCtx, testChannel)
			cancel()
			if err != nil {
				return err
			}
		}
	}
}
