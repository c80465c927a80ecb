package storetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A RedisServer is a Redis of one test, which can configure it as it needs.
type RedisServer struct {
	Addr   string        // of its port
	Admin  *redis.Client // a user of its own, which may do everything
	socket string
}

const adminUser = "admin"

// StartRedis starts a Redis that listens on a port and on a Unix socket, with
// additional arguments for redis-server. It ends with the test.
func StartRedis(tb testing.TB, args ...string) *RedisServer {
	tb.Helper()
	r := &RedisServer{Addr: FreeAddr(tb), socket: filepath.Join(tb.TempDir(), "s")}
	_, port, _ := net.SplitHostPort(r.Addr)
	runRedis(tb, append([]string{"--port", port, "--bind", "127.0.0.1", "--unixsocket", r.socket,
		"--user", adminUser, "on", ">" + adminUser, "~*", "&*", "+@all", "--save", "", "--appendonly", "no", "--dir", tb.TempDir()}, args...)...)
	r.Admin = redis.NewClient(&redis.Options{Network: "unix", Addr: r.socket, Username: adminUser, Password: adminUser, MaxRetries: -1})
	tb.Cleanup(func() { _ = r.Admin.Close() })
	waitForRedis(tb, r.Admin)
	return r
}

// StartTLSRedis starts a Redis that has also a port with TLS. It returns the address of
// that port, and the file with the certificate, which is for localhost and which no
// authority has issued.
func StartTLSRedis(tb testing.TB, args ...string) (r *RedisServer, addr, certFile string) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: certificate}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	_, port, _ := net.SplitHostPort(FreeAddr(tb))
	r = StartRedis(tb, append([]string{"--tls-port", port, "--tls-cert-file", certFile, "--tls-key-file", keyFile,
		"--tls-ca-cert-file", certFile, "--tls-auth-clients", "no"}, args...)...)
	return r, "localhost:" + port, certFile
}

// StartSentinel starts a Redis Sentinel with the lines of its configuration file, and
// returns its address.
func StartSentinel(tb testing.TB, configFile string) string {
	tb.Helper()
	addr := FreeAddr(tb)
	_, port, _ := net.SplitHostPort(addr)
	runRedis(tb, configFile, "--sentinel", "--port", port, "--bind", "127.0.0.1")
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer client.Close()
	waitForRedis(tb, client)
	return addr
}

func runRedis(tb testing.TB, args ...string) {
	tb.Helper()
	cmd := exec.Command("redis-server", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func waitForRedis(tb testing.TB, client *redis.Client) {
	tb.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		err := client.Ping(context.Background()).Err()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("Redis does not start: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// FreeAddr returns the address of a port that no process listens on.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
