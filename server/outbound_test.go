package server_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOnlyPackageEgressSendsRequestsToTenantsURLs finds code outside of package egress
// that could send HTTP requests, or that connects anywhere. The exceptions send requests
// to addresses of settings only.
func TestOnlyPackageEgressSendsRequestsToTenantsURLs(t *testing.T) {
	t.Parallel()
	exceptions := []string{
		"egress/egress.go", "sts/sts.go", // STS_URL
		"issuer/external.go",                                                                                                    // STS_JWKS_URL
		"cmd/caracald/load.go", "servertest/servertest.go", "servertest/smoke.go", "servertest/spec.go", "servertest/stream.go", // clients of the service itself
		"provider/authserver/egress.go", // see the test below
	}
	forbidden := map[string][]string{
		"http": {"Client", "DefaultClient", "Transport", "DefaultTransport", "Get", "Head", "Post", "PostForm", "NewRequest", "NewRequestWithContext"},
		"net":  {"Dial", "DialTimeout", "Dialer"},
		"tls":  {"Dial", "DialWithDialer", "Dialer", "Client"},
	}
	used := map[string]bool{}
	eachFile(t, func(path string, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := selector.X.(*ast.Ident); ok && slices.Contains(forbidden[pkg.Name], selector.Sel.Name) {
				used[path] = true
				if !slices.Contains(exceptions, path) {
					t.Errorf("%s uses %s.%s", path, pkg.Name, selector.Sel.Name)
				}
			}
			return true
		})
	})
	for _, path := range exceptions {
		if !used[path] {
			t.Errorf("%s is no exception", path)
		}
	}
}

// TestOnlyTheDemoReachesTheDemoAuthorizationServer checks that no production code makes
// package egress trust another server than its rules allow: only the demo of caracald
// imports the authorization server and sets the options of outbound requests.
func TestOnlyTheDemoReachesTheDemoAuthorizationServer(t *testing.T) {
	t.Parallel()
	allowed := []string{"cmd/caracald/dev.go", "cmd/caracald/demo_login.go", "servertest/servertest.go"}
	eachFile(t, func(path string, file *ast.File) {
		if slices.Contains(allowed, path) {
			return
		}
		for _, imported := range file.Imports {
			if strings.Contains(imported.Path.Value, "provider/authserver") {
				t.Errorf("%s imports %s", path, imported.Path.Value)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if assignment, ok := n.(*ast.AssignStmt); ok {
				for _, to := range assignment.Lhs {
					if selector, ok := to.(*ast.SelectorExpr); ok && selector.Sel.Name == "Egress" {
						t.Errorf("%s sets the options of outbound requests", path)
					}
				}
			}
			if field, ok := n.(*ast.KeyValueExpr); ok {
				if name, ok := field.Key.(*ast.Ident); ok && name.Name == "Egress" {
					t.Errorf("%s sets the options of outbound requests", path)
				}
			}
			return true
		})
	})
}

// eachFile calls visit with each file below server that is not a test, and its path.
func eachFile(t *testing.T, visit func(path string, file *ast.File)) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err == nil {
			visit(filepath.ToSlash(path), file)
		}
		return err
	})
	if err != nil || files < 50 {
		t.Fatalf("%d files, %v", files, err)
	}
}
