// Package client calls the Caracal Management API. It has one method per
// operation, and depends on the standard library only.
//
//	c, err := client.New("https://caracal.example.com", token)
//	zone, err := c.CreateZone(ctx, client.NewZone{Name: "Production"})
//
// # Authentication
//
// [New] takes an admin token, which every operation below /v1 requires. The
// documentation of each method states whether it requires a global token or one
// of the zone, and which permission. The token is sent to the given base URL
// only: redirects are never followed. It is not part of any error, and is not
// printed with a [Client].
//
// # Results
//
// A method returns the resource that the operation returns, or only an error if
// it returns none. Optional fields of a request are pointers, interfaces or
// slices; nil omits the field. In updates, a [Nullable] field also
// distinguishes null from omitted.
//
// To update or archive an item only if it has not been modified since it was
// read, read its ETag with [ReadETag] and pass it to the write with [IfMatch]:
// if the item was modified, the write returns [CodeVersionConflict] and changes
// nothing.
//
// # Errors
//
// An error response is an [*Error] with the HTTP status, the error code, the
// invalid fields and the id of the request. [Code] returns the code of any
// error:
//
//	if client.Code(err) == client.CodeZoneNotFound {
//
// A response that does not come from the API, such as the login page of a
// proxy, is an [*Error] without a code, whatever its status is.
//
// # Pagination
//
// Every list has two methods. One returns an iterator over all items, which
// requests the pages as needed:
//
//	for app, err := range c.Applications(ctx, zone.ID) {
//
// The other, such as [Client.ListApplications], returns one [Page].
//
// # Retries
//
// Reads are retried up to three times if the network fails or the response is
// 408, 425, 429, 502, 503 or 504. Writes are retried only after 429, when the
// service has not processed the request; after other failures a write may have
// succeeded. Retry-After is honored up to 30 seconds; if it is longer, or ends
// after the deadline of the call, the error is returned immediately and
// [Error.RetryAfter] contains the delay. See [WithRetry] and [WithoutRetry].
//
// A call takes at most 30 seconds in total, retries included; see
// [WithTimeout]. Canceling its context ends a call at once.
//
// # Concurrency
//
// A [Client] is safe for concurrent use and reuses connections. Create one per
// token.
package client
