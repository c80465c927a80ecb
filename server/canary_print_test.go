package server_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server"
	"caracal.run/management/server/egress"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

// Values that contain secrets print none, whatever the format.
func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	const key = "api_key"
	checked, err := provider.Check(provider.APIKey, json.RawMessage(`{"header_name":"X-Key","api_key":"`+stem+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	changed, err := provider.Change(provider.Stored{Kind: provider.APIKey, Public: json.RawMessage("{}"), SecretKeys: []string{key}}, nil, json.RawMessage(`{"header_name":"X-Key","api_key":"`+stem+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	_, rejected := provider.Check(provider.APIKey, json.RawMessage(`{"header_name":7,"api_key":"`+stem+`"}`))
	config, err := server.LoadConfig([]string{
		"DATABASE_URL=postgres://u:" + stem + "@h/d", "REDIS_URL=redis://:" + stem + "@h", "CARACAL_ADMIN_TOKEN=" + stem,
		"ZONE_KEK=" + asKey(1) + "," + asKey(2), "STREAMS_HMAC_KEY=" + asKey(3), "AUDIT_HMAC_KEY=" + asKey(4), "METRICS_BEARER=" + stem,
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := config.Keys()
	if err != nil {
		t.Fatal(err)
	}
	dataKey, wrapped := keys.NewDataKey("zone", 1)
	plain := seal.Plaintext(checked.Secrets.Plaintext())
	_, unopened := dataKey.Open(seal.Location{Zone: "zone"}, plain)
	n := store.NewProvider{ProviderConfig: store.ProviderConfig{Kind: "api_key", Secrets: plain, SecretKeys: []string{key}}}
	info := &middleware.RequestInfo{Bearer: stem, Body: []byte(stem), Query: map[string][]string{"token": {stem}}}
	values := map[string]any{
		"config": config, "pointer to config": &config, "setting": config.AdminToken, "checked": checked, "secrets": checked.Secrets, "secret": checked.Secrets[key], "changed": changed,
		"new provider": n, "provider config": n.ProviderConfig, "plaintext": plain, "keys": keys, "data key": dataKey, "wrapped": wrapped,
		"rejection": rejected, "unopened": unopened, "request info": info, "request info value": *info,
	}
	for _, raw := range []string{
		"https://u:" + stem + "@h.example.com/" + stem + "?token=" + stem, "http://h.example.com/" + stem, "https://h.example.com/" + stem, "https://1.2.3.4/?t=" + stem,
		"https://h.example.com:x" + stem + "/", "https://h.example.com/%zz" + stem, "://" + stem, "https://u:" + stem + "/x@h.example.com/",
	} {
		_, values["egress to "+raw] = egress.New(egress.Options{}).Probe(t.Context(), raw, []string{"other.example.com"})
	}
	secrets := map[string][]byte{"the secret": []byte(stem)}
	for name, v := range values {
		shapes := map[string]any{
			"": v, " in a pointer": &v, " in a list": []any{v}, " in a map": map[string]any{"x": v}, " in a struct": struct{ V any }{v},
		}
		if slices.Contains([]string{"config", "setting", "checked", "secrets", "secret", "changed", "keys", "data key"}, name) { // fmt calls no methods of unexported fields
			shapes[" in an unexported field"] = struct{ v any }{v}
		}
		for shape, v := range shapes {
			var places []place
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%o", "%c", "%U", "%t", "%T", "%10.3v"} {
				places = append(places, place{name + shape + " as " + verb, fmt.Sprintf(verb, v)})
			}
			if text, err := json.Marshal(v); err == nil {
				places = append(places, place{name + shape + " as JSON", string(text)})
			}
			places = append(places, place{name + shape + " as an error", fmt.Errorf("wrapped: %v", v).Error()})
			var logged bytes.Buffer
			for _, handler := range []slog.Handler{slog.NewJSONHandler(&logged, nil), slog.NewTextHandler(&logged, nil)} {
				slog.New(handler).Info("x", "value", v, slog.Any("any", v), slog.Group("group", "value", v))
			}
			places = append(places, place{name + shape + " in slog", logged.String()})
			for _, found := range find(secrets, places) {
				t.Error(found)
			}
		}
	}
	t.Logf("%d values were printed", len(values))
}

// The error for an invalid setting does not quote its value.
func TestInvalidSettingsAreNotQuoted(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, tt := range []struct{ name, setting string }{
		{"a slash in the database password", "DATABASE_URL=postgres://u:" + stem + "/x@localhost/d"},
		{"a question mark in the database password", "DATABASE_URL=postgres://u:" + stem + "?x@localhost/d"},
		{"a hash in the database password", "DATABASE_URL=postgres://u:" + stem + "#x@localhost/d"},
		{"a percent sign in the database password", "DATABASE_URL=postgres://u:a:" + stem + "%zz@localhost/d"},
		{"a space in the database password", "DATABASE_URL=postgres://u:a " + stem + "@localhost/d"},
		{"a colon in the database password and an invalid port", "DATABASE_URL=postgres://u:" + stem + ":x@localhost:port/d"},
		{"an unterminated database password in a keyword string", "DATABASE_URL=host=localhost password='a " + stem},
		{"a database password in a keyword string with an invalid port", "DATABASE_URL=host=localhost port=x password=" + stem},
		{"a database password without a keyword", "DATABASE_URL=host=localhost " + stem},
		{"an unreachable database", "DATABASE_URL=postgres://u:" + stem + "@127.0.0.1:1/d?sslmode=disable"},
		{"an invalid sslmode", "DATABASE_URL=postgres://u:" + stem + "@127.0.0.1:1/d?sslmode=x"},
		{"a slash in the Redis password", "REDIS_URL=redis://:" + stem + "/x@localhost"},
		{"a percent sign in the Redis password", "REDIS_URL=redis://:" + stem + "%zz@localhost"},
		{"a Redis URL with an invalid scheme", "REDIS_URL=x://:" + stem + "@localhost"},
		{"a key that is not hexadecimal", "ZONE_KEK=" + stem},
		{"a key that is too short", "ZONE_KEK=" + hex.EncodeToString([]byte(stem))},
		{"a duplicate key", "ZONE_KEK=" + asKey(1) + " " + asKey(1)},
		{"a signing key that is not hexadecimal", "STREAMS_HMAC_KEY=" + stem},
		{"an audit key that is not hexadecimal", "AUDIT_HMAC_KEY=" + stem},
		{"an audit key that is too short", "AUDIT_HMAC_KEY=" + hex.EncodeToString([]byte(stem))},
		{"a signing key that is too short", "STREAMS_HMAC_KEY=" + hex.EncodeToString([]byte(stem))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			logged := &servertest.Log{}
			config, err := server.LoadConfig([]string{
				"CARACAL_MODE=dev", "PORT=0", "REDIS_URL=redis://localhost", "DATABASE_URL=" + db.URL(), "ZONE_KEK=" + servertest.KEK, "DB_CONNECTION_TIMEOUT_MS=500", tt.setting,
			})
			if err == nil {
				var running *server.Service
				running, err = server.Start(t.Context(), config, slog.New(slog.NewJSONHandler(logged, nil)))
				if err == nil {
					_ = running.Stop()
					t.Fatal("the service started")
				}
			}
			failures := []error{err}
			if databaseURL, is := strings.CutPrefix(tt.setting, "DATABASE_URL="); is { // CARACAL_MIGRATE_URL is read in the same way
				failures = append(failures, store.Migrate(t.Context(), databaseURL, func(string) {}))
			}
			places := []place{{"the log", logged.String()}}
			for _, failure := range failures {
				if failure == nil {
					t.Fatal("nothing failed")
				}
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
					places = append(places, place{verb, fmt.Sprintf(verb, failure)})
				}
			}
			for _, found := range find(map[string][]byte{"the secret": []byte(stem)}, places) {
				t.Error(found)
			}
		})
	}
}
