//go:build linux

package private

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// RedisDatabases is the number of databases of the Redis: enough for each test to
// use its own.
const RedisDatabases = 4096

// newRedis returns the process of the Redis in f, not started yet. It never
// evicts keys. In a persistent folder, it persists them.
func newRedis(f *folder, program string) (*Process, error) {
	data, persist := f.path("redis"), "yes"
	if f.ephemeral {
		persist = "no"
	}
	if _, err := os.Stat(data); err != nil {
		if err := f.mkdirOwned(data); err != nil {
			return nil, err
		}
	}
	return &Process{
		name: "Redis", folder: f, dir: data, log: f.path("redis.log"), quit: syscall.SIGTERM,
		argv: []string{program, "--port", "0", "--unixsocket", redisSocket(f), "--dir", data,
			"--save", "", "--appendonly", persist, "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
			"--databases", strconv.Itoa(RedisDatabases)},
		ping: func(ctx context.Context) error { return pingRedis(ctx, redisSocket(f)) },
	}, nil
}

func redisSocket(f *folder) string { return filepath.Join(f.sockets, "redis.sock") }

// pingRedis sends one PING. It uses the protocol directly, because a client
// library would retry at its own pace.
func pingRedis(ctx context.Context, socket string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprint(conn, "PING\r\n"); err != nil {
		return err
	}
	reply, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && reply != "+PONG\r\n" {
		return fmt.Errorf("Redis replied %q to PING", reply)
	}
	return err
}
