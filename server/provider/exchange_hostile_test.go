package provider_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/server/egress"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/provider/authserver"
)

const (
	unknown      = time.Duration(-1) // no expires_in
	notObject    = "The response of the token endpoint is not a JSON object without repeated fields."
	noToken      = "The response of the token endpoint contains no access token"
	badToken     = "A token in the response of the token endpoint contains characters that no token may have."
	badHTTP      = "The host did not return a valid HTTP response."
	tooLarge     = "The response of the host is too large."
	notInTime    = "The host did not respond in time."
	invalidGrant = "The token endpoint returned status 400 and the error invalid_grant"
	badRequest   = "The token endpoint returned status 400"
)

// accepted lists the responses that contain a token, with its lifetime.
var accepted = map[string]time.Duration{
	"expires_in string": time.Hour, "expires_in fraction": 3599 * time.Second, "expires_in exponent": time.Hour, "expires_in below one": 0,
	"expires_in zero": unknown, "expires_in negative": unknown, "expires_in minus infinite": unknown, "expires_in negative string": unknown,
	"expires_in absurd": 2147483647 * time.Second, "expires_in infinite": 2147483647 * time.Second, "expires_in absurd string": 2147483647 * time.Second,
	"expires_in text": unknown, "expires_in hexadecimal": unknown, "expires_in empty": unknown, "expires_in null": unknown, "expires_in boolean": unknown, "expires_in list": unknown,
	"no token type": time.Hour, "unknown token type": unknown, "no refresh token": unknown, "empty refresh token": unknown, "refresh token number": unknown,
	"byte order mark": unknown, "white space": unknown, "unknown fields": unknown, "error and access token": unknown,
	"content type text": unknown, "no content type": unknown, "largest body": unknown,
}

// rejected lists the responses with status 200 that contain no usable token.
var rejected = map[string]string{
	"JSON null": notObject, "JSON list": notObject, "JSON string": notObject, "JSON number": notObject, "no body": notObject, "no JSON": notObject,
	"truncated JSON": notObject, "two JSON objects": notObject, "JSON with a trailing comma": notObject, "deeply nested JSON": notObject,
	"repeated access token": notObject, "escaped repetition": notObject, "repeated expires_in": notObject, "invalid UTF-8": notObject,
	"HTML page": notObject, "compressed body": notObject,
	"other case": noToken + ".", "no access token": noToken + ".", "empty access token": noToken + ".", "access token null": noToken + ".",
	"access token number": noToken + ".", "access token object": noToken + ".",
	"access token with a newline": badToken, "access token not ASCII": badToken, "access token half a pair": badToken, "refresh token with a NUL": badToken,
	"error with status 200": noToken + " and the error bad_verification_code: The code passed is incorrect or expired.",
}

// failed lists the responses that are errors.
var failed = map[string]string{
	"error invalid_request":        badRequest + " and the error invalid_request.",
	"error invalid_client":         badRequest + " and the error invalid_client: Unknown client.",
	"error invalid_grant":          invalidGrant + ": The code has expired.",
	"error unauthorized_client":    badRequest + " and the error unauthorized_client.",
	"error unsupported_grant_type": badRequest + " and the error unsupported_grant_type.",
	"error invalid_scope":          badRequest + " and the error invalid_scope.",
	"error of another shape":       badRequest + ".",
	"error with control bytes":     invalidGrant + ": line   [31mred.",
	"error with HTML":              invalidGrant + ": <script>alert(1)</script>.", // as text: who shows it in HTML escapes it
	"error with a long text":       invalidGrant + ": " + strings.TrimSpace(strings.Repeat("long ", 40)) + ".",
	"error with a long code":       badRequest + ".",
	"error that quotes the code":   invalidGrant + ".",
	"error with a part of it":      invalidGrant + ".",
	"error that ends in the code":  invalidGrant + ".", // of which only the beginning would be shown
	"error with a late code":       invalidGrant + ": " + strings.Repeat("-", 200) + ".",
	"error that is the code":       badRequest + ".",
	"error that quotes a header":   badRequest + " and the error invalid_client.",
	"error that is no JSON":        badRequest + ".",

	"huge body": tooLarge, "endless body": tooLarge, "huge header": badHTTP, "closed early": badHTTP, "no response": badHTTP, "no HTTP": badHTTP, "two lengths": badHTTP,
	"slow body": notInTime, "slow header": notInTime, "never responds": notInTime,
}

func TestHostileTokenResponses(t *testing.T) {
	t.Parallel()
	for _, status := range []int{201, 204, 301, 302, 307, 308, 401, 404, 429, 500, 503} {
		failed[fmt.Sprintf("status %d", status)] = fmt.Sprintf("The token endpoint returned status %d.", status)
	}
	if names := slices.Sorted(maps.Keys(authserver.Hostile())); len(names) != len(accepted)+len(rejected)+len(failed) {
		t.Errorf("%d responses, of which %d, %d and %d are expected", len(names), len(accepted), len(rejected), len(failed))
	}
	r := newRig(t)
	impatient := newRig(t, func(o *egress.Options) { o.Timeout = 200 * time.Millisecond })
	for name := range authserver.Hostile() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := r
			if failed[name] == notInTime {
				r = impatient
			}
			config := r.config(t, clients[0], map[string]any{"token_endpoint": r.TokenEndpoint(name)})
			request := r.authorize(t, config)
			got, err := r.Exchange(t.Context(), config, request)
			lifetime, ok := accepted[name]
			switch {
			case failed[name] != "":
				expectError(t, err, provider.ExchangeFailed, failed[name])
			case rejected[name] != "":
				expectError(t, err, provider.ResponseInvalid, rejected[name])
			case !ok || err != nil:
				t.Fatalf("got %v", err)
			default:
				if !strings.HasPrefix(got.AccessToken.Reveal(), "access-") || got.RefreshToken.IsZero() != (name != "no token type") {
					t.Errorf("got %q, %q", got.AccessToken.Reveal(), got.RefreshToken.Reveal())
				}
				if got.ExpiresIn == nil && lifetime != unknown || got.ExpiresIn != nil && *got.ExpiresIn != lifetime {
					t.Errorf("expires in %v, want %v", got.ExpiresIn, lifetime)
				}
			}
			if err == nil {
				return
			}
			if got != (provider.Tokens{}) {
				t.Error("an error with tokens")
			}
			for _, text := range []string{request.Code.Reveal(), request.CodeVerifier.Reveal()[:12], clients[0].Secret, "Basic "} {
				if strings.Contains(err.Error(), text) {
					t.Errorf("the error quotes a secret: %v", err)
				}
			}
		})
	}
}
