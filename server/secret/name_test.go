package secret_test

import (
	"strings"
	"testing"

	"caracal.run/management/server/secret"
)

func TestNamesOfSecrets(t *testing.T) {
	t.Parallel()
	for _, name := range strings.Fields(`subject_token actor_token auth_token private_token access_token refresh_token id_token X-Amz-Security-Token
		client_secret app_secret secret secret_key client-secret-key access_key AWS_Access_Key api_key apikey x-api-key X-ApiKey private_key key
		subscription-key Ocp-Apim-Subscription-Key password user_password passwd pwd pass passphrase sig signature X-Goog-Signature
		token authorization cookie set-cookie session session_id assertion`) {
		if !secret.IsName(name) {
			t.Errorf("%s names no secret", name)
		}
	}
	for _, name := range strings.Fields(`token_endpoint token_type requested_token_type subject_token_type token_params tokens id_token_hint
		public_key key_id kid keys partition_key scope_key scope scopes client_id client_auth_method client_assertion_type grant_type
		audience resource tenant prompt login_hint nonce acr_values access_type password_policy secret_config_keys signature_method
		bypass design auth_scheme auth_header auth_location query_param_name header_name redirect_uri`) {
		if secret.IsName(name) {
			t.Errorf("%s names a secret", name)
		}
	}
}

func TestSameName(t *testing.T) {
	t.Parallel()
	if !secret.SameName("Api-Key", "api_key") || secret.SameName("apikey", "api_key") {
		t.Error("names are compared otherwise")
	}
}
