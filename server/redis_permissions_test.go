package server_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store"
	"caracal.run/management/store/ingest"
	"caracal.run/management/store/storetest"
)

const redisPassword = "canary-password"

// limited are settings with which every limiter has a limit, and so uses Redis.
var limited = []string{"API_V1_RATE_LIMIT_PER_MIN=100000", "READY_RATE_LIMIT_PER_MIN=100000", "ADMIN_AUTH_FAIL_LIMIT_PER_MIN=100000",
	"CONTROL_INVOKE_IP_RATE_LIMIT_PER_MIN=100000", "CONTROL_RATE_CAPACITY=100000"}

// aclRules returns the rules of the guide's example of a Redis user.
func aclRules(t *testing.T) []string {
	t.Helper()
	guide, err := os.ReadFile("docs/guides/production.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^ACL SETUSER caracal (.*)$`).FindSubmatch(guide)
	if line == nil {
		t.Fatal("the guide has no ACL SETUSER line")
	}
	return strings.Fields(strings.Replace(string(line[1]), ">password", ">"+redisPassword, 1))
}

// auditKey returns the key with which audit events are signed.
func auditKey(t *testing.T) []byte {
	t.Helper()
	key, err := hex.DecodeString(servertest.AuditKey)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// setUser creates a Redis user and returns the URL with which it connects.
func setUser(t *testing.T, r *storetest.RedisServer, name string, rules []string) string {
	t.Helper()
	if err := r.Admin.ACLSetUser(t.Context(), name, rules...).Err(); err != nil {
		t.Fatal(err)
	}
	return "redis://" + name + ":" + redisPassword + "@" + r.Addr
}

// readiness returns the response of /ready, which must be 200.
func readiness(t *testing.T, a *servertest.API) client.Readiness {
	t.Helper()
	raw := a.Do("GET", "/ready", "")
	servertest.Expect(t, raw, http.StatusOK, "")
	return decode[client.Readiness](t, raw)
}

// A redisLine is a line of the log about the state of Redis.
type redisLine struct {
	Level, Msg, Reason, Command, Error string
	Missing                            []string
}

// redisLines returns the lines of the log about the state of Redis.
func redisLines(a *servertest.API) (lines []redisLine) {
	for text := range strings.Lines(a.Log.String()) {
		var line redisLine
		if json.Unmarshal([]byte(text), &line) == nil && slices.Contains([]string{"redis available", "redis degraded", "redis unreachable"}, line.Msg) {
			lines = append(lines, line)
		}
	}
	return lines
}

// firstRedisLine waits for the first line of the log about the state of Redis.
func firstRedisLine(t *testing.T, a *servertest.API) redisLine {
	t.Helper()
	eventually(t, "the state of Redis is logged", func() bool { return len(redisLines(a)) > 0 })
	return redisLines(a)[0]
}

// The user of the guide is permitted all that the service does, and Redis denies none
// of its commands.
func TestRedisUserOfGuideSuffices(t *testing.T) {
	t.Parallel()
	r := storetest.StartRedis(t)
	url := setUser(t, r, "caracal", aclRules(t))
	db := storetest.New(t)
	one, two := servertest.NewReplica(t, db, url, limited...), servertest.NewReplica(t, db, url, limited...)
	zone := one.Zone(func(z *client.NewZone) { z.DCREnabled = new(true) })
	for _, stream := range store.Streams() {
		db.Event(zone.ID, stream)
		eventually(t, "an event is in "+stream, func() bool { return r.Admin.XLen(t.Context(), stream).Val() == 1 })
	}
	if err := ingest.Publish(t.Context(), r.Admin, auditKey(t), ingest.Event{ID: "e", ZoneID: zone.ID, OccurredAt: time.Now()}, ingest.Event{ZoneID: zone.ID}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an audit event is stored and another one is a dead letter", func() bool {
		return storetest.Value[int](db, "SELECT count(*) FROM audit_events") == 1 && r.Admin.XLen(t.Context(), ingest.DeadLetterStream).Val() == 1
	})
	registration := `{"name":"Agent"}`
	servertest.Expect(t, one.Do("POST", "/v1/zones/"+zone.ID+"/applications/dcr", registration, append(bearer(servertest.Bootstrap), "Content-Type", "application/json")...), http.StatusCreated, "")
	servertest.Expect(t, two.Do("GET", "/v1/zones", "", bearer("wrong")...), 0, code.InvalidAdminToken)
	granted := grantZoneOf(t, one, zone.ID)
	denied := grantZone{API: two, zone: zone.ID}.callback("error=access_denied&state=" + granted.start(t).State)
	servertest.Expect(t, denied, 0, code.ProviderOAuthDenied)
	for _, prefix := range []string{"api:v1_rl:", "api:ready_rl:", "api:admin_auth_fail:", "rl:dcr:"} {
		eventually(t, "requests are counted at "+prefix, func() bool {
			if ready := readiness(t, one); ready.Redis != client.ReadinessRedisReachable || ready.RedisError != nil || ready.RedisMissing != nil {
				t.Fatalf("/ready returned %+v", ready)
			}
			if prefix == "rl:dcr:" { // its keys expire after a second
				one.Do("POST", "/v1/zones/"+zone.ID+"/applications/dcr", registration, append(bearer(servertest.Bootstrap), "Content-Type", "application/json")...)
			}
			keys := r.Admin.Keys(t.Context(), prefix+"*").Val()
			return len(keys) > 0 && r.Admin.PTTL(t.Context(), keys[0]).Val() > 0
		})
	}
	if rejected, err := r.Admin.ACLLog(t.Context(), 10).Result(); err != nil || len(rejected) > 0 {
		t.Errorf("Redis denied %+v, error %v", rejected, err)
	}
	for _, a := range []*servertest.API{one, two} {
		if lines := redisLines(a); len(lines) != 1 || lines[0].Msg != "redis available" || lines[0].Level != "INFO" {
			t.Errorf("the log has %+v, want one line: redis available", lines)
		}
	}
}

// Without one of the guide's rules, /ready and the log name what does not work.
func TestRedisNamesMissingPermission(t *testing.T) {
	t.Parallel()
	r := storetest.StartRedis(t)
	rules := aclRules(t)
	type row struct {
		rule, command string
		missing       client.ReadinessRedisMissing
	}
	tests := []row{
		{"+xadd", "XADD caracal.sessions.revoke", client.ReadinessRedisMissingEvents},
		{"+incrby", "INCRBY api:admin_auth_fail:*", client.ReadinessRedisMissingRateLimits},
		{"+pexpire", "PEXPIRE api:admin_auth_fail:*", client.ReadinessRedisMissingRateLimits},
	}
	for _, stream := range store.Streams() {
		tests = append(tests, row{"%W~" + stream, "XADD " + stream, client.ReadinessRedisMissingEvents})
	}
	for _, command := range []string{"set", "getdel", "pexpiretime"} {
		tests = append(tests, row{"+" + command, strings.ToUpper(command) + " api:provider_oauth_state:*", client.ReadinessRedisMissingOAuthStates})
	}
	tests = append(tests, row{"~api:provider_oauth_state:*", "SET api:provider_oauth_state:*", client.ReadinessRedisMissingOAuthStates})
	for _, command := range []string{"xreadgroup", "xack", "xautoclaim", "xpending", "xinfo|groups", "xinfo|consumers", "xgroup|create", "xgroup|setid", "xgroup|delconsumer", "xtrim", "xlen", "xrange"} {
		tests = append(tests, row{"+" + command, strings.ToUpper(strings.Replace(command, "|", " ", 1)), client.ReadinessRedisMissingAuditEvents})
	}
	tests = append(tests, row{"~caracal.audit.events", "XREADGROUP", client.ReadinessRedisMissingAuditEvents}, row{"~caracal.audit.events.dlq", "XADD caracal.audit.events.dlq", client.ReadinessRedisMissingAuditEvents})
	for _, prefix := range []string{"caracal:control:jti:*", "caracal:control:assertion:*"} {
		tests = append(tests, row{"~" + prefix, "SET " + prefix, client.ReadinessRedisMissingControlTokens})
	}
	for _, prefix := range []string{"api:v1_rl:*", "api:ready_rl:*", "api:admin_auth_fail:*", "rl:dcr:*", "rl:dcr_anonymous:*", "api:client_auth_fail:*", "api:token_exchange:*", "api:control_invoke_ip:*", "api:control_invoke_key:*"} {
		tests = append(tests, row{"~" + prefix, "INCRBY " + prefix, client.ReadinessRedisMissingRateLimits})
	}
	for i, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			user := fmt.Sprint("user", i)
			url := setUser(t, r, user, slices.DeleteFunc(slices.Clone(rules), func(rule string) bool { return rule == tt.rule }))
			a := servertest.NewReplica(t, storetest.New(t), url, limited...)
			ready := readiness(t, a)
			missing := []client.ReadinessRedisMissing{tt.missing}
			switch tt.rule {
			case "+set":
				missing = append(missing, client.ReadinessRedisMissingControlTokens)
			case "+xadd": // for dead letters, too
				missing = append(missing, client.ReadinessRedisMissingAuditEvents)
			}
			if ready.Redis != client.ReadinessRedisDegraded || ready.RedisError == nil || *ready.RedisError != client.ReadinessRedisErrorPermissionDenied || !slices.Equal(ready.RedisMissing, missing) {
				t.Errorf("/ready returned %+v, want degraded, permission_denied and %s", ready, tt.missing)
			}
			line := firstRedisLine(t, a)
			if line.Level != "WARN" || line.Msg != "redis degraded" || line.Reason != "permission_denied" || line.Command != tt.command || len(line.Missing) != len(missing) || line.Missing[0] != string(tt.missing) || !strings.HasPrefix(line.Error, "NOPERM ") {
				t.Errorf("the log has %+v", line)
			}
		})
	}
	for _, rule := range rules {
		grants, optional := strings.ContainsAny(rule[:1], "+~%"), rule == "+client|setname"
		if grants && !optional && !slices.ContainsFunc(tests, func(tt row) bool { return tt.rule == rule }) {
			t.Errorf("the guide has the rule %s, which the service does not need", rule)
		}
	}
}

// Redis rejects names of connections with blanks, which does not concern what they are for.
func TestRedisAcceptsAnyWorkerID(t *testing.T) {
	t.Parallel()
	r := storetest.StartRedis(t)
	a := servertest.NewReplica(t, storetest.New(t), "redis://"+r.Addr, "WORKER_ID=a worker")
	if ready := readiness(t, a); ready.Redis != client.ReadinessRedisReachable {
		t.Errorf("/ready returned %+v", ready)
	}
	if list := r.Admin.ClientList(t.Context()).Val(); !strings.Contains(list, " name=a_worker ") {
		t.Errorf("the connections are %s", list)
	}
}

// A counter that Redis can increase but not expire would stay for ever.
func TestRateLimitWithoutPexpireLeavesNoKeyInRedis(t *testing.T) {
	t.Parallel()
	r := storetest.StartRedis(t)
	url := setUser(t, r, "caracal", slices.DeleteFunc(aclRules(t), func(rule string) bool { return rule == "+pexpire" }))
	a := servertest.NewReplica(t, storetest.New(t), url, limited...)
	firstRedisLine(t, a)
	a.Zone()
	time.Sleep(600 * time.Millisecond) // the limiter syncs four times a second
	keys := slices.DeleteFunc(r.Admin.Keys(t.Context(), "*").Val(), func(key string) bool { return key == ingest.Stream })
	if len(keys) > 0 {
		t.Errorf("Redis has the keys %v", keys)
	}
}
