package egress

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Kind is what went wrong, for programs to tell apart. It is itself an error:
// errors.Is(err, TimedOut).
type Kind string

const (
	// InvalidURL: the URL cannot be read, has no host, or its port is none.
	InvalidURL Kind = "invalid_url"
	// NotHTTPS: the URL's scheme is another.
	NotHTTPS Kind = "not_https"
	// HasUserinfo: the URL carries a user name or a password, or room for them.
	HasUserinfo Kind = "has_userinfo"
	// HostNotAName: the URL's host is an address or cannot be a DNS name.
	HostNotAName Kind = "host_not_a_name"
	// HostNotAllowed: the URL's host is not on the allow-list.
	HostNotAllowed Kind = "host_not_allowed"
	// NotResolved: the look-up failed or found no address.
	NotResolved Kind = "not_resolved"
	// AddressNotPublic: the look-up found an address that is not public.
	AddressNotPublic Kind = "address_not_public"
	// NotConnected: no address took the connection.
	NotConnected Kind = "not_connected"
	// TLSFailed: the server's certificate or its TLS is not acceptable.
	TLSFailed Kind = "tls_failed"
	// NoAnswer: the request or the answer broke off, the answer is not HTTP, or
	// its header is longer than 16 KiB.
	NoAnswer Kind = "no_answer"
	// BodyTooLarge: the answer's body is longer than [Options] allow.
	BodyTooLarge Kind = "body_too_large"
	// TimedOut: the time of [Options] or of the context was over first.
	TimedOut Kind = "timed_out"
	// Canceled: the caller gave up.
	Canceled Kind = "canceled"
)

// details are the kinds' sentences. They are fixed: what a look-up or a peer
// said could tell a tenant of the network that we stand in.
var details = map[Kind]string{
	InvalidURL:       "The URL is not valid.",
	NotHTTPS:         "The URL must begin with https.",
	HasUserinfo:      "The URL must not contain a user name or a password.",
	HostNotAName:     "The URL's host must be a DNS name; addresses are not accepted.",
	HostNotAllowed:   "The URL's host is not one of the allowed hosts.",
	NotResolved:      "The host's name leads to no public address.",
	AddressNotPublic: "The host's name leads to no public address.", // that there is another is nobody's business
	NotConnected:     "No connection to the host could be made.",
	TLSFailed:        "The host's certificate is not valid for its name, or TLS failed.",
	NoAnswer:         "The host gave no usable HTTP answer.",
	BodyTooLarge:     "The host's answer is too large.",
	TimedOut:         "The host did not answer in time.",
	Canceled:         "The request was given up.",
}

func (k Kind) Error() string { return string(k) }

// An Error is why a call has no response. It leads to its kind and to its cause,
// and holds nothing of the URL but the host.
type Error struct {
	Kind  Kind
	Host  string // of the URL; "" if that cannot be read
	Cause error  // for the log, as it may name addresses of ours; never for the caller
}

func (e *Error) Error() string {
	text := "egress: " + string(e.Kind)
	if e.Host != "" {
		text += fmt.Sprintf(" (%q)", e.Host)
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Detail is a sentence that may be shown to whoever wrote the URL.
func (e *Error) Detail() string { return details[e.Kind] }

// Unwrap leads to the kind and to the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// wrapError is a failure on the way. Whatever breaks once the time is over or the
// caller has left broke because of that.
func wrapError(ctx context.Context, kind Kind, host string, cause error) *Error {
	deadline, _ := ctx.Deadline()
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		kind = Canceled
	case !time.Now().Before(deadline): // a socket may notice before ctx does
		kind = TimedOut
	}
	return &Error{Kind: kind, Host: host, Cause: cause}
}
