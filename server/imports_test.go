package server_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestPackageImports checks that packages do not depend on others, directly or
// indirectly, that their layer must not know.
func TestPackageImports(t *testing.T) {
	t.Parallel()
	const module = "caracal.run/management/"
	for name, forbidden := range map[string][]string{
		"store":                      {module + "server", module + "gen/api", module + "gen/client", "github.com/labstack/echo", "github.com/open-policy-agent", "net/http/httptest"},
		"gen/client":                 {module + "server", module + "store", "github.com/labstack/echo", "github.com/jackc/pgx", "github.com/open-policy-agent"},
		"gen/audit":                  {module, "github.com/"},
		"gen/code":                   {module, "github.com/"},
		"gen/db":                     {module + "server", module + "store"},
		"store/oauthstate":           {module + "server", "github.com/labstack"},
		"store/chain":                {module, "github.com/", "database/sql", "net/"},
		"store/seal":                 {module, "github.com/", "database/sql", "net/"},
		"server/problem":             {module + "store", module + "gen/client"},
		"server/egress":              {module},
		"server/coding":              {module, "github.com/"},
		"server/docs":                {module + "server/auth", module + "server/middleware", module + "server/problem", module + "store", module + "gen/api", module + "gen/db"},
		"server/jsonresponse":        {module},
		"server/issuer":              {module + "server/middleware", module + "server/problem", module + "gen/api", module + "gen/client", "github.com/labstack"},
		"server/jobs":                {module + "server/middleware", module + "server/problem", module + "gen/api", module + "gen/client", "github.com/labstack"},
		"server/limiter":             {module},
		"server/state":               {module + "server/middleware", module + "server/problem", module + "gen/api", module + "gen/client", "github.com/labstack"},
		"server/sts":                 {module},
		"server/secret":              {module, "github.com/"},
		"server/timestamp":           {module},
		"server/weburl":              {module},
		"server/provider":            {module + "server/middleware", module + "server/problem", module + "store", module + "gen", "github.com/labstack", "github.com/jackc", "github.com/redis"},
		"server/provider/authserver": {module + "server/middleware", module + "server/problem", module + "store", module + "gen", "github.com/labstack", "github.com/jackc", "github.com/redis", "net/http/httptest", "testing"},
		"server/policy":              {module + "server", module + "store", module + "gen"},
		"server/auth":                {module + "server/middleware", module + "gen/api"},
		"server":                     {module + "store/storetest", module + "server/servertest", module + "gen/client", module + "store/private"},
		"server/middleware":          {module + "gen/db/", module + "store/storetest"},
		"server/cmd/caracald":        {module + "gen/rawclient", module + "server/servertest", module + "store/storetest", "github.com/open-policy-agent/opa/v1/rego", "github.com/open-policy-agent/opa/v1/tester"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command("go", "list", "-deps", module+name).Output()
			if err != nil {
				t.Fatal(err)
			}
			for dep := range strings.Lines(string(out)) {
				dep = strings.TrimSpace(dep)
				for _, prefix := range forbidden {
					if dep != module+name && strings.HasPrefix(dep, prefix) {
						t.Errorf("%s depends on %s", name, dep)
					}
				}
			}
		})
	}
}
