package redisconn

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// A Capability is something that the service needs Redis for.
type Capability string

// The capabilities.
const (
	Events     Capability = "events"      // publish events on their streams
	RateLimits Capability = "rate_limits" // count the requests of all processes

	OAuthStates   Capability = "oauth_states"   // remember started authorizations
	AuditEvents   Capability = "audit_events"   // publish and ingest audit events
	ControlTokens Capability = "control_tokens" // remember used Control tokens and client assertions
)

// A Reason is why Redis does not do what the service needs.
type Reason string

// The reasons. Of the first four, there is no connection that can be used.
const (
	ConnectionFailed     Reason = "connection_failed"
	Timeout              Reason = "timeout"
	TLSFailed            Reason = "tls_failed"
	AuthenticationFailed Reason = "authentication_failed"
	PermissionDenied     Reason = "permission_denied"
	ReadOnly             Reason = "read_only"
	OutOfMemory          Reason = "out_of_memory"
	Loading              Reason = "loading"
	Rejected             Reason = "rejected" // for another reason, which the error contains
)

// Unreachable reports whether there is no connection that can be used.
func (r Reason) Unreachable() bool {
	return slices.Contains([]Reason{ConnectionFailed, Timeout, TLSFailed, AuthenticationFailed}, r)
}

// A State is the result of a check.
type State struct {
	Missing []Capability // those that do not work; empty: all work
	Reason  Reason       // of the first failure
	Command string       // the first command that failed, and its key
	Err     error        // its error
}

// Needs are the streams and the prefixes of keys that the service uses.
type Needs struct {
	Streams  []string
	Counters []string
	States   []string
	Used     []string // of tokens
	Consumed []ConsumedStream
}

// A ConsumedStream is a stream that the service reads with a consumer group, and the
// stream of its dead letters.
type ConsumedStream struct{ Stream, DeadLetters string }

// A probe is a command that the service sends, with an argument for which Redis
// rejects it or with a key that does not exist. Redis checks permissions, its role and
// its memory first. So the command fails as a real one would, and changes nothing if it
// does not.
type probe struct {
	capability Capability
	command    string
	reply      redis.Cmder
}

// executed reports whether Redis has executed the command.
func (p probe) executed() bool {
	err := p.reply.Err()
	replied := func() bool { // the client does not set the replies if Redis rejects the connection
		cmd, ok := p.reply.(*redis.Cmd)
		return ok && cmd.Val() != nil
	}
	return IsRejected(err) || errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "NOGROUP") || err == nil && replied()
}

// Check sends every command that the service uses to each stream and with each prefix
// of keys, in one pipeline.
func (c *Client) Check(ctx context.Context, needs Needs) State {
	pipe := c.Pipeline()
	var probes []probe
	for _, stream := range needs.Streams {
		entry := &redis.XAddArgs{Stream: stream, MaxLen: 1, Approx: true, ID: "0-0", Values: []string{"probe", ""}} // the ID must be greater
		probes = append(probes, probe{Events, "XADD " + stream, pipe.XAdd(ctx, entry)})
	}
	for _, prefix := range needs.Counters {
		key := prefix + "probe"
		for _, command := range []string{"INCRBY", "PEXPIRE"} {
			probes = append(probes, probe{RateLimits, command + " " + prefix + "*", pipe.Do(ctx, command, key, "not-a-number")})
		}
	}
	for _, prefix := range needs.States {
		key := prefix + "probe"
		for _, command := range [][]any{{"SET", key, "", "EX", "not-a-number"}, {"PEXPIRETIME", key}, {"GETDEL", key}} {
			probes = append(probes, probe{OAuthStates, fmt.Sprint(command[0], " ", prefix, "*"), pipe.Do(ctx, command...)})
		}
	}
	for _, prefix := range needs.Used {
		probes = append(probes, probe{ControlTokens, "SET " + prefix + "*", pipe.Do(ctx, "SET", prefix+"probe", "", "PX", "not-a-number", "NX")})
	}
	for _, s := range needs.Consumed {
		entry := &redis.XAddArgs{Stream: s.DeadLetters, MaxLen: 1, Approx: true, ID: "0-0", Values: []string{"probe", ""}}
		probes = append(probes, probe{AuditEvents, "XADD " + s.DeadLetters, pipe.XAdd(ctx, entry)})
		for _, command := range s.commands() {
			text := fmt.Sprint(command[0])
			if container := text == "XGROUP" || text == "XINFO"; container {
				text += fmt.Sprint(" ", command[1])
			}
			probes = append(probes, probe{AuditEvents, text, pipe.Do(ctx, command...)})
		}
	}
	_, pipeErr := pipe.Exec(ctx) // each reply has its own error
	var state State
	for _, p := range probes {
		if p.executed() {
			continue
		}
		err := p.reply.Err()
		if err == nil {
			err = cmp.Or(pipeErr, ErrNoReply)
		}
		if !slices.Contains(state.Missing, p.capability) {
			state.Missing = append(state.Missing, p.capability)
		}
		if state.Reason == "" {
			state.Command = p.command
			state.Reason, state.Err = c.classify(err)
		}
	}
	return state
}

// commands returns the commands with which a stream is consumed, with a group that does
// not exist or with an invalid ID.
func (s ConsumedStream) commands() [][]any {
	const group, consumer, invalidID = "probe", "probe", "not-an-id"
	return [][]any{
		{"XREADGROUP", "GROUP", group, consumer, "COUNT", 1, "STREAMS", s.Stream, ">"},
		{"XACK", s.Stream, group, "0-0"},
		{"XAUTOCLAIM", s.Stream, group, consumer, 0, "0-0"},
		{"XPENDING", s.Stream, group},
		{"XINFO", "GROUPS", s.Stream},
		{"XINFO", "CONSUMERS", s.Stream, group},
		{"XGROUP", "CREATE", s.Stream, group, invalidID},
		{"XGROUP", "SETID", s.Stream, group, invalidID},
		{"XGROUP", "DELCONSUMER", s.Stream, group, consumer},
		{"XTRIM", s.Stream, "MINID", "~", invalidID},
		{"XADD", s.Stream, "0-0", "probe", ""}, // the ID must be greater
		{"XLEN", s.DeadLetters},
		{"XRANGE", s.DeadLetters, "-", "+", "COUNT", 1},
	}
}

// ErrNoReply means that Redis has not replied to a command.
var ErrNoReply = errors.New("no reply")

// classify returns the reason of an error, and the error with an explanation.
func (c *Client) classify(err error) (Reason, error) {
	var reply redis.Error
	if errors.As(err, &reply) {
		return replyReason(reply.Error()), err
	}
	var timeout net.Error
	switch {
	case errors.As(err, new(*handshakeError)):
		return TLSFailed, err
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		if c.handshakes.Load() > 0 {
			return TLSFailed, fmt.Errorf("no reply to the TLS handshake: redis:// connects without TLS: %w", err)
		}
		return Timeout, fmt.Errorf("no reply in time: %w", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return ConnectionFailed, fmt.Errorf("connection closed without a reply: if Redis requires TLS, the URL must begin with rediss://: %w", err)
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return TLSFailed, err
	}
	return ConnectionFailed, err
}

// replyReason returns the reason of an error reply.
func replyReason(reply string) Reason {
	kind, detail, _ := strings.Cut(reply, " ")
	switch kind {
	case "NOAUTH", "WRONGPASS":
		return AuthenticationFailed
	case "NOPERM":
		return PermissionDenied
	case "READONLY", "MASTERDOWN":
		return ReadOnly
	case "OOM":
		return OutOfMemory
	case "LOADING":
		return Loading
	case "ERR":
		switch {
		case strings.HasPrefix(detail, "AUTH"), strings.HasPrefix(detail, "invalid password"):
			return AuthenticationFailed
		case strings.HasPrefix(detail, "max number of clients"):
			return ConnectionFailed
		}
	}
	return Rejected
}

// IsRejected reports whether an error is a reply of Redis that concerns only this
// command: the key has the wrong type, or a generic ERR, for example because the
// ids of the stream are exhausted. All other replies (OOM, LOADING, READONLY,
// MASTERDOWN, CLUSTERDOWN, NOAUTH, NOPERM, …) and connection errors concern the
// server or the account: every command would fail with them.
//
// [redis.HasErrorPrefix] cannot be used: it strips "ERR " before it compares.
func IsRejected(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	kind, detail, _ := strings.Cut(reply.Error(), " ")
	switch kind {
	case "WRONGTYPE":
		return true
	case "ERR":
		return !slices.ContainsFunc(connectionErrors, func(prefix string) bool { return strings.HasPrefix(detail, prefix) })
	}
	return false
}

// connectionErrors are the prefixes of ERR replies that concern the connection or
// the server, not the command.
var connectionErrors = []string{
	"max number of clients",
	"Protocol error", // for example "unauthenticated multibulk length", if the client has not authenticated
	"AUTH", "invalid password", "operation not permitted",
	"unknown command", // it is disabled or renamed
	"DB index is out of range", "SELECT is not allowed",
}
