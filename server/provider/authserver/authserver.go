// Package authserver is a small OAuth 2.0 authorization server for tests and for the
// demo. It serves HTTPS on a loopback address, with a certificate of an authority that
// exists only in its process, and verifies what a real server does: the redirect URI,
// PKCE, client authentication, and that a code is used once.
//
// Nothing in a configuration makes the service trust it. A program that starts it must
// pass [Server.Egress] to the service, which only tests and the demo do.
package authserver

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Options configure a [Server].
type Options struct {
	Host      string             // a DNS name; "": auth.example.com
	Address   string             // to listen on; "": any port of 127.0.0.1
	Clients   []Client           // the clients that are registered at the start
	Responses map[string]Respond // of the token endpoints at /token/<name>
	Documents map[string]string  // that replace metadata, by path; "" removes one. URL stands for the URL of the server
}

// A Client is a registered client of the server, and what it has to send.
type Client struct {
	ID          string
	Secret      string
	AuthMethod  string           // client_secret_basic, client_secret_post, private_key_jwt or none
	PublicKey   crypto.PublicKey // of private_key_jwt
	KeyID       string           // of private_key_jwt
	RedirectURI string
	SendIssuer  bool   // whether authorization responses contain iss (RFC 9207)
	Resource    string // the parameter resource of both requests (RFC 8707)

	// What some services have instead of the standard.
	AuthorizationNames map[string]string // own names of authorization parameters
	TokenNames         map[string]string // own names of token parameters
	Format             string            // of token requests: form, json or query; "" is form
	GrantType          string            // "" is authorization_code
	Headers            map[string]string // that a token request must contain
}

// A Server is a running authorization server.
type Server struct {
	URL     string // the issuer
	options Options
	http    *http.Server
	local   string // the address that it listens on
	cert    certificate

	mu      sync.Mutex
	clients []Client
	codes   map[string]*grant
	used    map[string]bool // the jti of client assertions
}

// A grant is a user's consent, for which a code was issued.
type grant struct {
	client      Client
	redirectURI string
	challenge   string
	scope       string
	resource    string
	expires     time.Time
}

// codeLifetime is the lifetime of a code (RFC 6749, section 4.1.2: at most 10 minutes).
const codeLifetime = time.Minute

// Start starts a server.
func Start(o Options) (*Server, error) {
	o.Host = cmp.Or(o.Host, "auth.example.com")
	cert, err := newCertificate(o.Host)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", cmp.Or(o.Address, "127.0.0.1:0"))
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &Server{
		URL: "https://" + net.JoinHostPort(o.Host, port), options: o, local: listener.Addr().String(), cert: cert,
		clients: slices.Clone(o.Clients), codes: map[string]*grant{}, used: map[string]bool{},
	}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /authorize", s.showConsent)
	routes.HandleFunc("POST /authorize", s.receiveConsent)
	routes.HandleFunc("/token", s.token)
	routes.HandleFunc("/token/{response}", s.token)
	routes.HandleFunc("GET /.well-known/", s.metadata)
	s.http = &http.Server{
		Handler:           routes,
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert.leaf}, MinVersion: tls.VersionTLS12},
		ErrorLog:          log.New(io.Discard, "", 0), // of handshakes that a test makes fail
	}
	go func() { _ = s.http.ServeTLS(listener, "", "") }() // returns after Close
	return s, nil
}

// Close stops the server and closes its connections.
func (s *Server) Close() error { return s.http.Close() }

// AuthorizationEndpoint returns the URL of the authorization endpoint.
func (s *Server) AuthorizationEndpoint() string { return s.URL + "/authorize" }

// TokenEndpoint returns the URL of the token endpoint that sends the named response;
// "" is a valid one.
func (s *Server) TokenEndpoint(response string) string {
	if response == "" {
		return s.URL + "/token"
	}
	return s.URL + "/token/" + url.PathEscape(response)
}

// Register adds a client.
func (s *Server) Register(c Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = append(s.clients, c)
}

// client returns the registered client with an id, which get returns for each client by
// the name that it has there.
func (s *Server) client(get func(Client) string) (Client, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		if get(c) == c.ID {
			return c, true
		}
	}
	return Client{}, false
}

// useOnce reports whether a text was not used before.
func (s *Server) useOnce(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := s.used[text]
	s.used[text] = true
	return !used
}

// issue returns a code for a grant.
func (s *Server) issue(g grant) string {
	code := rand.Text()
	g.expires = time.Now().Add(codeLifetime)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = &g
	return code
}

// redeem returns the grant of a code, which is used up even if the rest of the request
// turns out to be invalid.
func (s *Server) redeem(code string) (grant, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.codes[code]
	delete(s.codes, code)
	if !ok || time.Now().After(g.expires) {
		return grant{}, false
	}
	return *g, true
}
