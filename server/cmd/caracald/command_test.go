package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

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
		{"", "a command is required"},
		{"nix", `unknown command "nix"`},
		{"serve now", `serve: unexpected argument "now"`},
		{"serve -x", "serve: flag provided but not defined: -x"},
		{"dev -dir", "dev: flag needs an argument: -dir"},
		{"load -for soon", `load: invalid value "soon" for flag -for`},
		{"keys", `keys: the subcommand must be rotate or verify, not ""`},
		{"keys verify -x", "keys verify: flag provided but not defined: -x"},
		{"completion tcsh", `completion: the subcommand must be bash or zsh or fish, not "tcsh"`},
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

// The help of each command has its description, its flags, its settings and an example.
func TestHelpOfEachCommand(t *testing.T) {
	t.Parallel()
	stdout, _, _ := result(t, []string{"-h"}, nil)
	for _, c := range commands() {
		if !strings.Contains(stdout, "caracald "+c.name) || !strings.Contains(stdout, c.summary) {
			t.Errorf("the usage does not contain %s", c.name)
		}
	}
	if !strings.Contains(stdout, "Exit codes: 0 ") {
		t.Error("the usage does not contain the exit codes")
	}
	has := map[string][]string{
		"dev": {"-demo", "-dir", "PORT"}, "serve": {"DATABASE_URL", "REDIS_URL", "(default 3000)"}, "migrate": {"CARACAL_MIGRATE_URL"},
		"keys rotate": {"-replace-older", "ZONE_KEK", "DB_POOL_MAX"}, "keys verify": {"ZONE_KEK"}, "load": {"-for", "-callers"},
	}
	lacks := map[string]string{"dev": "\n  DATABASE_URL\n", "keys rotate": "REDIS_URL", "keys verify": "STREAMS_HMAC_KEY", "load": "Settings:", "serve": "Flags:"}
	for _, c := range commands() {
		stdout, stderr, exitCode := result(t, append(strings.Fields(c.name), "-h"), nil)
		if exitCode != 0 || stderr != "" {
			t.Errorf("%s: exit code %d, %q", c.name, exitCode, stderr)
		}
		for _, text := range append([]string{c.description, c.example, "Example:"}, has[c.name]...) {
			if !strings.Contains(stdout, text) {
				t.Errorf("%s: the help does not contain %q", c.name, text)
			}
		}
		if lacks[c.name] != "" && strings.Contains(stdout, lacks[c.name]) {
			t.Errorf("%s: the help contains %q", c.name, lacks[c.name])
		}
	}
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

func TestBashCompletion(t *testing.T) {
	t.Parallel()
	script, _, _ := result(t, []string{"completion", "bash"}, nil)
	for _, tt := range []struct {
		line string // the last word is completed
		want []string
	}{
		{"caracald se", []string{"serve", "settings"}},
		{"caracald keys ", []string{"rotate", "verify"}},
		{"caracald keys rotate -", []string{"-h", "-replace-older"}},
		{"caracald keys verify -", []string{"-h"}},
		{"caracald dev -", []string{"-demo", "-dir", "-h"}},
		{"caracald dev -demo -di", []string{"-dir"}},
		{"caracald completion ", []string{"bash", "fish", "zsh"}},
		{"caracald nix ", nil},
	} {
		words := strings.Split(tt.line, " ")
		run := exec.Command("bash", "-c", script+"\nCOMP_WORDS=(\"$@\"); COMP_CWORD=$(($#-1)); _caracald; printf '%s\\n' \"${COMPREPLY[@]}\"", "bash")
		run.Args = append(run.Args, words...)
		out, err := run.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", tt.line, err, out)
		}
		if got := strings.Fields(string(out)); !slices.Equal(slices.Sorted(slices.Values(got)), tt.want) {
			t.Errorf("%q is completed with %v, want %v", tt.line, got, tt.want)
		}
	}
	for shell, want := range map[string]string{"zsh": "bashcompinit", "fish": "-o replace-older"} {
		if stdout, _, _ := result(t, []string{"completion", shell}, nil); !strings.Contains(stdout, want) {
			t.Errorf("the script for %s does not contain %q", shell, want)
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
