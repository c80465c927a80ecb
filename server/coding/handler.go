package coding

import "net/http"

// Handler returns a handler that compresses the responses of another one if they
// exceed [MinSize] and the request accepts gzip. It does not compress a response
//   - that has a Content-Encoding or no body,
//   - with status 201 (Created): it may contain a secret that was generated in this
//     request, and the length of a compressed response says something about its
//     content (as in the attack BREACH),
//   - with Cache-Control: no-transform (RFC 9111, section 5.2.2.6), for the same reason,
//   - that is flushed before it exceeds MinSize, such as a stream of events.
//
// It does not change the ETag, because that is the version of an object for If-Match,
// whatever the content coding. Responses are not cached, and there are no requests
// for a range, so no client combines parts of different codings.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !AcceptsGzip(r.Header) {
			next.ServeHTTP(w, r)
			return
		}
		// Not deferred: after a panic, net/http closes the connection.
		cw := newWriter(w)
		next.ServeHTTP(cw, r)
		_ = cw.Close() // fails only if the client has disconnected
	})
}
