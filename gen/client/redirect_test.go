package client_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"caracal.run/management/gen/client"
)

// TestRedirectIsAnErrorOfEveryCall has a redirect to another host, to plain HTTP and
// to the same host. None is followed: a write would become a read, or be sent to an
// address that the caller did not choose, as would the token.
func TestRedirectIsAnErrorOfEveryCall(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the redirect was followed, with %s and %q", r.Method, r.Header)
	}))
	t.Cleanup(other.Close)
	for _, status := range []int{300, 301, 302, 303, 307, 308} {
		for target, want := range map[string]string{
			other.URL + "/login?state=hunter2": " to " + other.URL + ",",
			"http://{host}/v1/moved":           " to http://",
			"/v1/moved?state=hunter2":          "redirect, which",
			"http://%zz/?state=hunter2":        "redirect, which",
			"":                                 "redirect, which",
		} {
			for name, call := range calls {
				t.Run(fmt.Sprintf("%d to %s of %s", status, target, name), func(t *testing.T) {
					t.Parallel()
					var requests atomic.Int32
					s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						requests.Add(1)
						w.Header()["Location"] = []string{strings.Replace(target, "{host}", r.Host, 1)}
						responds(status, `<a href="/?state=hunter2">Moved</a>`, "Content-Type", "text/html", "X-Request-Id", "r1")(w, r)
					}))
					t.Cleanup(s.Close)
					// The HTTP client's own policy must not take effect.
					hc := s.Client()
					hc.CheckRedirect = func(*http.Request, []*http.Request) error { return nil }
					c, err := client.New(s.URL, token, client.WithHTTPClient(hc))
					if err != nil {
						t.Fatal(err)
					}
					e := failure(t, call(t, c), status)
					if text := e.Error(); e.Code != "" || e.RequestID != "r1" || !strings.Contains(text, want) || strings.Contains(text, "hunter2") || requests.Load() != 1 {
						t.Errorf("%s, after %d requests", text, requests.Load())
					}
				})
			}
		}
	}
}
