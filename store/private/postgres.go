//go:build linux

package private

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

const (
	minPostgresVersion = 15
	superuser          = "postgres"
)

// findPostgres returns the folder of the newest Postgres programs of the machine.
// If f has a cluster, it returns those of the cluster's major version: no other
// version can read its files.
func findPostgres(m machine, f *folder) (string, error) {
	major := 0
	if text, err := os.ReadFile(f.path("postgres/PG_VERSION")); err == nil {
		major, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	dir := m.postgres(major)
	if dir == "" {
		return "", fmt.Errorf("the data in %s requires Postgres %d, which is not installed: "+
			"run `apt-get install postgresql-%[2]d` as root, or remove the folder to start with an empty database", f.dir, major)
	}
	return dir, nil
}

// createCluster creates the cluster if there is none. It renames the folder when
// initdb is done, so that an existing cluster is always complete.
func createCluster(ctx context.Context, f *folder, programs string, log func(string)) error {
	data, fresh := f.path("postgres"), f.path("postgres.new")
	if _, err := os.Stat(data); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log("creating a Postgres cluster…")
	if err := f.mkdirOwned(fresh); err != nil {
		return err
	}
	argv := []string{filepath.Join(programs, "initdb"), "-D", fresh, "-U", superuser, "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions"}
	if f.ephemeral {
		argv = append(argv, "--no-sync")
	}
	cmd := f.command(ctx, fresh, syscall.SIGKILL, argv...)
	runtime.LockOSThread() // see Process.launch
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("creating a Postgres cluster: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("creating a Postgres cluster: %s%w", out, f.explain(err))
	}
	return os.Rename(fresh, data)
}

// removeStalePid removes the postmaster.pid of a killed Postgres if its pid now
// belongs to another program, as happens after the restart of a container.
// Otherwise Postgres mistakes that program for a running server and does not
// start.
func removeStalePid(f *folder) error {
	file := f.path("postgres/postmaster.pid")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, _, _ := strings.Cut(string(text), "\n")
	if name, _ := os.ReadFile("/proc/" + pid + "/comm"); string(name) == "postgres\n" {
		return nil
	}
	return os.Remove(file)
}

// newPostgres returns the process of the Postgres in f, not started yet.
func newPostgres(f *folder, programs string) *Process {
	argv := []string{filepath.Join(programs, "postgres"), "-D", f.path("postgres"),
		"-c", "listen_addresses=", "-c", "port=5432", "-c", "unix_socket_directories=" + f.sockets}
	if f.ephemeral {
		argv = append(argv, "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off",
			"-c", "max_connections=1000", "-c", "shared_buffers=128MB")
	}
	return &Process{
		name: "Postgres", argv: argv, folder: f, dir: f.path("postgres"), log: f.path("postgres.log"),
		quit: syscall.SIGINT, // "fast" shutdown: SIGTERM waits for clients to disconnect
		ping: func(ctx context.Context) error {
			return asSuperuser(ctx, f, func(*pgx.Conn) error { return nil })
		},
	}
}

// createDatabase creates the roles and the database that do not exist: all of
// them in a new cluster, some after an interrupted first start.
func createDatabase(ctx context.Context, f *folder, log func(string)) error {
	objects := []struct{ step, query, statement string }{
		{"creating the role " + Owner, "SELECT FROM pg_roles WHERE rolname = '" + Owner + "'", "CREATE ROLE " + Owner + " LOGIN CREATEDB CREATEROLE"},
		{"creating the role " + Service, "SELECT FROM pg_roles WHERE rolname = '" + Service + "'", "CREATE ROLE " + Service + " LOGIN"},
		{"creating the database caracal", "SELECT FROM pg_database WHERE datname = 'caracal'", "CREATE DATABASE caracal OWNER " + Owner},
	}
	return asSuperuser(ctx, f, func(conn *pgx.Conn) error {
		for _, o := range objects {
			found, err := conn.Exec(ctx, o.query)
			if err == nil && found.RowsAffected() == 0 {
				log(o.step + "…")
				_, err = conn.Exec(ctx, o.statement)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", o.step, err)
			}
		}
		return nil
	})
}

// asSuperuser calls do with a connection of the superuser.
func asSuperuser(ctx context.Context, f *folder, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, postgresURL(f, superuser, "postgres"))
	if err != nil {
		return err
	}
	return errors.Join(do(conn), conn.Close(ctx))
}

func postgresURL(f *folder, role, database string) string {
	// The port is a part of the socket's name. Set here, PGPORT cannot change it.
	query := url.Values{"host": {f.sockets}, "port": {"5432"}, "user": {role}}
	return (&url.URL{Scheme: "postgres", Path: "/" + database, RawQuery: query.Encode()}).String()
}
