// Package egress is the only HTTP client that leaves the house. It calls URLs
// that a tenant typed in, so it trusts nothing about them: a URL is https and
// names an allow-listed host; the name is resolved once; every address of the
// answer must be public; the connection goes to those addresses and to no
// other; time and size are bounded. A redirect is an answer like any other, and
// proxies, cookies and compression do not exist here.
//
// Nothing switches these rules off. A test brings a [Resolver] that answers with
// a public address and a Dial that leads to its own server instead.
//
// The package knows neither tenants nor OAuth and logs nothing. What it refuses
// or fails to do, it says with an [Error].
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

// Options are what a [Client] is made of; the zero value is fit for production.
type Options struct {
	Timeout  time.Duration  // for a whole request, from the look-up to the last byte of the answer; 0 is 10 s
	MaxBody  int64          // bytes of an answer's body; 0 is 64 KiB
	Resolver Resolver       // nil is the system's
	RootCAs  *x509.CertPool // whose certificates are believed; nil is the system's

	// Dial connects to an address that has passed every rule, written as IP and
	// port. Nil is the system's way, which looks at the address once more.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// A Resolver finds the addresses of a name; [net.Resolver] is one. The name ends
// with a dot, so that no search domain of this machine completes it.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error)
}

// A Request is one call.
type Request struct {
	Method       string
	URL          string
	AllowedHosts []string // DNS names, one of which the URL's host must be; none allows nothing
	Header       http.Header
	Body         []byte
}

// A Response is what came back, whatever its status.
type Response struct {
	Status   int
	Header   http.Header
	Body     []byte
	Duration time.Duration // until the last byte, or until the error
}

// A Client calls other people's servers. It keeps no connection, cookie or
// address from one call to the next, and many may use it at once.
type Client struct{ options Options }

// New makes a client.
func New(o Options) *Client {
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.MaxBody = cmp.Or(o.MaxBody, 64<<10)
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Control: control}).DialContext
	}
	return &Client{o}
}

// Do sends a request and reads the whole answer. Its error is always an
// [*Error]; the response then has a duration and nothing else.
func (c *Client) Do(ctx context.Context, r Request) (Response, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	response, err := c.do(ctx, r)
	response.Duration = time.Since(start)
	return response, err
}

// Probe finds out whether a server answers HTTP at a URL, and sends nothing that
// could be a secret or have an effect: HEAD, without header, body or query. It
// returns what [Client.Do] returns; any status means that the server was reached.
func (c *Client) Probe(ctx context.Context, rawURL string, allowedHosts []string) (Response, error) {
	bare, _, _ := strings.Cut(rawURL, "?")
	return c.Do(ctx, Request{Method: http.MethodHead, URL: bare, AllowedHosts: allowedHosts})
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
	// A transport of its own, for this one connection: it can neither look up,
	// dial nor reuse anything. Without an http.Client around it, nothing follows
	// a redirect.
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
		request.Body = http.NoBody // a length of 0 with any other body means unknown
	}
	answer, err := transport.RoundTrip(request.WithContext(ctx))
	if err != nil {
		return Response{}, wrapError(ctx, NoAnswer, to.host, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, c.options.MaxBody+1))
	if err != nil {
		return Response{}, wrapError(ctx, NoAnswer, to.host, err)
	}
	if int64(len(body)) > c.options.MaxBody {
		return Response{}, &Error{Kind: BodyTooLarge, Host: to.host}
	}
	return Response{Status: answer.StatusCode, Header: answer.Header, Body: body}, nil
}

// connect opens the one connection of a request.
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

// resolve is the only look-up of a request. One address that is not public
// spoils the answer: an honest name has none.
func (c *Client) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	const maxAddresses = 8 // addresses to try: a name must not make us knock at a hundred doors
	found, err := c.options.Resolver.LookupNetIP(ctx, "ip", host+".")
	if err == nil && len(found) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return nil, wrapError(ctx, NotResolved, host, err)
	}
	addrs := make([]netip.Addr, len(found))
	for i, addr := range found {
		// net.Resolver writes an IPv4 address of the hosts file in its mapped
		// form. The kernel connects to the same place, so judge that.
		addrs[i] = addr.Unmap()
		if err := checkPublic(addrs[i]); err != nil {
			return nil, &Error{Kind: AddressNotPublic, Host: host, Cause: err}
		}
	}
	return addrs[:min(len(addrs), maxAddresses)], nil
}

// dial tries one address after the other. Each gets an equal share of the time
// that is left, so that a silent one does not use up the others' time.
func (c *Client) dial(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	var failed error
	for i, addr := range addrs {
		share := time.Until(deadline) / time.Duration(len(addrs)-i)
		attempt, cancel := context.WithTimeout(ctx, share)
		conn, err := c.options.Dial(attempt, "tcp", netip.AddrPortFrom(addr, port).String())
		cancel()
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// control looks at the address that a socket is about to connect to: should the
// code above ever be wrong, this still holds.
func control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return checkPublic(to.Addr())
}
