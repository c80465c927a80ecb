// Package client calls the Caracal Management API. It has one method per
// operation, and depends on the standard library only.
//
//	c, err := client.New("https://caracal.example.com", token)
//	zone, err := c.CreateZone(ctx, client.NewZone{Name: "Production"})
//
// # Authentication
//
// [New] takes an admin token, which every operation below /v1 requires. The
// documentation of each method states whether the token must be global or can
// belong to the zone, and which permission it needs. The client sends the token to
// the base URL only and never follows redirects. No error contains the token, and
// printing a [Client] does not show it.
//
// # Results
//
// A method returns the body of the response, or only an error if the response has
// no body. Optional fields of a request are pointers, interfaces or slices; nil
// omits the field. In updates, a [Nullable] field also distinguishes null from
// omitted.
//
// Texts are sent as they are: a call with one that is not valid UTF-8 returns an error
// and sends no request.
//
// To update or archive an object only if it has not been modified since it was
// read, get its ETag with [ReadETag] and pass it to the write with [IfMatch]. If
// the object was modified, the write returns [CodeVersionConflict] and changes
// nothing.
//
// [RequestJSON] and [ResponseJSON] send and receive JSON texts in place of values of these
// types.
//
// # Errors
//
// An error response is returned as an [*Error] with the HTTP status, the error
// code, the invalid fields and the request ID. [Code] returns the code of any error:
//
//	if client.Code(err) == client.CodeZoneNotFound {
//
// Compare the code rather than the status, which any server can return.
//
// A call succeeds only if the response has the status and the content type that the
// API declares, and a body that is complete and has the expected form. Any other
// response is returned as an [*Error] without a code: the login page of a proxy, even
// if its status is 200, a redirect, the error page of a gateway, or a body that ends
// early. Its [Error.Body] contains the beginning of the response. If its status is a
// success, a write may have succeeded.
//
// Any other error means that there was no response, or that an argument is invalid.
// Then it wraps the cause, such as [context.DeadlineExceeded], and, if an earlier
// attempt received a response, the [*Error] of that response.
//
// The text of an error is one printable line of limited length, which contains
// neither the token nor a secret that the API has returned.
//
// # Pagination
//
// Every list has two methods. One returns an iterator over all items, which
// requests pages as needed:
//
//	for app, err := range c.Applications(ctx, zone.ID) {
//
// The other, such as [Client.ListApplications], returns one [Page].
//
// # Exports
//
// A list with an export has a third method, such as [Client.ExportSessions], which
// returns all items as a stream of CSV or of one JSON object per line: as they were at
// one moment, however many there are. See [Export].
//
// # Retries
//
// The client retries reads up to three times after a network error or a response
// with the status 408, 425, 429, 502, 503 or 504. It retries POST and PATCH requests
// in the same way: it sends each with an Idempotency-Key, by which the service
// recognizes a request that it has processed, and returns the response again (see
// [IdempotencyKey]). It retries other writes only after 429, because the service has
// not processed the request then: DELETE and PUT, and operations whose description says
// that they take no key. A version of the service without support for keys ignores them,
// and can process a repeated request twice: upgrade every replica of the service before
// this package. The client does not retry what cannot succeed, such as a
// connection to a server with an untrusted certificate. It waits as long as the
// Retry-After header requires, in seconds or until a date. If that is more than 30
// seconds, or would exceed the deadline of the call, the call returns the error
// immediately, with the delay in [Error.RetryAfter]. See [WithRetry] and
// [WithoutRetry].
//
// A call takes at most 30 seconds in total, including retries; see [WithTimeout]. If
// its context is canceled, a call returns immediately.
//
// # Concurrency
//
// A [Client] is safe for concurrent use and reuses connections. Create one per
// token.
package client
