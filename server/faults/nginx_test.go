//go:build faults

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"caracal.run/management/server/servertest"
)

// behindNginx starts a service with settings, and an nginx in front of it that
// compresses responses and serves it below /caracal. It returns that URL, which is
// also the PUBLIC_URL of the service. Lines are added to the location.
func (b *backends) behindNginx(lines string, settings ...string) string {
	b.t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", freePort(b.t))
	url := "http://" + address + "/caracal"
	s := b.start("api", append(settings, "PUBLIC_URL="+url)...)
	b.t.Cleanup(s.terminate)
	dir := b.t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
daemon off;
master_process off;
pid %[1]s/pid;
events {}
http {
    access_log off;
    client_body_temp_path %[1]s/body;
    proxy_temp_path %[1]s/proxy;
    fastcgi_temp_path %[1]s/fastcgi;
    uwsgi_temp_path %[1]s/uwsgi;
    scgi_temp_path %[1]s/scgi;
    gzip on;
    gzip_types *;
    gzip_min_length 1;
    server {
        listen %[2]s;
        location /caracal/ {
            proxy_pass %[3]s/;
            %[4]s
        }
    }
}
`, dir, address, s.url, lines), 0o600); err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(installed(b.t, "nginx"), "-p", dir, "-e", "stderr", "-c", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	startServer(b.t, cmd, address)
	return url
}

// request sends a GET request with a token and headers, pairs of name and value, from
// a local address. It returns the response, whose body it has read without
// decompressing it.
func request(t *testing.T, from, url, token string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestServesBehindNginx(t *testing.T) {
	t.Parallel()
	b := newBackends(t)
	for _, tt := range []struct{ name, lines string }{
		{"with its defaults", ""}, // HTTP/1.0 to the service
		{"with HTTP/1.1", `proxy_http_version 1.1; proxy_set_header Connection "";`},
		{"that asks for no compression", `proxy_set_header Accept-Encoding "";`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := b.behindNginx(tt.lines)
			servertest.Smoke(t, url, token)

			var zone struct{ ID string }
			created, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/zones", strings.NewReader(`{"name":"Test"}`))
			if err != nil {
				t.Fatal(err)
			}
			created.Header.Set("Authorization", "Bearer "+token)
			created.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(created)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if err := json.NewDecoder(resp.Body).Decode(&zone); err != nil {
				t.Fatal(err)
			}
			// Without this, the smoke test above would prove nothing.
			if resp, _ := request(t, "127.0.0.1", url+"/v1/zones/"+zone.ID, token, "Accept-Encoding", "gzip"); resp.Header.Get("ETag") != `W/"1"` || resp.Header.Get("Content-Encoding") != "gzip" {
				t.Errorf("nginx sent %v, want a compressed response with a weak ETag", resp.Header)
			}

			_, page := request(t, "127.0.0.1", url+"/docs", token)
			references := regexp.MustCompile(`(?:href|src)="([^"#][^"]*)"`).FindAllStringSubmatch(page, -1)
			if len(references) < 6 {
				t.Errorf("/docs has %d references", len(references))
			}
			for _, reference := range references {
				if resp, _ := request(t, "127.0.0.1", strings.TrimSuffix(url, "/caracal")+reference[1], token); resp.StatusCode != http.StatusOK {
					t.Errorf("/docs refers to %s, which returns %d", reference[1], resp.StatusCode)
				}
			}
			_, document := request(t, "127.0.0.1", url+"/openapi.json", token)
			if !strings.Contains(document, `"servers":[{"description":"The server that returned this document","url":"`+url+`"}]`) {
				t.Errorf("the document has other servers: %.300s", document)
			}
		})
	}
}

// Rate limits count each client behind nginx for itself, whatever it claims to be.
func TestRateLimitCountsClientsBehindNginx(t *testing.T) {
	t.Parallel()
	const limit = 5
	b := newBackends(t)
	for n, tt := range []struct {
		name, lines string
		settings    []string
	}{
		{"X-Forwarded-For", "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;", []string{"TRUST_PROXY=1"}},
		{"X-Forwarded-For with a port", "proxy_set_header X-Forwarded-For $remote_addr:$remote_port;", []string{"TRUST_PROXY=true"}},
		{"networks", "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;", []string{"TRUST_PROXY=127.0.0.1/32"}},
		{"Forwarded", `proxy_set_header Forwarded 'for="$remote_addr:$remote_port";proto=http';`, []string{"TRUST_PROXY=1", "TRUST_PROXY_HEADER=Forwarded"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := b.behindNginx(tt.lines, append(tt.settings, fmt.Sprintf("ADMIN_AUTH_FAIL_LIMIT_PER_MIN=%d", limit))...)
			authenticate := func(from, claimed string) int {
				resp, _ := request(t, from, url+"/v1/zones", "wrong", "X-Forwarded-For", claimed, "Forwarded", "for="+claimed)
				return resp.StatusCode
			}
			client, other := fmt.Sprintf("127.0.%d.2", n+1), fmt.Sprintf("127.0.%d.3", n+1)
			limited := false
			for claim := range 3 * limit { // the minute, and with it the window of the limit, may end once
				limited = limited || authenticate(client, fmt.Sprintf("192.0.2.%d", claim)) == http.StatusTooManyRequests
			}
			if !limited {
				t.Error("a client that claims many addresses is not limited")
			}
			if got := authenticate(other, "192.0.2.1"); got != http.StatusUnauthorized {
				t.Errorf("another client got %d, want %d", got, http.StatusUnauthorized)
			}
		})
	}
}
