package store

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"caracal.run/management/gen/code"
)

// constraintCodes maps a constraint's name to the error code of its violation. If a
// request can violate a constraint that a migration adds, add an entry here.
var constraintCodes = map[string]code.Code{
	"zones_slug_taken":           code.ZoneSlugConflict,
	"providers_identifier_taken": code.ProviderIdentifierConflict,
	"resources_identifier_taken": code.ResourceIdentifierConflict,
	"policies_name_taken":        code.PolicyNameConflict,
	"policy_sets_name_taken":     code.PolicySetNameConflict,
	"idempotency_key_in_use":     code.IdempotencyKeyInUse,

	"idempotency_keys_pkey": code.IdempotencyKeyInUse, // a request with the key was committed since it was looked up
}

// mapError maps a constraint violation to its error code, and an unreachable
// database or a timeout to service_unavailable. It returns any other error
// unchanged.
func mapError(err error) error {
	if err == nil || errors.Is(err, pgx.ErrNoRows) || errors.As(err, new(code.Code)) {
		return err
	}
	var connect *pgconn.ConnectError
	var pg *pgconn.PgError
	var network net.Error
	switch {
	case errors.As(err, &connect):
		return code.ServiceUnavailable.Because(err)
	case errors.As(err, &pg):
		if errCode, ok := constraintCodes[pg.ConstraintName]; ok {
			return errCode.Because(err)
		}
		if pg.Code == notNullViolation && pg.TableName == "sessions" && pg.ColumnName == "id" { // see InsertApplicationSession
			return code.ApplicationNotFound.Because(err)
		}
		if isUnavailable(pg.Code) {
			return code.ServiceUnavailable.Because(err)
		}
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), pgconn.SafeToRetry(err):
		return code.ServiceUnavailable.Because(err)
	}
	return err
}

// Explained returns an error of a method of a transaction as [Store.InTx] would return it:
// with its error code, if it has one.
func Explained(err error) error { return mapError(err) }

const (
	notNullViolation = "23502"
	queryCanceled    = "57014"
)

// isUnavailable reports whether an SQLSTATE describes the state of the server and
// not an error in the statement.
func isUnavailable(sqlstate string) bool {
	return slices.Contains([]string{
		"25006",                // read-only transaction: the server is a standby after a failover
		"25P03",                // idle-in-transaction timeout: this process took long between two statements
		"55P03", queryCanceled, // lock_timeout and statement_timeout
		"57P01", "57P02", "57P03", "57P05", // shutting down, crashed, starting, idle-session timeout
	}, sqlstate) || strings.HasPrefix(sqlstate, "08") || strings.HasPrefix(sqlstate, "53")
}

// isRetryable reports whether a transaction failed because of a deadlock or a
// serialization failure, so that a retry can succeed.
func isRetryable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01")
}

// notFoundAs maps pgx.ErrNoRows to an error code and returns any other error
// unchanged. Use it only for lookups by a value from the request: elsewhere, a
// missing row is a bug.
func notFoundAs(err error, errCode code.Code) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return errCode
	}
	return err
}
