package server_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"caracal.run/management/server/servertest"
)

func TestPublicURL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ setting, base, path, server string }{
		{"", "", "", "/"},
		{"https://api.example.com", "https://api.example.com", "", "https://api.example.com"},
		{"https://api.example.com/", "https://api.example.com", "", "https://api.example.com"},
		{"https://api.example.com:8443/caracal/v2/", "https://api.example.com:8443/caracal/v2", "/caracal/v2", "https://api.example.com:8443/caracal/v2"},
		{"http://[2001:db8::1]/caracal", "http://[2001:db8::1]/caracal", "/caracal", "http://[2001:db8::1]/caracal"},
		{"/caracal", "/caracal", "/caracal", "/caracal"},
		{`/<"a">`, "/%3C%22a%22%3E", "/%3C%22a%22%3E", "/%3C%22a%22%3E"},
	} {
		t.Run(tt.setting, func(t *testing.T) {
			a := servertest.New(t, "PUBLIC_URL="+tt.setting)
			a.Zone()
			a.Zone()
			// The header Host of this request is another one.
			list := a.Do("GET", "/v1/zones?limit=1", "", bearer(servertest.Bootstrap)...)
			servertest.Expect(t, list, http.StatusOK, "")
			if link := list.Header.Get("Link"); !strings.HasPrefix(link, "<"+tt.base+"/v1/zones?cursor=") {
				t.Errorf("Link is %s", link)
			}
			var document struct{ Servers []struct{ URL string } }
			for path, decode := range map[string]func([]byte, any) error{"/openapi.json": json.Unmarshal, "/openapi.yaml": yaml.Unmarshal} {
				document.Servers = nil
				if err := decode(a.Do("GET", path, "").Body, &document); err != nil {
					t.Fatal(err)
				}
				if len(document.Servers) != 1 || document.Servers[0].URL != tt.server {
					t.Errorf("the servers in %s are %v", path, document.Servers)
				}
			}
			for _, path := range []string{"/docs", "/docs/"} {
				page := string(fetch(t, a, "GET", path).Body)
				references := regexp.MustCompile(`(?:href|src)="([^"#][^"]*)"`).FindAllStringSubmatch(page, -1)
				if len(references) < 6 {
					t.Errorf("%s has %d references", path, len(references))
				}
				for _, reference := range references {
					below, found := strings.CutPrefix(reference[1], tt.path)
					if !found || !strings.HasPrefix(below, "/") {
						t.Errorf("%s refers to %s", path, reference[1])
						continue
					}
					servertest.Expect(t, fetch(t, a, "GET", below), http.StatusOK, "")
				}
			}
		})
	}
}
