// Command caracald is the Caracal Management API.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/lmittmann/tint"

	"caracal.run/management/gen/client"
	"caracal.run/management/server"
)

// Exit codes, which the usage and the guides document.
const (
	exitFailed  = 1
	exitInvalid = 2
	exitDrift   = 2 // of verify, all of whose other errors are exitFailed
)

func main() {
	// Ctrl-C and SIGTERM shut down gracefully; the second one ends the program.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := newRoot(os.Getenv).ExecuteContext(ctx)
	printError(os.Stderr, err)
	os.Exit(exitCode(err))
}

// printError prints an error, unless it is in the log already.
func printError(out io.Writer, err error) {
	var settings server.ConfigErrors
	switch {
	case err == nil, errors.As(err, new(loggedError)), errors.Is(err, errDrift): // the output shows it
	case errors.As(err, &settings):
		for _, e := range settings {
			fmt.Fprintln(out, "caracald: invalid setting:", e)
		}
	case client.Code(err) != "":
		printAPIError(out, err)
	default:
		fmt.Fprintln(out, "caracald:", err)
	}
}

func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errDrift):
		return exitDrift
	case errors.As(err, new(verifyError)):
		return exitFailed
	case errors.As(err, new(usageError)), errors.As(err, new(server.ConfigErrors)):
		return exitInvalid
	}
	return exitFailed
}

// A loggedError is an error that is in the log already.
type loggedError struct{ error }

func (e loggedError) Unwrap() error { return e.error }

// logger returns a logger that writes text in dev mode and JSON otherwise.
func logger(c server.Config, out *os.File) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // an invalid level is among the errors of LoadConfig
	if c.Mode == "dev" {
		info, err := out.Stat()
		noColor := err != nil || info.Mode()&os.ModeCharDevice == 0
		return slog.New(tint.NewTextHandler(out, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: noColor}))
	}
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level})).With("service", "api", "worker", c.WorkerID)
}

// logError logs an error that prevents or ends serving; invalid settings one by one.
func logError(log *slog.Logger, err error) error {
	var settings server.ConfigErrors
	switch {
	case err == nil:
		return nil
	case errors.As(err, &settings):
		for _, e := range settings {
			log.Error("invalid setting", "setting", e.Setting, "error", e)
		}
	default:
		log.Error("exiting", "error", err)
	}
	return loggedError{err}
}

// logUnknownSettings warns about variables of the environment that are probably
// misspelled settings.
func logUnknownSettings(log *slog.Logger, environ []string) {
	for _, unknown := range server.UnknownSettings(environ) {
		if unknown[1] == "" {
			log.Warn("unknown setting", "setting", unknown[0])
		} else {
			log.Warn("unknown setting", "setting", unknown[0], "similar", unknown[1])
		}
	}
}
