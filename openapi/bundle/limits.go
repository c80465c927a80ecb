package main

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// addRateLimit adds the headers of rate limits to the success responses of an operation, and
// to those with status 429, if requests to its path are limited: paths below /v1, and those of
// OAuth. The others are for operators.
func addRateLimit(path string, op *yaml.Node) {
	if !strings.HasPrefix(path, "/v1/") && !strings.HasPrefix(path, "/oauth/") && !strings.HasPrefix(path, "/.well-known/") {
		return
	}
	for status, response := range pairs(get(op, "responses")) {
		if status < "300" || status == "429" {
			headers := child(response, "headers")
			set(headers, "RateLimit-Policy", ref("#/components/headers/RateLimitPolicy"))
			set(headers, "RateLimit", ref("#/components/headers/RateLimit"))
		}
	}
}
