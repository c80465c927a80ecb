package middleware

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// A request that fails because another one with its key was committed meanwhile, for whatever
// reason of that, returns the response of the other one.
func TestRequestThatFailsBecauseOfItsDuplicateIsReplayed(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	zone := store.NewZone{Name: "Zone"}
	send := func(key string, operation func(echo.Context) error) (*httptest.ResponseRecorder, error) {
		info := &RequestInfo{Operation: &Operation{ID: "createZone"}, Token: &store.AdminToken{AdminToken: db.AdminToken{ZoneID: store.NoZone}}, key: key}
		request := httptest.NewRequest("POST", "/v1/zones", nil)
		w := httptest.NewRecorder()
		c := echo.New().NewContext(request.WithContext(WithRequestInfo(t.Context(), info)), w)
		return w, Idempotency(s, func(context.Context, *RequestInfo) error { return nil })(operation)(c)
	}
	create := func(c echo.Context) error {
		ctx := c.Request().Context()
		err := s.InTx(ctx, RequestInfoFrom(ctx).Cause(), func(tx *store.Tx) error {
			_, err := tx.CreateZone(ctx, zone)
			return err
		})
		if err != nil {
			return err
		}
		return c.String(http.StatusCreated, "created")
	}
	for _, failure := range []code.Code{code.ZoneSlugConflict, code.ZoneNotFound, code.IdempotencyKeyInUse} {
		w, err := send(string(failure), func(echo.Context) error {
			if w, err := send(string(failure), create); err != nil || w.Code != http.StatusCreated {
				t.Fatal(w.Code, err)
			}
			return failure
		})
		if err != nil || w.Code != http.StatusCreated || w.Body.String() != "created" || w.Header().Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: got %d %s, %v", failure, w.Code, w.Body, err)
		}
	}
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	keys, err := seal.Load(func() (string, error) { return strings.Repeat("1a", 32), nil })
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{
		URL: storetest.New(t).URL(), Name: t.Name(), PoolMax: 4, ConnectTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		StatementTimeout: 15 * time.Second, IdleInTxTimeout: 30 * time.Second, Keys: keys,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
