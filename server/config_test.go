package server

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caracal.run/management/server/secret"
)

const key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

func TestConfigNamesInvalidSettings(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte(" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	required := []string{"CARACAL_MODE=dev", "DATABASE_URL=postgres://", "REDIS_URL=redis://"}
	for _, tt := range []struct{ setting, named string }{
		{"PORT=10abc", "PORT"},
		{"PORT=-1", "PORT"},
		{"DB_POOL_MAX=0", "DB_POOL_MAX"},
		{"TRUST_PROXY=maybe", "TRUST_PROXY"},
		{"TRUST_PROXY=-1", "TRUST_PROXY"},
		{"TRUST_PROXY=256", "TRUST_PROXY"},
		{"TRUST_PROXY=10.0.0.0/33", "TRUST_PROXY"},
		{"TRUST_PROXY=10.0.0.1,", "TRUST_PROXY"},
		{"TRUST_PROXY=proxy.example.com", "TRUST_PROXY"},
		{"TRUST_PROXY_HEADER=X-Real-IP", "TRUST_PROXY_HEADER"},
		{"PUBLIC_URL=api.example.com", "PUBLIC_URL"},
		{"PUBLIC_URL=//api.example.com", "PUBLIC_URL"},
		{"PUBLIC_URL=ftp://api.example.com", "PUBLIC_URL"},
		{"PUBLIC_URL=https://", "PUBLIC_URL"},
		{"PUBLIC_URL=https://:443/x", "PUBLIC_URL"},
		{"PUBLIC_URL=https://user@api.example.com", "PUBLIC_URL"},
		{"PUBLIC_URL=https://api.example.com/?x", "PUBLIC_URL"},
		{"PUBLIC_URL=https://api.example.com/#x", "PUBLIC_URL"},
		{"PUBLIC_URL=https://api.example.com//x", "PUBLIC_URL"},
		{"PUBLIC_URL=/a/../b", "PUBLIC_URL"},
		{"PUBLIC_URL=/%zz", "PUBLIC_URL"},
		{"CARACAL_MODE=production", "CARACAL_MODE"},
		{"STREAMS_HMAC_KEY=" + key + "zz", "STREAMS_HMAC_KEY"},
		{"STREAMS_HMAC_KEY=0011", "STREAMS_HMAC_KEY"},
		{"AUDIT_HMAC_KEY=" + key + "zz", "AUDIT_HMAC_KEY"},
		{"AUDIT_HMAC_KEY=0011", "AUDIT_HMAC_KEY"},
		{"GATEWAY_STS_HMAC_KEY=0011", "GATEWAY_STS_HMAC_KEY"},
		{"GATEWAY_STS_HMAC_KEY=" + key + "zz", "GATEWAY_STS_HMAC_KEY"},
		{"STS_URL=localhost:8080", "STS_URL"},
		{"CARACAL_MODE=stable", "STREAMS_HMAC_KEY"},
		{"DATABASE_URL=", "DATABASE_URL"},
		{"REDIS_URL=", "REDIS_URL"},
		{"METRICS_BEARER_FILE=/nowhere", "METRICS_BEARER_FILE"},
		{"METRICS_BEARER_FILE=" + empty, "METRICS_BEARER_FILE"},
	} {
		t.Run(tt.setting, func(t *testing.T) {
			_, err := LoadConfig(append(append([]string{}, required...), tt.setting))
			if err == nil || !strings.Contains(err.Error(), tt.named) {
				t.Errorf("got %v, want an error that names %s", err, tt.named)
			}
		})
	}
}

func TestConfigReadsFiles(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte("postgres://from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig([]string{"DATABASE_URL_FILE=" + file, "REDIS_URL=redis://", "STREAMS_HMAC_KEY=" + key, "ZONE_KEK=" + key, "TRUST_PROXY=on", "PORT="})
	if err != nil {
		t.Fatal(err)
	}
	if c.DatabaseURL.Reveal() != "postgres://from-a-file" || c.TrustProxy.hops != 1 || c.Port != 3000 || c.Mode != "stable" || c.Host != "" {
		t.Errorf("%+v", c)
	}
}

func TestConfigRedactsSecrets(t *testing.T) {
	t.Parallel()
	c := Config{AdminToken: secret.New("canary-1"), DatabaseURL: secret.New("canary-2"), StreamsHMACKey: secret.New("canary-3")}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%v", struct{ c Config }{c}), fmt.Sprintf("%q %x %d", c.AdminToken, c.AdminToken, c.AdminToken), string(text)} {
		if strings.Contains(printed, "canary") || strings.Contains(printed, fmt.Sprintf("%x", "canary")) {
			t.Errorf("it prints %s", printed)
		}
	}
}

func TestConfigIsDocumentedInGuide(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("docs/guides/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(guide), SettingsTable()) {
		t.Errorf("settings.md must contain:\n%s", SettingsTable())
	}
}
