package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"caracal.run/management/server"
	"caracal.run/management/store"
)

func serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve with the Postgres and Redis in the settings",
		Long: withSettings(`Serves until it receives SIGTERM or Ctrl-C, and then completes the accepted requests.
The schema must be migrated. It writes its log to the standard output: as JSON, or as
text in dev mode.`, allSettings),
		Example: `  DATABASE_URL=postgres://caracal_service:…@db/caracal REDIS_URL=redis://redis \
    ZONE_KEK_FILE=zone-kek STREAMS_HMAC_KEY_FILE=streams-hmac-key caracald serve`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context()) },
	}
}

// serve runs the service with the settings of the environment until ctx ends.
func serve(ctx context.Context) error {
	config, err := server.LoadConfig(os.Environ())
	log := logger(config, os.Stdout)
	logUnknownSettings(log, os.Environ())
	if err != nil {
		return logError(log, err)
	}
	slog.SetDefault(log)
	return logError(log, server.Run(ctx, config, log))
}

func migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Migrate the schema, as its owner",
		Long: `Applies the migrations that the database lacks. Several can run at the same time.

Settings:
  CARACAL_MIGRATE_URL
        Postgres connection URL with the role that owns the schema; required`,
		Example: "  CARACAL_MIGRATE_URL=postgres://caracal_owner:…@db/caracal caracald migrate",
		Args:    arguments(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return migrate(cmd.Context(), cmd.OutOrStdout()) },
	}
}

// migrate applies the migrations that the database lacks.
func migrate(ctx context.Context, out io.Writer) error {
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
