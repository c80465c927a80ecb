package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"caracal.run/management/server"
	"caracal.run/management/server/provider/authserver"
	"caracal.run/management/store"
	"caracal.run/management/store/private"
)

func devCommand() *cobra.Command {
	var dir string
	var withDemo bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Serve with a private Postgres and Redis, which it starts",
		Long: withSettings(`Starts a Postgres and a Redis that listen on no port, applies the migrations, creates
a bootstrap token, and serves on http://127.0.0.1:3000. It sets DATABASE_URL and
REDIS_URL, and other required settings if they are not set.`, func(s string) bool { return s != "DATABASE_URL" && s != "REDIS_URL" }),
		Example: "  PORT=8080 caracald dev --demo",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return invalidUsage(cmd, "the home directory is unknown: choose a data folder with --dir")
			}
			return dev(cmd.Context(), cmd.OutOrStdout(), dir, withDemo)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", dataHome(), "data `folder`")
	cmd.Flags().BoolVar(&withDemo, "demo", false, "create a demo zone with applications, sessions, agents and active policies, and start a demo authorization server")
	return cmd
}

// openControl creates the file that opens the Control API.
func openControl(gateFile string) error {
	if err := os.MkdirAll(filepath.Dir(gateFile), 0o700); err != nil {
		return err
	}
	return os.WriteFile(gateFile, nil, 0o600)
}

// dev runs the service with a private Postgres and Redis, and keeps their data.
func dev(ctx context.Context, out io.Writer, dir string, withDemo bool) (err error) {
	printStep := stepPrinter(out)
	printStep("data is kept in " + dir)
	servers, err := private.Start(ctx, private.Options{Dir: dir, Log: printStep})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Stop()) }()
	err = store.Migrate(ctx, servers.PostgresURL(private.Owner, "caracal"), func(name string) { printStep("applied migration " + name) })
	if err != nil {
		return err
	}
	tokenFile := filepath.Join(dir, "admin-token")
	token, err := loadOrCreateSecret(tokenFile, "cat_dev_")
	if err != nil {
		return err
	}
	key, err := loadOrCreateSecret(filepath.Join(dir, "streams-hmac-key"), "")
	if err != nil {
		return err
	}
	auditKey, err := loadOrCreateSecret(filepath.Join(dir, "audit-hmac-key"), "")
	if err != nil {
		return err
	}
	kekFile := filepath.Join(dir, "zone-kek")
	if _, err := loadOrCreateSecret(kekFile, ""); err != nil {
		return err
	}
	gateFile := filepath.Join(dir, "control", "enabled")
	if err := openControl(gateFile); err != nil {
		return err
	}
	// Variables of the environment override these, except the URLs of the servers.
	environ := withDefaults(os.Environ(), "CARACAL_MODE=dev", "CARACAL_ADMIN_TOKEN="+token, "STREAMS_HMAC_KEY="+key, "AUDIT_HMAC_KEY="+auditKey, "ZONE_KEK_FILE="+kekFile,
		"CARACAL_CONTROL_ENABLED=true", "CONTROL_GATE_FILE="+gateFile)
	environ = append(environ, "DATABASE_URL="+servers.PostgresURL(private.Service, "caracal"), "REDIS_URL="+servers.RedisURL())
	config, err := server.LoadConfig(environ)
	log := logger(config, os.Stderr)
	logUnknownSettings(log, os.Environ())
	if err != nil {
		return logError(log, err)
	}
	slog.SetDefault(log)
	var login *authserver.Server
	if withDemo {
		if login, err = startDemoLogin(&config); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, login.Close()) }()
	}
	running, err := server.Start(ctx, config, log)
	if err != nil {
		return logError(log, err)
	}
	exportLine := "export CARACAL_ADMIN_TOKEN=$(cat " + tokenFile + ")"
	if config.AdminToken.Reveal() != token {
		exportLine = "# and export CARACAL_ADMIN_TOKEN with the value that you set for this command"
	}
	fmt.Fprintf(out, `
The Management API is at %s, its specification at %s/openapi.yaml. In another terminal:

  export CARACAL_URL=%s
  %s
  export CARACAL_DATA=%s
  curl -H "Authorization: Bearer $CARACAL_ADMIN_TOKEN" $CARACAL_URL/v1/zones

Documentation: %s/docs
Postgres:      psql '%s'
Redis:         redis-cli -s %s
Press Ctrl-C to stop.

`, running.URL, running.URL, running.URL, exportLine, servers.Dir(), running.URL, servers.PostgresURL("postgres", "caracal"), strings.TrimPrefix(servers.RedisURL(), "unix://"))
	if withDemo {
		signingKey, err := server.LoadAuditKey(environ)
		if err != nil {
			return errors.Join(err, running.Stop())
		}
		zone, err := demo{
			url: running.URL, token: config.AdminToken.Reveal(), ownerURL: servers.PostgresURL(private.Owner, "caracal"), redisURL: servers.RedisURL(),
			auditKey: signingKey, file: filepath.Join(dir, "demo-zone"),
		}.seed(ctx, out)
		if err == nil {
			err = seedDemoLogin(ctx, out, running.URL, config.AdminToken.Reveal(), zone, login)
		}
		if err != nil {
			return errors.Join(err, running.Stop())
		}
	}
	return running.Wait(ctx)
}

// withDefaults adds defaults, pairs of a variable and a value, to an environment: those
// of the settings that have no value there, neither in a variable nor in a file.
func withDefaults(environ []string, defaults ...string) []string {
	isSet := map[string]bool{}
	for _, pair := range environ {
		variable, value, _ := strings.Cut(pair, "=")
		isSet[variable] = value != ""
	}
	for _, pair := range defaults {
		variable, _, _ := strings.Cut(pair, "=")
		if name := strings.TrimSuffix(variable, "_FILE"); !isSet[name] && !isSet[name+"_FILE"] {
			environ = append(environ, pair) // after an empty value: the last one counts
		}
	}
	return environ
}

// stepPrinter returns a function that prints a step of the startup.
func stepPrinter(out io.Writer) func(step string) {
	return func(step string) { fmt.Fprintln(out, "·", step) }
}

// dataHome returns the default data folder, or "" if there is none. Postgres cannot run
// as root, so root's data must be in a folder that another user can enter.
func dataHome() string {
	if os.Getuid() == 0 {
		return "/var/lib/caracald"
	}
	if data := os.Getenv("XDG_DATA_HOME"); data != "" {
		return filepath.Join(data, "caracald")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "share", "caracald")
}

// loadOrCreateSecret returns the secret in a file. If there is no file, it writes
// one with a random secret of 64 hexadecimal digits after the prefix.
func loadOrCreateSecret(file, prefix string) (string, error) {
	text, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand)
	secret := prefix + hex.EncodeToString(random[:])
	return secret, os.WriteFile(file, []byte(secret+"\n"), 0o600)
}
