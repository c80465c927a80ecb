// Package redisconn connects to Redis: one server, a Sentinel deployment or a
// cluster. It checks what the connection allows, and logs when that changes.
package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// A Client is a connection pool. Its errors contain no password.
type Client struct {
	redis.UniversalClient
	handshakes *atomic.Int32 // TLS handshakes in progress
}

// Open returns a client for a URL, which connects when it is used. Its connections
// have a name in the client list of Redis, if Redis allows that. It returns an error,
// which contains nothing of the URL, if the URL is invalid. The forms are:
//
//	redis://user:password@host:6379/0                 one server
//	unix://user:password@/path/to/redis.sock?db=0     the same, on a Unix socket
//	redis://user:password@host1:6379?addr=host2:6379  a cluster; with one address: ?cluster=true
//	redis://host1:26379?master_name=main&addr=host2:26379&username=user&password=password
//	                                                  Sentinels; user:password@ is of the Sentinels
//
// rediss:// is redis:// with TLS. Of a cluster or of Sentinels, all certificates must be
// valid for the first host.
func Open(rawURL, name string) (*Client, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("must be a URL; special characters in the password must be percent-encoded")
	}
	switch u.Scheme {
	case "redis", "rediss", "unix":
	default:
		return nil, errors.New("must begin with redis://, rediss:// or unix://")
	}
	c := &Client{handshakes: new(atomic.Int32)}
	setName := func(ctx context.Context, conn *redis.Conn) error {
		_ = conn.ClientSetName(ctx, clientName(name)).Err() // only informs: an ACL or a proxy may reject it
		return nil
	}
	// The callers handle failures themselves. The other two send further commands.
	const dialAttempts, noRetries, noIdentity = 1, -1, true
	notifications := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	query := u.Query()
	cluster := query.Get("cluster") == "true"
	query.Del("cluster")
	u.RawQuery = query.Encode()
	var secrets []string
	switch {
	case query.Has("master_name"):
		var o *redis.FailoverOptions
		if o, err = redis.ParseFailoverURL(u.String()); err != nil {
			break
		}
		secrets = []string{o.Password, o.SentinelPassword}
		o.Dialer, o.OnConnect, o.ContextTimeoutEnabled = c.dialer(o.TLSConfig), setName, true
		o.DialerRetries, o.MaxRetries, o.DisableIdentity = dialAttempts, noRetries, noIdentity
		c.UniversalClient = redis.NewFailoverClient(o)
	case cluster || query.Has("addr"):
		var o *redis.ClusterOptions
		if o, err = redis.ParseClusterURL(u.String()); err != nil {
			break
		}
		secrets = []string{o.Password}
		o.Dialer, o.OnConnect, o.ContextTimeoutEnabled = c.dialer(o.TLSConfig), setName, true
		o.DialerRetries, o.MaxRetries, o.DisableIdentity, o.MaintNotificationsConfig = dialAttempts, noRetries, noIdentity, notifications
		c.UniversalClient = redis.NewClusterClient(o)
	default:
		var o *redis.Options
		if o, err = redis.ParseURL(u.String()); err != nil {
			break
		}
		secrets = []string{o.Password}
		o.Dialer, o.OnConnect, o.ContextTimeoutEnabled = c.dialer(o.TLSConfig), setName, true
		o.DialerRetries, o.MaxRetries, o.DisableIdentity, o.MaintNotificationsConfig = dialAttempts, noRetries, noIdentity, notifications
		c.UniversalClient = redis.NewClient(o)
	}
	if err != nil {
		return nil, errors.New("has an invalid database number, address or parameter after the host")
	}
	c.AddHook(redactor(secrets))
	return c, nil
}

// CheckURL returns the error of [Open] for a URL.
func CheckURL(rawURL string) error {
	c, err := Open(rawURL, "")
	if err != nil {
		return err
	}
	return c.Close()
}

// clientName returns a name without the characters that Redis rejects in the names of
// connections.
func clientName(name string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, name)
}

// dialer returns a function that connects, with TLS if there is a configuration for it.
// Unlike the dialer of go-redis, its errors distinguish a failed handshake from a failed
// connection.
func (c *Client) dialer(config *tls.Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	var plain net.Dialer
	if config == nil {
		return plain.DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := plain.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c.handshakes.Add(1)
		defer c.handshakes.Add(-1)
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, &handshakeError{address, err}
		}
		return secure, nil
	}
}

// A handshakeError is a failed TLS handshake.
type handshakeError struct {
	address string
	cause   error
}

func (e *handshakeError) Error() string {
	text := "TLS handshake with " + e.address + ": " + e.cause.Error()
	if errors.As(e.cause, new(tls.RecordHeaderError)) {
		text += " (redis:// connects without TLS)"
	}
	return text
}

func (e *handshakeError) Unwrap() error { return e.cause }

// A redactor removes secrets from errors. Redis quotes arguments of commands that it
// does not know, and a server that is not Redis could quote anything.
type redactor []string

// redact returns an error without secrets: the error itself if it contains none.
func (r redactor) redact(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if strings.Contains(text, "ERR unknown command") {
		text, _, _ = strings.Cut(text, ", with args") // Redis cuts long arguments off: the beginning of a secret is not recognized
	}
	for _, s := range r {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[redacted]")
		}
	}
	if text == err.Error() {
		return err
	}
	return &redactedError{text, err}
}

// A redactedError is an error whose text is redacted. The type of the reply is kept.
type redactedError struct {
	text  string
	cause error
}

func (e *redactedError) Error() string { return e.text }

func (e *redactedError) Unwrap() error { return e.cause }

// DialHook implements [redis.Hook].
func (r redactor) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (r redactor) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := r.redact(next(ctx, cmd))
		r.redactCommand(cmd)
		return err
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (r redactor) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := r.redact(next(ctx, cmds))
		for _, cmd := range cmds {
			r.redactCommand(cmd)
		}
		return err
	}
}

func (r redactor) redactCommand(cmd redis.Cmder) {
	if err := cmd.Err(); err != nil {
		cmd.SetErr(r.redact(err))
	}
}
