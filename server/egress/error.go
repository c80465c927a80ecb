package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A Kind classifies an error. It is itself an error, for errors.Is(err, TimedOut).
type Kind string

const (
	// InvalidURL: the URL is malformed, has no host, or has an invalid port.
	InvalidURL Kind = "invalid_url"
	// NotHTTPS: the scheme of the URL is not https.
	NotHTTPS Kind = "not_https"
	// HasUserinfo: the URL has a user name or a password, even an empty one.
	HasUserinfo Kind = "has_userinfo"
	// HostNotAName: the host of the URL is an IP address or not a valid DNS name.
	HostNotAName Kind = "host_not_a_name"
	// HostNotAllowed: the host of the URL is not in the allow list.
	HostNotAllowed Kind = "host_not_allowed"
	// NotResolved: the DNS lookup failed or found no address.
	NotResolved Kind = "not_resolved"
	// AddressNotPublic: the DNS lookup found an address that is not public.
	AddressNotPublic Kind = "address_not_public"
	// NotConnected: no address accepted a connection.
	NotConnected Kind = "not_connected"
	// TLSFailed: the TLS handshake failed or the certificate is invalid.
	TLSFailed Kind = "tls_failed"
	// InvalidResponse: the connection was closed early, the response is not HTTP,
	// or its header is larger than 16 KiB.
	InvalidResponse Kind = "invalid_response"
	// BodyTooLarge: the response body is larger than [Options] allow.
	BodyTooLarge Kind = "body_too_large"
	// TimedOut: the timeout of [Options] or the deadline of the context was exceeded.
	TimedOut Kind = "timed_out"
	// Canceled: the caller's context was canceled.
	Canceled Kind = "canceled"
)

// details maps a kind to its sentence. The sentences are constant: the message of a
// resolver or a server could reveal details of the internal network to a tenant.
var details = map[Kind]string{
	InvalidURL:       "The URL is not valid.",
	NotHTTPS:         "The URL must begin with https://.",
	HasUserinfo:      "The URL must not contain a user name or password.",
	HostNotAName:     "The host of the URL must be a DNS name, not an IP address.",
	HostNotAllowed:   "The host of the URL is not one of the allowed hosts.",
	NotResolved:      "The host does not resolve to a public address.",
	AddressNotPublic: "The host does not resolve to a public address.", // must not reveal that a private address was found
	NotConnected:     "Could not connect to the host.",
	TLSFailed:        "The TLS handshake with the host failed, or its certificate is invalid.",
	InvalidResponse:  "The host did not return a valid HTTP response.",
	BodyTooLarge:     "The response of the host is too large.",
	TimedOut:         "The host did not respond in time.",
	Canceled:         "The request was canceled.",
}

func (k Kind) Error() string { return string(k) }

// An Error reports why a request has no response. It wraps its kind and its cause.
// Of the URL, it contains the host only.
type Error struct {
	Kind  Kind
	Host  string // of the URL; "" if the URL is malformed
	Cause error  // for the log only: it may contain internal addresses, but nothing of the request or the response
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

// Detail returns a sentence that is safe to show to the tenant that configured the
// URL.
func (e *Error) Detail() string { return details[e.Kind] }

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// wrapError returns an error of the given kind. If the context is done, it returns
// one of kind [Canceled] or [TimedOut], because that is the reason of the failure.
func wrapError(ctx context.Context, kind Kind, host string, cause error) *Error {
	deadline, _ := ctx.Deadline()
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		kind = Canceled
	case !time.Now().Before(deadline): // a socket may time out before ctx does
		kind = TimedOut
	}
	return &Error{Kind: kind, Host: host, Cause: cause}
}

var errMalformed = errors.New("the response is malformed, or its header is too large")

// withoutResponse returns the error of reading a response without what it may quote of
// a malformed one: a server can send back the secrets that it received. Errors of the
// connection and of the context quote nothing.
func withoutResponse(err error) error {
	var connection net.Error
	if errors.As(err, &connection) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) {
		return err
	}
	return errMalformed
}
