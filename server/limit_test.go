package server_test

import (
	"net/http"
	"regexp"
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

// checkRateLimit checks the headers of a rate limit, and that at most most requests are left.
func checkRateLimit(t *testing.T, raw servertest.RawResponse, policy string, most int) {
	t.Helper()
	name, _, _ := strings.Cut(policy, ";")
	_, window, _ := strings.Cut(policy, ";w=")
	left := regexp.MustCompile("^" + name + `;r=(\d+);t=(\d+)$`).FindStringSubmatch(raw.Header.Get("RateLimit"))
	if got := raw.Header.Values("RateLimit-Policy"); len(got) != 1 || got[0] != policy || left == nil {
		t.Fatalf("%d: got %q and %q, want %q", raw.StatusCode(), got, raw.Header.Values("RateLimit"), policy)
	}
	seconds, _ := strconv.Atoi(window)
	r, _ := strconv.Atoi(left[1])
	if reset, _ := strconv.Atoi(left[2]); r > most || reset < 1 || reset > seconds {
		t.Errorf("%d: got %s", raw.StatusCode(), left[0])
	}
}

// Responses state the limit per token, and before authentication that per address.
func TestResponsesStateRateLimit(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "API_V1_RATE_LIMIT_PER_MIN=5", "TRUST_PROXY=1")
	from := func(address string, headers ...string) servertest.RawResponse {
		return a.Do("GET", "/v1/zones", "", append(headers, "X-Forwarded-For", address)...)
	}
	first := from("192.0.2.1", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, first, http.StatusOK, "")
	checkRateLimit(t, first, `"actor";q=5;w=60`, 4)
	failed := from("192.0.2.1", bearer("wrong")...)
	servertest.Expect(t, failed, 0, code.InvalidAdminToken)
	checkRateLimit(t, failed, `"address";q=5;w=60`, 4)
	n := 1
	byActor := func() servertest.RawResponse {
		n++
		return from("192.0.2."+strconv.Itoa(n), bearer(servertest.Bootstrap)...)
	}
	until(t, 20, code.RateLimited, byActor)
	if raw := byActor(); raw.StatusCode() == http.StatusTooManyRequests { // unless a window begins
		checkRateLimit(t, raw, `"actor";q=5;w=60`, 0)
	}
	byAddress := func() servertest.RawResponse { return from("192.0.2.100", bearer("wrong")...) }
	until(t, 20, code.RateLimited, byAddress)
	if raw := byAddress(); raw.StatusCode() == http.StatusTooManyRequests {
		checkRateLimit(t, raw, `"address";q=5;w=60`, 0)
	}
	health := a.Do("GET", "/health", "")
	shared := servertest.New(t, "API_V1_RATE_LIMIT_PER_MIN=1000")
	public := shared.Do("GET", metadataPath+openZone(shared), "")
	servertest.Expect(t, public, http.StatusOK, "")
	unlimited := servertest.New(t).Do("GET", "/v1/zones", "", bearer(servertest.Bootstrap)...)
	for _, raw := range []servertest.RawResponse{health, public, unlimited} {
		if raw.Header.Get("RateLimit") != "" || raw.Header.Get("RateLimit-Policy") != "" {
			t.Errorf("got %v", raw.Header)
		}
	}
}

// Of the limits per address and per token, responses state the one with less left.
func TestResponsesStateTighterRateLimit(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "API_V1_RATE_LIMIT_PER_MIN=1000")
	token := a.Token("", "read").Token
	var raw servertest.RawResponse
	for range 2 { // unless a window begins in between, more requests came from the address than with the token
		for range 3 {
			a.Do("GET", "/v1/zones", "", bearer(servertest.Bootstrap)...)
		}
		raw = a.Do("GET", "/v1/zones", "", bearer(token)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		if strings.HasPrefix(raw.Header.Get("RateLimit"), `"address"`) {
			break
		}
	}
	checkRateLimit(t, raw, `"address";q=1000;w=60`, 998)
}

// A response that another limit denied does not say that requests are left.
func TestResponseOfUnstatedLimitStatesNone(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "API_V1_RATE_LIMIT_PER_MIN=1000", "ADMIN_AUTH_FAIL_LIMIT_PER_MIN=3")
	var denied servertest.RawResponse
	until(t, 20, code.RateLimited, func() servertest.RawResponse {
		denied = a.Do("GET", "/v1/zones", "", bearer("wrong")...)
		return denied
	})
	if denied.Header.Get("RateLimit") != "" || denied.Header.Get("RateLimit-Policy") != "" {
		t.Errorf("got %v", denied.Header)
	}
}

func TestInvokeControlStatesRateLimitOfKey(t *testing.T) {
	t.Parallel()
	b := newControlBench(t, "CONTROL_RATE_CAPACITY=2", "CONTROL_RATE_WINDOW_SEC=3600", "API_V1_RATE_LIMIT_PER_MIN=1000")
	for range 2 {
		raw := b.invoke("app", "list", "{}")
		servertest.Expect(t, raw, http.StatusOK, "")
		checkRateLimit(t, raw, `"actor";q=2;w=3600`, 1)
	}
	if raw := b.invoke("app", "list", "{}"); raw.StatusCode() == http.StatusTooManyRequests { // unless a window begins
		checkRateLimit(t, raw, `"actor";q=2;w=3600`, 0)
		if _, reset, _ := strings.Cut(raw.Header.Get("RateLimit"), ";t="); raw.Header.Get("Retry-After") != reset {
			t.Errorf("Retry-After: %q, want %q", raw.Header.Get("Retry-After"), reset)
		}
	}
}
