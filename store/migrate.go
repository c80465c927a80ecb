package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib" // goose uses database/sql
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"caracal.run/management/store/migrations"
)

// Migrate applies the pending migrations. The URL must connect as the owner role.
// Concurrent calls wait for each other. Migrate calls applied with the name of
// each migration that it applied, also when a later one fails.
func Migrate(ctx context.Context, url string, applied func(name string)) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return errors.New("migrate: malformed database URL") // pgx's error quotes the URL, which can contain the password
	}
	if pooled, err := detectPooler(ctx, &config.Config); err != nil {
		return fmt.Errorf("migrate: %w", err)
	} else if pooled {
		// Migrations hold a lock of the session, which a pooler can leave behind.
		return errors.New("migrate: the URL must connect to Postgres directly, not to a connection pooler")
	}
	pool := stdlib.OpenDB(*config)
	defer pool.Close()
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, pool, migrations.FS, goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	results, err := provider.Up(ctx)
	for _, r := range results {
		applied(r.Source.Path)
	}
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// CheckSchema returns an error if the schema's version is not the one that this
// program was built with, or if row-level security does not apply to the current
// role. The service role is not allowed to migrate.
func (s *Store) CheckSchema(ctx context.Context) error {
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return err
	}
	want, err := goose.NumericComponent(names[len(names)-1])
	if err != nil {
		return err
	}
	var have int64
	var pg *pgconn.PgError
	// goose owns this table, so sqlc does not know it.
	err = s.pool.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(&have)
	switch {
	case errors.As(err, &pg) && slices.Contains([]string{"42P01", "42501"}, pg.Code): // undefined_table, insufficient_privilege
		return fmt.Errorf("the database has no schema that this role can read; run `caracald migrate` first: %w", err)
	case err != nil:
		return fmt.Errorf("database: %w", err)
	case have < want:
		return fmt.Errorf("schema version %d is older than the required version %d: run `caracald migrate`", have, want)
	case have > want:
		return fmt.Errorf("schema version %d is newer than version %d, which this program requires: run a newer caracald", have, want)
	}
	var role string
	var restricted bool
	err = s.pool.QueryRow(ctx, "SELECT rolname, NOT (rolsuper OR rolbypassrls) FROM pg_roles WHERE rolname = current_user").Scan(&role, &restricted)
	switch {
	case err != nil:
		return fmt.Errorf("database: %w", err)
	case !restricted:
		return fmt.Errorf("row-level security does not apply to the role %s: DATABASE_URL must use a role without SUPERUSER and BYPASSRLS, such as caracal_service", role)
	}
	return nil
}
