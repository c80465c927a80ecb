package client

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// firstWait is the minimum wait before the first retry. It doubles with each retry.
const firstWait = 100 * time.Millisecond

// repeats reports whether the client itself repeats calls like this one: retries are
// enabled, and each attempt of an invocation of the Control API can have its own token.
func (c *Client) repeats(call *call) bool {
	return c.maxRetries > 0 && (!call.control || c.controlToken != nil)
}

// repeatable reports whether a call can be sent again although the service may have
// processed it: it only reads, or the service recognizes it by its Idempotency-Key.
// A token of the Control API is for one invocation, so that another attempt needs
// another one.
func (c *Client) repeatable(call *call) bool {
	switch call.method {
	case http.MethodGet, http.MethodHead:
		return !call.changes
	}
	return call.header.Get(idempotencyKey) != "" && call.takesKey && (!call.control || c.controlToken != nil)
}

// retry reports whether to send a request again after an error of an attempt, and
// returns how long to wait before that.
func (c *Client) retry(ctx context.Context, repeatable bool, retries int, err error) (time.Duration, bool) {
	if retries >= c.maxRetries || ctx.Err() != nil || !retryable(repeatable, err) {
		return 0, false
	}
	wait := firstWait << min(retries, 6)
	wait += rand.N(wait)
	if e, ok := errors.AsType[*Error](err); ok && e.RetryAfter > 0 {
		if wait = e.RetryAfter; wait > c.maxWait {
			return 0, false
		}
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return 0, false // the deadline would pass before the next attempt
	}
	return wait, true
}

// retryable reports whether sending a request again is safe and can succeed. After
// 429, every request is safe to send again, because the service has not processed
// it. After 503 or a network error only a repeatable one is, because the service may
// have processed it.
func retryable(repeatable bool, err error) bool {
	e, isResponse := errors.AsType[*Error](err)
	if !isResponse {
		return repeatable && !permanent(err)
	}
	if e.Status < 300 { // can succeed if the response was interrupted
		return repeatable && e.cause != nil && !permanent(e.cause)
	}
	switch e.Status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusConflict: // an earlier attempt, whose response was lost, is still being processed
		return repeatable && e.Code == CodeIdempotencyKeyInUse
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return repeatable
	}
	return false
}

// permanent reports whether every further attempt would fail in the same way.
func permanent(err error) bool {
	_, isSize := errors.AsType[sizeError](err)
	_, isEncoding := errors.AsType[encodingError](err)
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, isPlain := errors.AsType[tls.RecordHeaderError](err)
	return isSize || isEncoding || isCertificate || isPlain || errors.Is(err, http.ErrSchemeMismatch) ||
		errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum)
}

// maxRetryAfter is the longest delay that retryAfter returns: some 34 years.
const maxRetryAfter = 1 << 30 * time.Second

// retryAfter returns the delay in Retry-After, in seconds or until a date (RFC
// 9110, section 10.2.3), or 0 if there is none. It compares the date with that of
// the response, since the clock of the client may differ.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	seconds, err := strconv.ParseUint(value, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(date.Sub(now), 0), maxRetryAfter)
}
