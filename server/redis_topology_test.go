package server_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// waitForEvent adds an event for a stream, and waits until the service has published it.
func waitForEvent(t *testing.T, a *servertest.API, stream string) {
	t.Helper()
	event := a.DB.Event("zone", stream)
	eventually(t, "an event is published on "+stream, func() bool {
		return storetest.Value[bool](a.DB, "SELECT dispatched_at IS NOT NULL FROM outbox WHERE id = $1", event)
	})
}

// A cluster of three nodes, to which the service connects as a user with the guide's
// permissions. Its keys are on all of the nodes.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	rules := append(aclRules(t), "+cluster|slots", "+command")
	const slots = 16384
	var nodes []*storetest.RedisServer
	for range 3 {
		_, bus, _ := net.SplitHostPort(storetest.FreeAddr(t))
		nodes = append(nodes, storetest.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000"))
	}
	for i, node := range nodes {
		setUser(t, node, "caracal", rules)
		if err := node.Admin.ClusterAddSlotsRange(t.Context(), i*slots/3, (i+1)*slots/3-1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	host, port, _ := net.SplitHostPort(nodes[0].Addr)
	bus := nodes[0].Admin.ConfigGet(t.Context(), "cluster-port").Val()["cluster-port"]
	for _, node := range nodes[1:] {
		if err := node.Admin.Do(t.Context(), "CLUSTER", "MEET", host, port, bus).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range nodes {
		eventually(t, "the cluster works", func() bool {
			return strings.Contains(node.Admin.ClusterInfo(t.Context()).Val(), "cluster_state:ok") && len(node.Admin.ClusterShards(t.Context()).Val()) == 3
		})
	}
	db := storetest.New(t)
	user := "redis://caracal:" + redisPassword + "@"
	one := servertest.NewReplica(t, db, user+nodes[0].Addr+"?addr="+nodes[1].Addr+"&addr="+nodes[2].Addr, limited...)
	two := servertest.NewReplica(t, db, user+nodes[2].Addr+"?cluster=true", limited...)
	for _, a := range []*servertest.API{one, two} {
		if ready := readiness(t, a); ready.Redis != client.ReadinessRedisReachable {
			t.Errorf("/ready returned %+v", ready)
		}
	}
	for _, stream := range store.Streams() {
		waitForEvent(t, one, stream)
	}
	one.Zone()
	two.Zone()
	used := func(prefix string) (on int) {
		for _, node := range nodes {
			if len(node.Admin.Keys(t.Context(), prefix+"*").Val()) > 0 {
				on++
			}
		}
		return on
	}
	if on := used("caracal."); on < 2 {
		t.Errorf("the streams are on %d node", on)
	}
	eventually(t, "requests are counted", func() bool { return used("api:v1_rl:") > 0 })
	for _, node := range nodes {
		denied, err := node.Admin.ACLLog(t.Context(), 10).Result()
		if err != nil || len(denied) > 0 {
			t.Errorf("a node denied %+v, error %v", denied, err)
		}
	}
}

// A Redis with a replica and a Sentinel. When the Sentinel promotes the replica, the
// service uses it.
func TestRedisSentinel(t *testing.T) {
	t.Parallel()
	master := storetest.StartRedis(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := storetest.StartRedis(t, "--replicaof", host+" "+port)
	for _, r := range []*storetest.RedisServer{master, replica} {
		setUser(t, r, "caracal", aclRules(t))
	}
	eventually(t, "the replica is in sync", func() bool {
		return strings.Contains(replica.Admin.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	lines := fmt.Sprintf("sentinel monitor main %s %s 1\nsentinel down-after-milliseconds main 60000\nuser service on >%s allchannels -@all +sentinel +subscribe +ping\n", host, port, redisPassword)
	if err := os.WriteFile(config, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := storetest.StartSentinel(t, config)
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: addr})
	defer sentinel.Close()
	eventually(t, "the Sentinel knows the replica", func() bool { return len(sentinel.Replicas(t.Context(), "main").Val()) == 1 })

	a := servertest.NewReplica(t, storetest.New(t), "redis://service:"+redisPassword+"@"+addr+"?master_name=main&username=caracal&password="+redisPassword, limited...)
	if ready := readiness(t, a); ready.Redis != client.ReadinessRedisReachable {
		t.Errorf("/ready returned %+v", ready)
	}
	const stream = "caracal.sessions.revoke"
	waitForEvent(t, a, stream)
	if n := master.Admin.XLen(t.Context(), stream).Val(); n != 1 {
		t.Errorf("the stream of the master has %d entries, want 1", n)
	}
	eventually(t, "the replica is the master", func() bool {
		_ = sentinel.Failover(t.Context(), "main") // again: on a busy machine, it finds the replica too slow and gives up
		return slices.Contains(strings.Fields(replica.Admin.Info(t.Context(), "replication").Val()), "role:master")
	})
	waitForEvent(t, a, stream)
	eventually(t, "the service uses the new master", func() bool { return readiness(t, a).Redis == client.ReadinessRedisReachable })
	if n := replica.Admin.XLen(t.Context(), stream).Val(); n < 1 {
		t.Error("the stream of the new master has no entry")
	}
	for _, r := range []*storetest.RedisServer{master, replica} {
		if denied, err := r.Admin.ACLLog(t.Context(), 10).Result(); err != nil || len(denied) > 0 {
			t.Errorf("Redis denied %+v, error %v", denied, err)
		}
	}
}
