package middleware

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/problem"
	"caracal.run/management/store"
	"caracal.run/management/store/seal"
)

const idempotencyKeyHeader = "Idempotency-Key"

// parseIdempotencyKey returns the key in the lines of the header, or "" if there is none. It
// returns invalid_idempotency_key. A key in quotes, as
// draft-ietf-httpapi-idempotency-key-header has it, is taken as it is.
func parseIdempotencyKey(lines []string) (string, error) {
	const maxLength = 255
	if len(lines) == 0 {
		return "", nil
	}
	notVisible := func(r rune) bool { return r <= ' ' || r > '~' }
	if key := lines[0]; len(lines) == 1 && key != "" && len(key) <= maxLength && !strings.ContainsFunc(key, notVisible) {
		return key, nil
	}
	return "", code.InvalidIdempotencyKey
}

// Idempotency processes requests with an Idempotency-Key as [store.IdempotentRequest]
// describes: it sends the stored response of a request that was processed before, and
// otherwise sends the response of the operation after it was committed with the change.
//
// It comes after [Authorize], so that a stored response is only sent to a caller who may
// send the request now, and after [Validate], which reads the body. It calls beforeReplay
// before it sends a stored response, and returns its error, or idempotency_key_in_use or
// idempotency_key_reused.
func Idempotency(s *store.Store, beforeReplay func(context.Context, *RequestInfo) error) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			info := RequestInfoFrom(c.Request().Context())
			if info.key == "" {
				return next(c)
			}
			replayed, err := replay(c, s, info, beforeReplay)
			if replayed || err != nil {
				return err
			}
			err = process(c, info, next)
			if status := code.Table[problem.Code(err)].Status; err == nil || status < 400 || status > 499 {
				return err
			}
			// Another request with the key may have been committed since, and be why this one failed.
			replayed, replayErr := replay(c, s, info, beforeReplay)
			if replayed || replayErr != nil {
				return replayErr
			}
			return err
		}
	}
}

// replay sends the stored response of a request and reports whether there is one. Otherwise,
// it sets the Idempotent of the request.
func replay(c echo.Context, s *store.Store, info *RequestInfo, before func(context.Context, *RequestInfo) error) (bool, error) {
	ctx, by := c.Request().Context(), info.Cause()
	key := store.IdempotencyKey{Zone: by.Actor.Zone, Actor: by.Actor.ID, Operation: by.Operation, Text: info.key}
	for _, p := range info.Operation.pathParams {
		value, err := pathParam(c, p.Value.Name)
		if err != nil {
			return false, err
		}
		key.Params = append(key.Params, value)
	}
	if zone, err := pathParam(c, "zoneId"); err == nil && zone != "" {
		key.Zone = zone
	} else if by.Actor.Global() {
		key.Zone = store.NoZone
	}
	request, stored, err := s.BeginIdempotent(ctx, by.Actor, key, info.digest(c.Request()))
	if err != nil || request != nil {
		info.Idempotent = request
		return false, err
	}
	var response Buffer
	if err := json.Unmarshal(stored, &response); err != nil {
		return false, err
	}
	if err := before(ctx, info); err != nil {
		return false, err
	}
	c.Response().Header().Set("Idempotency-Replayed", "true")
	return true, response.send(c.Response())
}

// process calls the operation, commits its change with the response, and sends the response.
func process(c echo.Context, info *RequestInfo, next echo.HandlerFunc) error {
	ctx, response, buffer := c.Request().Context(), c.Response(), NewBuffer()
	defer info.Idempotent.Rollback(ctx)
	err := func() error {
		c.SetResponse(echo.NewResponse(buffer, c.Echo()))
		defer c.SetResponse(response) // also if the operation panics
		return next(c)
	}()
	if err != nil {
		return err
	}
	if info.Idempotent.Pending() {
		text, err := json.Marshal(buffer)
		if err != nil {
			return err
		}
		if err := info.Idempotent.Commit(ctx, seal.Plaintext(text)); err != nil {
			return err
		}
	}
	return buffer.send(response)
}

// digest returns a digest of what the response depends on, besides the path: the query,
// If-Match, the body, and what the caller may do.
func (info *RequestInfo) digest(r *http.Request) (sum [sha256.Size]byte) {
	digest := sha256.New()
	write := func(text string) {
		_ = binary.Write(digest, binary.BigEndian, uint64(len(text)))
		_, _ = digest.Write([]byte(text))
	}
	write(r.URL.RawQuery)
	write(strings.Join(r.Header.Values("If-Match"), ","))
	write(strconv.FormatBool(info.Cause().Actor.CanApprove))
	if info.Control != nil {
		write(strings.Join(slices.Compact(slices.Sorted(slices.Values(info.Control.Scopes))), " "))
	}
	_, _ = digest.Write(info.Body)
	digest.Sum(sum[:0])
	return sum
}

// A Buffer is an [http.ResponseWriter] that keeps the response.
type Buffer struct {
	Status  int
	Headers http.Header
	Body    []byte
}

// NewBuffer returns an empty response.
func NewBuffer() *Buffer { return &Buffer{Headers: http.Header{}} }

// Header returns the header of the response.
func (b *Buffer) Header() http.Header { return b.Headers }

// WriteHeader sets the status of the response.
func (b *Buffer) WriteHeader(status int) { b.Status = status }

// Write appends to the body of the response.
func (b *Buffer) Write(text []byte) (int, error) {
	b.Body = append(b.Body, text...)
	return len(text), nil
}

// send sends the response. It fails if the client has disconnected.
func (b *Buffer) send(w http.ResponseWriter) error {
	maps.Copy(w.Header(), b.Headers)
	w.WriteHeader(b.Status)
	_, err := w.Write(b.Body)
	return err
}
