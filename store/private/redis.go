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

// RedisDatabases is how many databases the Redis has: enough for a test to have
// one to itself.
const RedisDatabases = 4096

// newRedis is the server that is to run on f. It keeps what it is told in a
// persistent folder, and never evicts.
func newRedis(f *folder, program string) (*Process, error) {
	data, keep := f.path("redis"), "yes"
	if f.ephemeral {
		keep = "no"
	}
	if _, err := os.Stat(data); err != nil {
		if err := f.mkdirOwned(data); err != nil {
			return nil, err
		}
	}
	return &Process{
		name: "Redis", folder: f, dir: data, log: f.path("redis.log"), quit: syscall.SIGTERM,
		argv: []string{program, "--port", "0", "--unixsocket", redisSocket(f), "--dir", data,
			"--save", "", "--appendonly", keep, "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
			"--databases", strconv.Itoa(RedisDatabases)},
		ping: func(ctx context.Context) error { return pingRedis(ctx, redisSocket(f)) },
	}, nil
}

func redisSocket(f *folder) string { return filepath.Join(f.sockets, "redis.sock") }

// pingRedis speaks the protocol itself, as a client would retry in its own time.
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
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && answer != "+PONG\r\n" {
		return fmt.Errorf("Redis answers %q to PING", answer)
	}
	return err
}
