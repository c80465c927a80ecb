// Command caracald is the Caracal Management API.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/lmittmann/tint"

	"caracal.run/management/server"
)

const usage = `caracald is the Caracal Management API.

  caracald dev       serve on a private Postgres and Redis that it starts itself
  caracald serve     serve on the Postgres and Redis that the settings name
  caracald migrate   bring the schema up to date, as its owner (CARACAL_MIGRATE_URL)
  caracald keys      rotate the keys that seal secrets, or verify that all secrets open
  caracald settings  list the settings, as a Markdown table
  caracald load      drive a mixed load against a service of its own

Each takes -h. Settings are environment variables; NAME_FILE names a file
instead.
`

func main() {
	// Ctrl-C and SIGTERM ask for an orderly end; a second one insists.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "caracald: %v\n\n%s", err, usage)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "caracald:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("no such command")

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: say what to do", errUsage)
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		_, err := io.WriteString(out, usage)
		return err
	}
	commands := map[string]func(context.Context, []string, io.Writer) error{
		"dev": dev, "serve": serve, "migrate": migrate, "keys": keys, "settings": settings, "load": load,
	}
	command, known := commands[args[0]]
	if !known {
		return fmt.Errorf("%w: %s", errUsage, args[0])
	}
	return command(ctx, args[1:], out)
}

// parse reads a command's flags; it takes nothing else.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s: what is %q?", flags.Name(), flags.Arg(0))
	}
	return nil
}

func settings(_ context.Context, args []string, out io.Writer) error {
	if err := parse(flag.NewFlagSet("settings", flag.ContinueOnError), args); err != nil {
		return err
	}
	_, err := io.WriteString(out, server.SettingsTable())
	return err
}

// logger writes lines for people in dev mode, and JSON otherwise.
func logger(c server.Config, out *os.File) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, fmt.Errorf("LOG_LEVEL: %w", err)
	}
	if c.Mode == "dev" {
		info, err := out.Stat()
		plain := err != nil || info.Mode()&os.ModeCharDevice == 0
		return slog.New(tint.NewTextHandler(out, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: plain})), nil
	}
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level})).With("service", "api", "worker", c.WorkerID), nil
}
