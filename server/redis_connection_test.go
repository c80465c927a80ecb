package server_test

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// A Redis that cannot be used is named with its reason, in /ready and once in the log,
// and never with the password. Requests succeed.
func TestRedisThatRefusesTheConnectionIsNamed(t *testing.T) {
	t.Parallel()
	plain := storetest.StartRedis(t, "--requirepass", "right")
	_, tlsAddr, _ := storetest.StartTLSRedis(t)
	everything := []client.ReadinessRedisMissing{client.ReadinessRedisMissingEvents, client.ReadinessRedisMissingRateLimits, client.ReadinessRedisMissingOAuthStates, client.ReadinessRedisMissingControlTokens, client.ReadinessRedisMissingAuditEvents}
	for _, tt := range []struct {
		name, url string
		reason    client.ReadinessRedisError
		text      string // in the error in the log
	}{
		{"wrong password", "redis://:" + redisPassword + "@" + plain.Addr, client.ReadinessRedisErrorAuthenticationFailed, "WRONGPASS"},
		{"unknown user", "redis://x:" + redisPassword + "@" + plain.Addr, client.ReadinessRedisErrorAuthenticationFailed, "WRONGPASS"},
		{"no password", "redis://" + plain.Addr, client.ReadinessRedisErrorAuthenticationFailed, "NOAUTH"},
		{"untrusted certificate", "rediss://:" + redisPassword + "@" + tlsAddr, client.ReadinessRedisErrorTLSFailed, "certificate"},
		{"certificate of another host", "rediss://:" + redisPassword + "@" + strings.Replace(tlsAddr, "localhost", "127.0.0.1", 1), client.ReadinessRedisErrorTLSFailed, "127.0.0.1"},
		{"TLS against plain", "rediss://:" + redisPassword + "@" + plain.Addr, client.ReadinessRedisErrorTLSFailed, "redis:// connects without TLS"},
		{"plain against TLS", "redis://:" + redisPassword + "@" + tlsAddr, client.ReadinessRedisErrorConnectionFailed, "must begin with rediss://"},
		{"no server", "redis://:" + redisPassword + "@" + storetest.FreeAddr(t), client.ReadinessRedisErrorConnectionFailed, "connection refused"},
		{"unknown host", "redis://:" + redisPassword + "@redis.invalid", client.ReadinessRedisErrorConnectionFailed, "redis.invalid"},
		{"server that does not reply", "redis://:" + redisPassword + "@" + silentServer(t), client.ReadinessRedisErrorTimeout, "no reply in time"},
		{"server that quotes its input", "redis://:" + redisPassword + "@" + echoServer(t, "Protocol error: '%s'"), client.ReadinessRedisErrorRejected, "Protocol error: '[redacted]'"},
		{"server that quotes a part of a long password", "redis://:" + redisPassword + strings.Repeat("x", 200) + "@" + echoServer(t, "unknown command 'auth', with args beginning with: '%.100s'"), client.ReadinessRedisErrorRejected, "unknown command 'auth'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := servertest.NewReplica(t, storetest.New(t), tt.url)
			ready := readiness(t, a)
			if ready.Redis == client.ReadinessRedisReachable || ready.RedisError == nil || *ready.RedisError != tt.reason || !slices.Equal(ready.RedisMissing, everything) {
				t.Errorf("/ready returned %s %v %v, want %s", ready.Redis, ready.RedisError, ready.RedisMissing, tt.reason)
			}
			line := firstRedisLine(t, a)
			if line.Level != "WARN" || line.Reason != string(tt.reason) || !strings.Contains(line.Error, tt.text) || len(line.Missing) != len(everything) {
				t.Errorf("the log has %+v", line)
			}
			a.Zone()
			a.DB.Event("zone", "caracal.policy.invalidate") // the publisher fails too
			time.Sleep(2500 * time.Millisecond)             // a second check
			if lines := redisLines(a); len(lines) != 1 {
				t.Errorf("the log has %d lines: %+v", len(lines), lines)
			}
			if n := strings.Count(a.Log.String(), "redis unavailable, events pending"); n > 1 {
				t.Errorf("the log says %d times that events are pending", n)
			}
			if strings.Contains(a.Log.String(), redisPassword) {
				t.Error("the log contains the password")
			}
		})
	}
}

// silentServer accepts connections and never replies.
func silentServer(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

// echoServer rejects every line that contains the password with an error that quotes
// the line.
func echoServer(t *testing.T, format string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if text := lines.Text(); strings.Contains(text, redisPassword) {
						fmt.Fprintf(conn, "-ERR "+format+"\r\n", text)
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// When Redis accepts the password again, the log says so, and the events that waited are
// published.
func TestRedisRecoveryIsLogged(t *testing.T) {
	t.Parallel()
	r := storetest.StartRedis(t, "--requirepass", "another")
	a := servertest.NewReplica(t, storetest.New(t), "redis://:"+redisPassword+"@"+r.Addr)
	if line := firstRedisLine(t, a); line.Msg != "redis unreachable" {
		t.Errorf("the log has %+v", line)
	}
	a.DB.Event("zone", "caracal.policy.invalidate")
	if err := r.Admin.ConfigSet(t.Context(), "requirepass", redisPassword).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event is published", func() bool {
		return len(storetest.Column[string](a.DB, "SELECT id FROM outbox WHERE dispatched_at IS NULL")) == 0
	})
	eventually(t, "the recovery is logged", func() bool { return len(redisLines(a)) == 2 })
	if line := redisLines(a)[1]; line.Msg != "redis available" || line.Level != "INFO" {
		t.Errorf("the log has %+v", line)
	}
	if ready := readiness(t, a); ready.Redis != client.ReadinessRedisReachable {
		t.Errorf("/ready returned %+v", ready)
	}
}

// A Redis that accepts the connection but no writes is degraded.
func TestRedisThatAcceptsNoWritesIsNamed(t *testing.T) {
	t.Parallel()
	master := storetest.StartRedis(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	for _, tt := range []struct {
		name   string
		args   []string
		reason client.ReadinessRedisError
	}{
		{"replica", []string{"--replicaof", host + " " + port}, client.ReadinessRedisErrorReadOnly},
		{"out of memory", []string{"--maxmemory", "1"}, client.ReadinessRedisErrorOutOfMemory},
		{"no replica to write to", []string{"--min-replicas-to-write", "1"}, client.ReadinessRedisErrorRejected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := storetest.StartRedis(t, tt.args...)
			a := servertest.NewReplica(t, storetest.New(t), "redis://"+r.Addr)
			if ready := readiness(t, a); ready.Redis != client.ReadinessRedisDegraded || ready.RedisError == nil || *ready.RedisError != tt.reason {
				t.Errorf("/ready returned %s %v, want degraded and %s", ready.Redis, ready.RedisError, tt.reason)
			}
			if line := firstRedisLine(t, a); line.Msg != "redis degraded" || line.Reason != string(tt.reason) {
				t.Errorf("the log has %+v", line)
			}
		})
	}
}
