package main

import "testing"

func TestLimitedResponsesDeclareRateLimit(t *testing.T) {
	for path, limited := range map[string]bool{
		"/v1/zones": true, "/oauth/2/token": true, "/.well-known/jwks.json": true, "/health": false, "/metrics": false,
	} {
		op := operation(t, "responses: {'200': {}, '302': {}, '404': {}, '429': {headers: {Retry-After: {}}}}")
		addRateLimit(path, op)
		for status, response := range pairs(get(op, "responses")) {
			for _, name := range []string{"RateLimit-Policy", "RateLimit"} {
				if want := limited && (status == "200" || status == "429"); (get(get(response, "headers"), name) != nil) != want {
					t.Errorf("%s: the response %s declares %s: %t, want %t", path, status, name, !want, want)
				}
			}
		}
	}
}
