// Package egress is the only client for outbound HTTP requests. It protects against
// server-side request forgery (SSRF), because tenants configure the URLs: a URL must
// be https with an allowed host; the host is resolved once; every address must be
// public; connections are made to these addresses only; time and size are bounded.
// Redirects are not followed. There are no proxies, cookies or compression.
//
// No option disables these rules. A test uses a [Resolver] that returns a public
// address and a Dial function that connects to its own server.
//
// The package does not depend on tenants or OAuth, and logs nothing. Every error is
// an [*Error].
package egress

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// Options configure a [Client]. The zero value is for production.
type Options struct {
	Timeout  time.Duration  // of a whole request, from the lookup to the last byte of the response; 0: 15 seconds
	MaxBody  int64          // maximum size of a response body in bytes; 0: 64 KiB
	Resolver Resolver       // nil: the resolver of the system
	RootCAs  *x509.CertPool // nil: the certificates of the system

	// Dial connects to an IP address and port that have passed all checks. Nil means a
	// dialer that checks the address once more.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// A Resolver looks up the addresses of a name; [net.Resolver] implements it. The name
// ends with a dot, so that the search domains of the machine do not apply.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error)
}

// A Request is an HTTP request.
type Request struct {
	Method       string
	URL          string
	AllowedHosts []string // DNS names; the host of the URL must be one of them
	Header       http.Header
	Body         []byte
}

// A Response is an HTTP response with any status.
type Response struct {
	Status   int
	Header   http.Header
	Body     []byte
	Duration time.Duration // until the last byte or the error
}

// A Client sends requests to servers that tenants configure. It keeps no connection,
// cookie or address between requests, and is safe for concurrent use.
type Client struct{ options Options }

// New returns a client.
func New(o Options) *Client {
	o.Timeout = cmp.Or(o.Timeout, 15*time.Second)
	o.MaxBody = cmp.Or(o.MaxBody, 64<<10)
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Control: control}).DialContext
	}
	return &Client{o}
}

// Do sends a request and reads the whole response. An error is always an [*Error];
// the response then has only its duration.
func (c *Client) Do(ctx context.Context, r Request) (Response, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	response, err := c.do(ctx, r)
	response.Duration = time.Since(start)
	return response, err
}

// Probe checks whether a server responds to HTTP requests at a URL. It sends a HEAD
// request without headers, body or query, which has no effect and contains no
// secret. It returns what [Client.Do] returns. A response with any status means that
// the server is reachable.
func (c *Client) Probe(ctx context.Context, rawURL string, allowedHosts []string) (Response, error) {
	withoutQuery, _, _ := strings.Cut(rawURL, "?")
	return c.Do(ctx, Request{Method: http.MethodHead, URL: withoutQuery, AllowedHosts: allowedHosts})
}

func (c *Client) do(ctx context.Context, r Request) (Response, error) {
	const maxHeader = 16 << 10
	to, err := parse(r.URL, r.AllowedHosts)
	if err != nil {
		return Response{}, err
	}
	conn, err := c.connect(ctx, to)
	if err != nil {
		return Response{}, err
	}
	defer conn.Close()
	// The transport has this connection only: it cannot look up a name, dial or
	// reuse a connection. Without an http.Client, redirects are not followed.
	transport := &http.Transport{
		DialTLSContext:         func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	header := http.Header{}
	maps.Copy(header, r.Header)
	request := &http.Request{
		Method: r.Method, URL: to.url, Header: header,
		Body: io.NopCloser(bytes.NewReader(r.Body)), ContentLength: int64(len(r.Body)),
	}
	if len(r.Body) == 0 {
		request.Body = http.NoBody // with any other body, a length of 0 means unknown
	}
	response, err := transport.RoundTrip(request.WithContext(ctx))
	if err != nil {
		return Response{}, wrapError(ctx, InvalidResponse, to.host, withoutResponse(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, c.options.MaxBody+1))
	if err != nil {
		return Response{}, wrapError(ctx, InvalidResponse, to.host, withoutResponse(err))
	}
	if int64(len(body)) > c.options.MaxBody {
		return Response{}, &Error{Kind: BodyTooLarge, Host: to.host}
	}
	return Response{Status: response.StatusCode, Header: response.Header, Body: body}, nil
}

// connect opens the connection of a request: lookup, TCP, TLS.
func (c *Client) connect(ctx context.Context, to target) (net.Conn, error) {
	addrs, err := c.resolve(ctx, to.host)
	if err != nil {
		return nil, err
	}
	plain, err := c.dial(ctx, addrs, to.port)
	if err != nil {
		return nil, wrapError(ctx, NotConnected, to.host, err)
	}
	conn := tls.Client(plain, &tls.Config{
		ServerName: to.host,
		RootCAs:    c.options.RootCAs,
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		plain.Close()
		return nil, wrapError(ctx, TLSFailed, to.host, err)
	}
	return conn, nil
}

// resolve makes the only lookup of a request. It fails if any address is not public,
// even if others are: a legitimate name has public addresses only.
func (c *Client) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	const maxAddresses = 8 // bounds the connection attempts of a request
	found, err := c.options.Resolver.LookupNetIP(ctx, "ip", host+".")
	if err == nil && len(found) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return nil, wrapError(ctx, NotResolved, host, err)
	}
	addrs := make([]netip.Addr, len(found))
	for i, addr := range found {
		// net.Resolver returns the IPv4 addresses of the hosts file in IPv6-mapped
		// form. The kernel connects to the IPv4 address, so check that one.
		addrs[i] = addr.Unmap()
		if err := checkPublic(addrs[i]); err != nil {
			return nil, &Error{Kind: AddressNotPublic, Host: host, Cause: err}
		}
	}
	return addrs[:min(len(addrs), maxAddresses)], nil
}

// dial tries one address after the other. Each gets an equal share of the remaining
// time, so that one that does not respond leaves time for the others.
func (c *Client) dial(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	var errs error
	for i, addr := range addrs {
		share := time.Until(deadline) / time.Duration(len(addrs)-i)
		attempt, cancel := context.WithTimeout(ctx, share)
		conn, err := c.options.Dial(attempt, "tcp", netip.AddrPortFrom(addr, port).String())
		cancel()
		if err == nil {
			return conn, nil
		}
		errs = errors.Join(errs, err)
	}
	return nil, errs
}

// control fails if the address that a socket is about to connect to is not public.
// It repeats the check of resolve, as defense in depth.
func control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return checkPublic(to.Addr())
}
