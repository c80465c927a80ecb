package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib" // goose speaks database/sql
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"caracal.run/management/store/migrations"
)

// Migrate brings the schema up to what this program needs, in the owner's role.
// Replicas that start together wait for each other; one does the work. It calls
// step for each migration that it applied.
func Migrate(ctx context.Context, url string, step func(name string)) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return errors.New("migrate: the database URL cannot be read") // pgx quotes it, and with it perhaps the password
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
		step(r.Source.Path)
	}
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// CheckSchema refuses a schema that is not the one this program was built with.
// The service never migrates: it has no right to.
func (s *Store) CheckSchema(ctx context.Context) error {
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return err
	}
	wanted, err := goose.NumericComponent(names[len(names)-1])
	if err != nil {
		return err
	}
	var have int64
	var refused *pgconn.PgError
	// goose owns this table, so sqlc does not know it.
	err = s.pool.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(&have)
	switch {
	case errors.As(err, &refused) && slices.Contains([]string{"42P01", "42501"}, refused.Code):
		return fmt.Errorf("the database has no schema that this role can read; run `caracald migrate` first: %w", err)
	case err != nil:
		return fmt.Errorf("database: %w", err)
	case have < wanted:
		return fmt.Errorf("the schema is at version %d and this program wants %d: run `caracald migrate`", have, wanted)
	case have > wanted:
		return fmt.Errorf("the schema is at version %d and this program knows only %d: run a newer caracald", have, wanted)
	}
	var role string
	var bound bool
	err = s.pool.QueryRow(ctx, "SELECT rolname, NOT (rolsuper OR rolbypassrls) FROM pg_roles WHERE rolname = current_user").Scan(&role, &bound)
	switch {
	case err != nil:
		return fmt.Errorf("database: %w", err)
	case !bound:
		return fmt.Errorf("row-level security does not bind the role %s: DATABASE_URL must name one that is no superuser, such as caracal_service", role)
	}
	return nil
}
