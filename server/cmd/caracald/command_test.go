package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"caracal.run/management/store/storetest"
)

// result runs the program, and returns its outputs and its exit code.
func result(t *testing.T, args, settings []string) (stdout, stderr string, exitCode int) {
	t.Helper()
	cmd := program(args, settings...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func TestInvalidArgumentsPrintOneError(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want string }{
		{"", "a command is required\n"},
		{"nix", `unknown command "nix"`},
		{"srve", `unknown command "srve": use serve`},
		{"--nix", "unknown flag: --nix"},
		{"serve now", `serve: unexpected argument "now"`},
		{"serve --nix", "serve: unknown flag: --nix"},
		{"dev --dir", "dev: flag needs an argument: --dir"},
		{"load --for soon", `load: invalid argument "soon" for "--for" flag`},
		{"keys", "keys: a command is required: rotate, verify"},
		{"keys nix", `keys: unknown command "nix": use rotate or verify`},
		{"keys verify --nix", "keys verify: unknown flag: --nix"},
		{"keys rotate --replace-older -1s", "keys rotate: --replace-older must not be negative"},
		{"completion tcsh", `completion: unknown command "tcsh"`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, exitCode := result(t, strings.Fields(tt.args), nil)
			if exitCode != 2 || stdout != "" || strings.Count(stderr, tt.want) != 1 || strings.Count(stderr, "caracald: ") != 1 || !strings.Contains(stderr, "-h") {
				t.Errorf("exit code %d, %q\n%s", exitCode, stdout, stderr)
			}
		})
	}
}

func noVariables(string) string { return "" }

// execute runs a command in this process, and returns its output.
func execute(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	root := newRoot(noVariables)
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return out.String()
}

// eachCommand calls visit for each command except those of cobra.
func eachCommand(cmd *cobra.Command, visit func(*cobra.Command)) {
	for _, sub := range cmd.Commands() {
		if sub.Name() != "completion" && sub.Name() != "help" {
			visit(sub)
			eachCommand(sub, visit)
		}
	}
}

// The help of each command has its description, its flags, its settings and an example.
func TestHelpOfEachCommand(t *testing.T) {
	t.Parallel()
	usage := execute(t, "-h")
	if !strings.Contains(usage, "Exit codes: 0 ") {
		t.Error("the usage does not contain the exit codes")
	}
	has := map[string][]string{
		"dev": {"--demo", "--dir", "PORT"}, "serve": {"DATABASE_URL", "REDIS_URL", "(default 3000)"}, "migrate": {"CARACAL_MIGRATE_URL"},
		"keys rotate": {"--replace-older", "ZONE_KEK", "DB_POOL_MAX"}, "keys verify": {"ZONE_KEK"}, "load": {"--for", "--callers"},
	}
	lacks := map[string]string{"dev": "\n  DATABASE_URL\n", "keys rotate": "REDIS_URL", "keys verify": "STREAMS_HMAC_KEY", "load": "Settings:"}
	eachCommand(newRoot(noVariables), func(c *cobra.Command) {
		_, name, _ := strings.Cut(c.CommandPath(), " ")
		if parent := execute(t, append(strings.Fields(name)[:strings.Count(name, " ")], "-h")...); !strings.Contains(parent, "\n  "+c.Name()+" ") || !strings.Contains(parent, c.Short) {
			t.Errorf("%s: the help of its parent does not contain it", name)
		}
		help := execute(t, append(strings.Fields(name), "-h")...)
		for _, text := range append([]string{c.Long, c.Example, "Examples:\n  ", "caracald " + name, "Usage:\n"}, has[name]...) {
			if !strings.Contains(help, text) {
				t.Errorf("%s: the help does not contain %q", name, text)
			}
		}
		if c.Short == "" || !c.HasSubCommands() && c.Long == "" {
			t.Errorf("%s has no description", name)
		}
		if lacks[name] != "" && strings.Contains(help, lacks[name]) {
			t.Errorf("%s: the help contains %q", name, lacks[name])
		}
	})
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"--version"}} {
		stdout, stderr, exitCode := result(t, args, nil)
		if exitCode != 0 || !strings.HasPrefix(stdout, "caracald ") || !strings.Contains(stdout, " go1.") || stderr != "" {
			t.Errorf("%v: exit code %d, %q, %q", args, exitCode, stdout, stderr)
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string // the last word is completed
		want []string
	}{
		{[]string{"se"}, []string{"serve", "session", "settings"}},
		{[]string{"keys", ""}, []string{"rotate", "verify"}},
		{[]string{"keys", "rotate", "--r"}, []string{"--replace-older"}},
		{[]string{"dev", "--demo", "--di"}, []string{"--dir"}},
		{[]string{"completion", ""}, []string{"bash", "fish", "powershell", "zsh"}},
		{[]string{"nix", ""}, nil},
	} {
		var got []string
		for line := range strings.Lines(execute(t, append([]string{"__complete"}, tt.args...)...)) {
			word, _, described := strings.Cut(line, "\t")
			if described {
				got = append(got, word)
			}
		}
		if slices.Sort(got); !slices.Equal(got, tt.want) {
			t.Errorf("%q is completed with %v, want %v", tt.args, got, tt.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if script, stderr, exitCode := result(t, []string{"completion", shell}, nil); exitCode != 0 || stderr != "" || !strings.Contains(script, "__complete") {
			t.Errorf("the script for %s is %q, exit code %d, %s", shell, script, exitCode, stderr)
		}
	}
}

// All invalid settings are logged in words, once, in the format of the mode, and
// variables that look like settings are named.
func TestServeReportsAllInvalidSettings(t *testing.T) {
	t.Parallel()
	environ := []string{"PORT=x", "DB_POOL_MAX=0", "DRAIN_DELAY_MS=99999999999999999999", "API_DOCS=perhaps", "LOG_LEVEL=loud", "REDIS_URL=http://:canary@redis", "METRICS_BEARER_FILE=canary", "DATABSE_URL=x", "API_BODY_LIMIT=1", "REDIS_PORT_6379_TCP=x"}
	want := map[string]string{
		"PORT":                `PORT: must be a whole number, not "x"`,
		"DB_POOL_MAX":         "DB_POOL_MAX: must be at least 1, not 0",
		"DRAIN_DELAY_MS":      "DRAIN_DELAY_MS: is too large or too small: 99999999999999999999",
		"API_DOCS":            `API_DOCS: must be true or false, not "perhaps"`,
		"LOG_LEVEL":           `LOG_LEVEL: must be debug, info, warn or error, not "loud"`,
		"REDIS_URL":           "REDIS_URL: must begin with redis://, rediss:// or unix://",
		"METRICS_BEARER_FILE": "METRICS_BEARER_FILE: cannot read the file: no such file or directory",
		"DATABASE_URL":        "DATABASE_URL: must be set",
		"ZONE_KEK":            "ZONE_KEK: must be set",
		"STREAMS_HMAC_KEY":    "STREAMS_HMAC_KEY: must be set in mode stable",
	}
	stdout, stderr, exitCode := result(t, []string{"serve"}, environ)
	if exitCode != 2 || stderr != "" || strings.Contains(stdout, "canary") {
		t.Errorf("exit code %d, standard error %q\n%s", exitCode, stderr, stdout)
	}
	got, similar := map[string]string{}, map[string]string{}
	for text := range strings.Lines(stdout) {
		var line struct{ Level, Msg, Setting, Error, Similar string }
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("not a line of JSON: %q", text)
		}
		switch {
		case line.Msg == "unknown setting" && line.Level == "WARN":
			similar[line.Setting] = line.Similar
		case line.Msg == "invalid setting" && line.Level == "ERROR" && got[line.Setting] == "":
			got[line.Setting] = line.Error
		default:
			t.Errorf("unexpected line %s", text)
		}
	}
	for setting, text := range want {
		if got[setting] != text {
			t.Errorf("%s has the error %q, want %q", setting, got[setting], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the log names %d invalid settings, want %d", len(got), len(want))
	}
	if len(similar) != 2 || similar["DATABSE_URL"] != "DATABASE_URL" || similar["API_BODY_LIMIT"] != "API_BODY_LIMIT_BYTES" {
		t.Errorf("unknown settings: %v", similar)
	}
	stdout, stderr, exitCode = result(t, []string{"serve"}, append(environ, "CARACAL_MODE=dev"))
	if exitCode != 2 || stderr != "" || strings.Contains(stdout, "{") || strings.Count(stdout, "ERR invalid setting setting=PORT") != 1 {
		t.Errorf("in dev mode: exit code %d, standard error %q\n%s", exitCode, stderr, stdout)
	}
}

// A URL with a password in place of the path of a file is not printed.
func TestMigrateDoesNotPrintAMisplacedURL(t *testing.T) {
	t.Parallel()
	_, stderr, exitCode := result(t, []string{"migrate"}, []string{"CARACAL_MIGRATE_URL_FILE=postgres://owner:canary@db/caracal"})
	if exitCode != 2 || !strings.Contains(stderr, "CARACAL_MIGRATE_URL_FILE: cannot read the file: no such file or directory") || strings.Contains(stderr, "canary") {
		t.Errorf("exit code %d, standard error %q", exitCode, stderr)
	}
}

// keys verify and keys rotate need the database and the keys, and nothing else.
func TestKeysNeedOnlySettingsOfStore(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, command := range []string{"keys verify", "keys rotate"} {
		if stdout, stderr, exitCode := result(t, strings.Fields(command), []string{"DATABASE_URL=" + db.URL(), "ZONE_KEK=" + streamKey, "PORT=x"}); exitCode != 0 || stderr != "" {
			t.Errorf("%s: exit code %d, %q\n%s", command, exitCode, stderr, stdout)
		}
		_, stderr, exitCode := result(t, strings.Fields(command), []string{"DB_POOL_MAX=many"})
		if want := "caracald: invalid setting: DB_POOL_MAX: must be a whole number, not \"many\"\ncaracald: invalid setting: DATABASE_URL: must be set\ncaracald: invalid setting: ZONE_KEK: must be set\n"; exitCode != 2 || stderr != want {
			t.Errorf("%s: exit code %d, %q, want %q", command, exitCode, stderr, want)
		}
	}
}

// A failure to start is one line of the log, and nothing else.
func TestServeFailureIsLoggedOnce(t *testing.T) {
	t.Parallel()
	db := storetest.NewEmpty(t)
	stdout, stderr, exitCode := result(t, []string{"serve"}, settingsOf(db, "redis://"))
	if exitCode != 1 || stderr != "" || strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, `"level":"ERROR","msg":"exiting"`) {
		t.Errorf("exit code %d, standard error %q\n%s", exitCode, stderr, stdout)
	}
}
