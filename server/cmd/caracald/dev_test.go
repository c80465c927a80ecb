package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	neturl "net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server"
	"caracal.run/management/server/servertest"
)

// The defaults of caracald dev apply to settings without a value, in a variable or in a
// file.
func TestDevDefaults(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte(streamKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		environ  []string
		adminKey string // CARACAL_ADMIN_TOKEN
		hmacKey  string // STREAMS_HMAC_KEY
		kek      string // ZONE_KEK
	}{
		{nil, "default", "default", streamKey},
		{[]string{"CARACAL_ADMIN_TOKEN=mine", "STREAMS_HMAC_KEY=" + token, "ZONE_KEK=mine"}, "mine", token, "mine"},
		{[]string{"CARACAL_ADMIN_TOKEN_FILE=" + file, "STREAMS_HMAC_KEY_FILE=" + file, "ZONE_KEK_FILE=" + file}, streamKey, streamKey, streamKey},
		{[]string{"CARACAL_ADMIN_TOKEN=", "STREAMS_HMAC_KEY_FILE=", "ZONE_KEK_FILE=", "ZONE_KEK="}, "default", "default", streamKey},
		{[]string{"CARACAL_ADMIN_TOKEN=", "CARACAL_ADMIN_TOKEN_FILE=" + file}, streamKey, "default", streamKey},
	} {
		environ := withDefaults(tt.environ, "CARACAL_ADMIN_TOKEN=default", "STREAMS_HMAC_KEY=default", "ZONE_KEK_FILE="+file)
		c, _ := server.LoadConfig(environ) // without the URLs, which are required
		if c.AdminToken.Reveal() != tt.adminKey || c.StreamsHMACKey.Reveal() != tt.hmacKey || c.ZoneKEK.Reveal() != tt.kek {
			t.Errorf("%q: the admin token is %s, the HMAC key %s, the KEK %s", tt.environ, c.AdminToken.Reveal(), c.StreamsHMACKey.Reveal(), c.ZoneKEK.Reveal())
		}
	}
}

func TestDevServes(t *testing.T) {
	t.Parallel()
	parent, err := os.MkdirTemp("", "caracald-dev-") // not t.TempDir, which the user that runs Postgres cannot enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o711); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "data")
	cmd := program([]string{"dev", "--demo", "--dir", dir}, "PORT=0", "LOG_LEVEL=warn", "CARACAL_ADMIN_TOKEN=", "PATH="+os.Getenv("PATH"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var all strings.Builder
	url, zone, served := "", "", false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		all.WriteString(lines.Text() + "\n")
		line := strings.TrimSpace(lines.Text())
		if is, found := strings.CutPrefix(line, "export CARACAL_URL="); found {
			url = is
		}
		if is, found := strings.CutPrefix(line, "export DEMO_ZONE="); found {
			zone = is
		}
		if !strings.HasPrefix(line, "The demo authorization server is at ") {
			continue
		}
		served = true
		token, err := os.ReadFile(filepath.Join(dir, "admin-token"))
		if err != nil {
			t.Fatal(err)
		}
		servertest.Smoke(t, url, strings.TrimSpace(string(token)))
		authorize(t, url, strings.TrimSpace(string(token)), zone)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil || !served {
		t.Errorf("caracald dev exited with %v, after it served: %v\n%s", err, served, &all)
	}
}

// authorize allows access at the demo authorization server, as a user does in a browser
// that accepts its certificate.
func authorize(t *testing.T, url, token, zone string) {
	t.Helper()
	c, err := client.New(url, token)
	if err != nil {
		t.Fatal(err)
	}
	providers, err := c.ListProviders(t.Context(), zone, client.ListProvidersParams{Identifier: "provider://demo-login"})
	if err != nil || len(providers.Items) != 1 {
		t.Fatalf("got %+v, %v", providers, err)
	}
	resources, err := c.ListResources(t.Context(), zone, client.ListResourcesParams{Identifier: "resource://calendar"})
	if err != nil || len(resources.Items) != 1 {
		t.Fatalf("got %+v, %v", resources, err)
	}
	started, err := c.AuthorizeProviderGrant(t.Context(), zone, client.NewProviderAuthorization{
		UserID: "ana", ResourceID: resources.Items[0].ID, ProviderID: providers.Items[0].ID, Scopes: []string{"calendar:read"},
	})
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, strings.Replace(address, demoLoginHost, "127.0.0.1", 1))
		},
	}}
	response, err := browser.PostForm(started.AuthorizationURL, neturl.Values{"decision": {"allow"}}) // follows the redirect to the callback
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		t.Errorf("the callback %s got %d", response.Request.URL, response.StatusCode)
	}
}
