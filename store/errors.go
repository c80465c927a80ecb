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

// constraintCodes maps a constraint's name to the code that its breach means. A
// migration that adds such a constraint adds its line here.
var constraintCodes = map[string]code.Code{
	"zones_slug_taken":           code.ZoneSlugConflict,
	"providers_identifier_taken": code.ProviderIdentifierConflict,
	"resources_identifier_taken": code.ResourceIdentifierConflict,
}

// mapError gives a breached constraint its code, and a database that cannot be
// reached or does not get to answer service_unavailable. Anything else stays
// what it is: a fault of ours.
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
		if isUnavailable(pg.Code) {
			return code.ServiceUnavailable.Because(err)
		}
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), pgconn.SafeToRetry(err):
		return code.ServiceUnavailable.Because(err)
	}
	return err
}

// isUnavailable says whether an SQLSTATE speaks of the server and not of the statement.
func isUnavailable(sqlstate string) bool {
	return slices.Contains([]string{
		"25006",          // read-only: a replica that was promoted elsewhere
		"55P03", "57014", // our own time limits, for locks and for statements
		"57P01", "57P02", "57P03", "57P05", // shutting down, crashed, starting
	}, sqlstate) || strings.HasPrefix(sqlstate, "08") || strings.HasPrefix(sqlstate, "53")
}

// isRetryable says whether a transaction that failed so may succeed when it is run
// once more: it met a deadlock or could not be serialized.
func isRetryable(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01")
}

// notFoundAs makes of an absent row the code that the caller gives. Only lookups
// of what a request names say so: elsewhere an absent row is a fault of ours.
func notFoundAs(err error, errCode code.Code) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return errCode
	}
	return err
}
