package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caracal.run/management/server/servertest"
)

func TestContexts(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	a.DB.Application(zone)
	reader := a.Token(zone, "read")
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte(servertest.Bootstrap+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &shell{t, map[string]string{"XDG_CONFIG_HOME": t.TempDir()}}
	count := func(want int, args ...string) {
		t.Helper()
		if got := strings.Fields(s.ok(append([]string{"application", "list", "-o", "name"}, args...)...)); len(got) != want {
			t.Errorf("%v lists %v, want %d", args, got, want)
		}
	}
	if stdout, stderr, code := s.run(reader.Token+"\n", "context", "set", "reader", "--url", a.URL, "--zone", zone, "--token-stdin"); code != 0 || stdout != "" {
		t.Fatalf("%d, %s", code, stderr)
	}
	s.ok("context", "set", "admin", "--url", a.URL, "--token-file", tokenFile)
	s.ok("context", "set", "ci", "--url", a.URL, "--zone", zone)
	info, err := os.Stat(filepath.Join(s.variables["XDG_CONFIG_HOME"], "caracal", "config.yaml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	list := s.ok("context", "list")
	if strings.Contains(list, reader.Token) || strings.Contains(s.ok("context", "list", "-o", "json"), reader.Token) || !strings.Contains(list, "*        reader  "+a.URL) || !strings.Contains(list, "file "+tokenFile) {
		t.Errorf("the list is\n%s", list)
	}

	count(1) // the first context is the current one
	count(0, "--context", "admin", "--zone", other)
	if _, stderr, code := s.run("", "application", "list", "--context", "admin"); code != exitInvalid || !strings.Contains(stderr, "a zone is required") {
		t.Errorf("without a zone: %d, %s", code, stderr)
	}
	if _, stderr, code := s.run("", "zone", "list"); code != exitFailed || !strings.Contains(stderr, "admin_token_zone_mismatch") {
		t.Errorf("a token of a zone lists zones: %d, %s", code, stderr)
	}
	s.ok("context", "use", "admin")
	s.ok("zone", "list")
	s.ok("context", "set", "admin", "--zone", other) // the other fields stay
	count(0)

	// The environment: its URL is never used with a token of a context.
	s.variables["CARACAL_URL"] = a.URL
	if _, stderr, code := s.run("", "zone", "list"); code != exitInvalid || !strings.Contains(stderr, "CARACAL_ADMIN_TOKEN: must be set") {
		t.Errorf("the URL of the environment is used with another token: %d, %s", code, stderr)
	}
	s.variables["CARACAL_ADMIN_TOKEN_FILE"], s.variables["CARACAL_ZONE"] = tokenFile, zone
	count(1)
	count(0, "--context", "admin")
	count(1, "--context", "ci") // with the token of the environment
	count(0, "--zone", other)
	s.variables["CARACAL_ADMIN_TOKEN_FILE"] = "/does/not/exist"
	if _, stderr, code := s.run("", "zone", "list"); code != exitInvalid || !strings.Contains(stderr, "CARACAL_ADMIN_TOKEN_FILE") {
		t.Errorf("without the file: %d, %s", code, stderr)
	}
	delete(s.variables, "CARACAL_URL")

	s.ok("context", "delete", "admin")
	if _, stderr, code := s.run("", "application", "list"); code != exitInvalid || !strings.Contains(stderr, "CARACAL_URL: must be set") {
		t.Errorf("without a current context: %d, %s", code, stderr)
	}
	if stdout, _, _ := s.run("", "__complete", "context", "use", ""); !strings.HasPrefix(stdout, "ci\nreader\n") {
		t.Errorf("contexts are completed with %q", stdout)
	}
}

func TestInvalidContexts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, stdin string
		args        string
		code        int
		want        string
	}{
		{"no URL", "", "context set new", exitInvalid, "--url is required"},
		{"invalid URL", "", "context set new --url ftp://x", exitInvalid, "must begin with http"},
		{"URL with a password", "", "context set new --url https://a:hunter2@x", exitInvalid, "must not have user information"},
		{"no token", "", "context set new --url https://x --token-stdin", exitFailed, "the token is empty"},
		{"two tokens", "hunter2", "context set new --url https://x --token-stdin --token-file x", exitInvalid, "exclude each other"},
		{"token of two lines", "hunter2\nhunter2", "context set new --url https://x --token-stdin", exitInvalid, "white space"},
		{"token as an argument", "", "context set new --url https://x --token hunter2", exitInvalid, "unknown flag: --token"},
		{"unknown context", "", "context use nix", exitFailed, `there is no context "nix": there are a`},
		{"unknown context to delete", "", "context delete nix", exitFailed, `there is no context "nix"`},
		{"unknown context of a command", "", "zone list --context nix", exitFailed, `there is no context "nix"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &shell{t, map[string]string{"HOME": t.TempDir()}}
			s.ok("context", "set", "a", "--url", "https://a.example.com")
			stdout, stderr, code := s.run(tt.stdin, strings.Fields(tt.args)...)
			if code != tt.code || stdout != "" || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, "hunter2\n") || strings.Count(stderr, "caracald: ") != 1 {
				t.Errorf("exit code %d, want %d, %q\n%s%s", code, tt.code, tt.want, stdout, stderr)
			}
		})
	}
}

// A configuration file that others can use, or that is invalid, is rejected without its
// contents.
func TestUnsafeConfigurationFile(t *testing.T) {
	t.Parallel()
	const valid = "current: a\ncontexts:\n  a: {url: 'https://a.example.com', token: hunter2}\n"
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
		owner      int
		want       string
	}{
		{"safe", valid, 0o600, 0, ""},
		{"empty", "", 0o600, 0, ""},
		{"readable by others", valid, 0o604, 0, "chmod 600"},
		{"writable by the group", valid, 0o620, 0, "chmod 600"},
		{"of another user", valid, 0o600, 65534, "belongs to another user"},
		{"not YAML", "hunter2: [", 0o600, 0, "it is not YAML"},
		{"unknown field", "contexts:\n  a: {password: hunter2}\n", 0o600, 0, "field password is unknown"},
		{"another type", "contexts: hunter2\n", 0o600, 0, "line 1: has another type"},
		{"empty context", "contexts:\n  a:\n", 0o600, 0, `the context "a" is empty`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &shell{t, map[string]string{"XDG_CONFIG_HOME": t.TempDir()}}
			file := filepath.Join(s.variables["XDG_CONFIG_HOME"], "caracal", "config.yaml")
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, tt.mode); err != nil {
				t.Fatal(err)
			}
			if tt.owner != 0 {
				if os.Geteuid() != 0 {
					return // only root can give a file away
				}
				if err := os.Chown(file, tt.owner, tt.owner); err != nil {
					t.Fatal(err)
				}
			}
			_, stderr, code := s.run("", "context", "list")
			if (code != 0) != (tt.want != "") || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, "hunter2") {
				t.Errorf("exit code %d, want %q\n%s", code, tt.want, stderr)
			}
		})
	}
}
