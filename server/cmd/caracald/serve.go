package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"caracal.run/management/server"
	"caracal.run/management/store"
)

// serve runs the service with the settings of the environment until ctx ends.
func serve(ctx context.Context, args []string, _ io.Writer) error {
	if err := parse(flag.NewFlagSet("serve", flag.ContinueOnError), args); err != nil {
		return err
	}
	config, err := server.LoadConfig(os.Environ())
	if err != nil {
		return err
	}
	log, err := logger(config, os.Stdout)
	if err != nil {
		return err
	}
	slog.SetDefault(log)
	return server.Run(ctx, config, log)
}

// migrate applies the migrations that the database lacks.
func migrate(ctx context.Context, args []string, out io.Writer) error {
	if err := parse(flag.NewFlagSet("migrate", flag.ContinueOnError), args); err != nil {
		return err
	}
	url := os.Getenv("CARACAL_MIGRATE_URL")
	if file := os.Getenv("CARACAL_MIGRATE_URL_FILE"); url == "" && file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("CARACAL_MIGRATE_URL_FILE: %w", err)
		}
		url = strings.TrimSpace(string(text))
	}
	if url == "" {
		return fmt.Errorf("CARACAL_MIGRATE_URL must be set to the URL of the database, with the role that owns the schema")
	}
	applied := 0
	err := store.Migrate(ctx, url, func(name string) {
		applied++
		fmt.Fprintln(out, "applied", name)
	})
	if err == nil && applied == 0 {
		fmt.Fprintln(out, "the schema is up to date")
	}
	return err
}
