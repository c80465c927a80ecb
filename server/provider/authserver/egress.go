package authserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"time"

	"caracal.run/management/server/egress"
)

// placeholder is the public address that the host of the server resolves to. No
// connection to it is made.
var placeholder = netip.MustParseAddr("93.184.215.14")

// Egress returns options of a client that also reaches the server: its host resolves to
// a public address, as the rules of package egress require, and connections to that
// address go to the server. All other requests are sent as ever.
func (s *Server) Egress() egress.Options {
	return egress.Options{Resolver: s, Dial: s.dial, RootCAs: s.cert.roots}
}

// LookupNetIP implements [egress.Resolver].
func (s *Server) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	if name == s.options.Host+"." {
		return []netip.Addr{placeholder}, nil
	}
	return net.DefaultResolver.LookupNetIP(ctx, network, name)
}

func (s *Server) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if to, err := netip.ParseAddrPort(address); err == nil && to.Addr() == placeholder {
		address = s.local
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// A certificate is a server's certificate and the authorities to trust: those of the
// system, and the one that signed the certificate.
type certificate struct {
	leaf  tls.Certificate
	roots *x509.CertPool
}

// newCertificate returns a certificate for a host, of a new authority whose key is
// discarded.
func newCertificate(host string) (certificate, error) {
	const lifetime = 365 * 24 * time.Hour // of a demo that is left running
	now := time.Now()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Caracal demo authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	serverKey, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err := errors.Join(err, err2); err != nil {
		return certificate{}, err
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return certificate{}, err
	}
	if authority, err = x509.ParseCertificate(authorityDER); err != nil {
		return certificate{}, err
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, authority, serverKey.Public(), authorityKey)
	if err != nil {
		return certificate{}, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a machine without certificates
	}
	roots.AddCert(authority)
	return certificate{tls.Certificate{Certificate: [][]byte{serverDER}, PrivateKey: serverKey}, roots}, nil
}
