package middleware

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
)

func TestDeadlineBoundsTheOperationOnly(t *testing.T) {
	t.Parallel()
	const timeout = time.Minute
	request := httptest.NewRequest("GET", "/v1/zones", nil)
	c := echo.New().NewContext(request, httptest.NewRecorder())
	before := time.Now()
	err := Deadline(timeout, time.Hour)(func(c echo.Context) error {
		deadline, ok := c.Request().Context().Deadline()
		if !ok || deadline.Before(before.Add(timeout)) || deadline.After(time.Now().Add(timeout)) {
			t.Errorf("deadline is %v (%t), want %v after now", deadline, ok, timeout)
		}
		return nil
	})(c)
	if err != nil {
		t.Fatal(err)
	}
	// A context that the middleware has canceled would be logged as a client that has disconnected.
	if err := c.Request().Context().Err(); err != nil {
		t.Errorf("after the operation the request's context has the error %v", err)
	}
}
