package server_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// until calls at most n times, until the response has the error code, and returns the
// number of calls before. A window starts with the minute, so a test may see two.
func until(t *testing.T, n int, want code.Code, call func() servertest.RawResponse) int {
	t.Helper()
	for i := range n {
		raw := call()
		if raw.StatusCode() == code.Table[want].Status {
			servertest.Expect(t, raw, 0, want)
			if after, err := strconv.Atoi(raw.Header.Get("Retry-After")); err != nil || after < 1 || after > 60 {
				t.Errorf("Retry-After is %q", raw.Header.Get("Retry-After"))
			}
			return i
		}
	}
	t.Fatalf("%d calls did not return %s", n, want)
	return 0
}

func TestRateLimitPerAddress(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "API_V1_RATE_LIMIT_PER_MIN=5")
	allowed := until(t, 20, code.RateLimited, func() servertest.RawResponse { return a.Do("GET", "/v1/zones", "", bearer(servertest.Bootstrap)...) })
	if allowed < 5 {
		t.Errorf("%d were allowed, want 5", allowed)
	}
	servertest.Expect(t, a.Do("GET", "/health", ""), http.StatusOK, "")
}

func TestGetReadinessRateLimit(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "READY_RATE_LIMIT_PER_MIN=3")
	until(t, 20, code.RateLimited, func() servertest.RawResponse { return a.Do("GET", "/ready", "") })
}

func TestRateLimitOfFailedAuthentication(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "ADMIN_AUTH_FAIL_LIMIT_PER_MIN=3")
	until(t, 20, code.RateLimited, func() servertest.RawResponse { return a.Do("GET", "/v1/zones", "", bearer("wrong")...) })
	servertest.Expect(t, a.Do("GET", "/v1/zones", "", bearer(servertest.Bootstrap)...), http.StatusOK, "")
}

func TestRateLimitWithoutRedis(t *testing.T) {
	t.Parallel()
	for _, redisURL := range []string{"redis://127.0.0.1:1/0", strings.Replace(storetest.RedisURL(t), "unix://", "unix://stranger:wrong@", 1)} {
		a := servertest.NewReplica(t, storetest.New(t), redisURL, "ADMIN_AUTH_FAIL_LIMIT_PER_MIN=20")
		start := time.Now()
		for time.Since(start) < 600*time.Millisecond { // the limiter tries Redis several times
			a.Do("GET", "/v1/zones", "", bearer("wrong")...)
			time.Sleep(50 * time.Millisecond)
		}
		until(t, 60, code.RateLimited, func() servertest.RawResponse { return a.Do("GET", "/v1/zones", "", bearer("wrong")...) })
	}
}

func TestRateLimitAcrossReplicas(t *testing.T) {
	t.Parallel()
	db, redisURL := storetest.New(t), storetest.RedisURL(t)
	settings := []string{"READY_RATE_LIMIT_PER_MIN=20"}
	one, two := servertest.NewReplica(t, db, redisURL, settings...), servertest.NewReplica(t, db, redisURL, settings...)
	until(t, 60, code.RateLimited, func() servertest.RawResponse { return one.Do("GET", "/ready", "") })
	// The other replica denies its first request.
	eventually(t, "the other replica denies too", func() bool {
		return two.Do("GET", "/ready", "").StatusCode() == http.StatusTooManyRequests
	})
}
