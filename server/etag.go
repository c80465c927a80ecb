package server

import (
	"context"

	"caracal.run/management/server/middleware"
	"caracal.run/management/store"
)

// etag returns a row's version as an entity tag (RFC 9110, section 8.8.3).
func etag(version int64) string { return middleware.ETag(version) }

// precondition returns the versions that the If-Match header of the request accepts.
func precondition(ctx context.Context) store.Precondition {
	return middleware.RequestInfoFrom(ctx).Precondition
}
