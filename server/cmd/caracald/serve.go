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
func serve(*flag.FlagSet) func(context.Context, io.Writer) error {
	return func(ctx context.Context, _ io.Writer) error {
		config, err := server.LoadConfig(os.Environ())
		log := logger(config, os.Stdout)
		logUnknownSettings(log, os.Environ())
		if err != nil {
			return logError(log, err)
		}
		slog.SetDefault(log)
		return logError(log, server.Run(ctx, config, log))
	}
}

// migrate applies the migrations that the database lacks.
func migrate(*flag.FlagSet) func(context.Context, io.Writer) error { return runMigrate }

func runMigrate(ctx context.Context, out io.Writer) error {
	url := os.Getenv("CARACAL_MIGRATE_URL")
	if file := os.Getenv("CARACAL_MIGRATE_URL_FILE"); url == "" && file != "" {
		text, err := server.ReadSettingFile(file)
		if err != nil {
			return server.ConfigErrors{{Setting: "CARACAL_MIGRATE_URL_FILE", Problem: err.Error()}}
		}
		url = strings.TrimSpace(text)
	}
	if url == "" {
		return server.ConfigErrors{{Setting: "CARACAL_MIGRATE_URL", Problem: "must be set to the URL of the database, with the role that owns the schema"}}
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
