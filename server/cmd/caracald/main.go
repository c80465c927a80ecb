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

  caracald dev       serve with a private Postgres and Redis, which it starts
  caracald serve     serve with the Postgres and Redis in the settings
  caracald migrate   migrate the schema, as its owner (CARACAL_MIGRATE_URL)
  caracald keys      rotate encryption keys, or verify that all secrets decrypt
  caracald settings  print the settings as a Markdown table
  caracald load      run a mixed load test on private servers

Run a command with -h for its flags. Settings are environment variables. To read
the value of NAME from a file, set NAME_FILE to its path.
`

func main() {
	// Ctrl-C and SIGTERM shut down gracefully; the second one ends the program.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		fmt.Fprintf(os.Stderr, "caracald: %v\n\n%s", err, usage)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "caracald:", err)
		os.Exit(1)
	}
}

// A usageError means that there is no valid command. It is printed with the usage.
type usageError string

func (e usageError) Error() string { return string(e) }

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return usageError("a command is required")
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
		return usageError(fmt.Sprintf("unknown command %q", args[0]))
	}
	return command(ctx, args[1:], out)
}

// parse parses a command's flags. It fails if there are other arguments.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s: unexpected argument %q", flags.Name(), flags.Arg(0))
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

// logger returns a logger that writes text in dev mode and JSON otherwise.
func logger(c server.Config, out *os.File) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, fmt.Errorf("LOG_LEVEL: %w", err)
	}
	if c.Mode == "dev" {
		info, err := out.Stat()
		noColor := err != nil || info.Mode()&os.ModeCharDevice == 0
		return slog.New(tint.NewTextHandler(out, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: noColor})), nil
	}
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level})).With("service", "api", "worker", c.WorkerID), nil
}
