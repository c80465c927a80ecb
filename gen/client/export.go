package client

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// An Export is an open export of a list: a stream of CSV, or of one JSON object per
// line. The caller must close it. Read it to the end, for example with [io.Copy]: only
// there does it prove that it is complete.
//
//	export, err := c.ExportSessions(ctx, zone.ID, client.ListFormatCSV)
//	if err != nil {
//		return err
//	}
//	defer export.Close()
//	_, err = io.Copy(file, export)
//
// The client's timeout limits the time until an export begins. After that, only the
// context limits its duration, and the Timeout of the [http.Client], if it has one.
type Export struct {
	response *response
	trailer  func() http.Header // complete at the end of the body
	body     io.Reader          // without its content coding
	close    func()
	hash     hash.Hash
	rows     int64
	err      error // of the last Read
}

// ErrNoTrailer is the error of reading an [Export] to an end that does not prove that it
// is complete: a proxy has removed the trailer.
var ErrNoTrailer = errors.New("the export has no trailer to compare it with")

// Read reads the next part. At the end, it returns [io.EOF] if the export is complete and
// unchanged: if it has the SHA-256 that the service computed. Otherwise, it returns
// another error.
func (e *Export) Read(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	n, err := e.body.Read(p)
	_, _ = e.hash.Write(p[:n]) // never fails (hash.Hash)
	switch {
	case err == io.EOF:
		e.err = e.verify()
	case err != nil:
		e.err = e.response.fail("the export was interrupted", err)
	}
	return n, e.err
}

// verify compares the export with its trailer. It returns io.EOF if they agree.
func (e *Export) verify() error {
	trailer := e.trailer()
	rows, err := strconv.ParseInt(trailer.Get("X-Export-Rows"), 10, 64)
	switch sum := trailer.Get("X-Export-SHA256"); {
	case sum == "" || err != nil:
		return e.response.fail("the export may be incomplete", ErrNoTrailer)
	case !strings.EqualFold(sum, hex.EncodeToString(e.hash.Sum(nil))):
		return e.response.fail("the export was changed on its way", nil)
	}
	e.rows = rows
	return io.EOF
}

// Rows returns the number of rows once Read has returned [io.EOF], and 0 before.
func (e *Export) Rows() int64 { return e.rows }

// Close ends the export, wherever it is. It returns nil.
func (e *Export) Close() error {
	e.close()
	if e.err == nil {
		e.err = errors.New("the export is closed")
	}
	return nil
}

// openExport performs an operation that exports a list.
func openExport(parent context.Context, c *Client, r request, format ListFormat, opts []ListOption) (*Export, error) {
	mediaType, known := map[ListFormat]string{ListFormatCSV: "text/csv", ListFormatNDJSON: "application/x-ndjson"}[format]
	if !known {
		return nil, fmt.Errorf("%s: an export has the format csv or ndjson, not %q", r.operation, format)
	}
	r.accept, r.query = mediaType, map[string]any{"format": format}
	var export *Export
	_, err := c.retrying(parent, r, apply(opts), func(ctx context.Context, call *call) (resp *response, err error) {
		export, resp, err = c.attemptExport(ctx, parent, call)
		return resp, err
	})
	return export, err
}

// attemptExport sends a request once. Like [Client.attempt], it returns an error for any
// response except an export.
func (c *Client) attemptExport(ctx, parent context.Context, call *call) (*Export, *response, error) {
	s, r, err := c.attemptStream(ctx, parent, call)
	if err != nil {
		return nil, r, err
	}
	return &Export{response: r, body: s.body, close: s.close, hash: sha256.New(), trailer: s.trailer}, r, nil
}

// A stream is a success response whose body is not read yet.
type stream struct {
	body    io.Reader // without its content coding
	trailer func() http.Header
	close   func()
}

// attemptStream sends a request once. It returns a stream, whose context is the parent of
// the context of the attempt, or like [Client.attempt] an error.
func (c *Client) attemptStream(ctx, parent context.Context, call *call) (stream, *response, error) {
	streaming, cancel := context.WithCancel(parent)
	begun := context.AfterFunc(ctx, cancel) // unless the response begins before
	resp, err := c.roundTrip(streaming, call)
	if err != nil {
		cancel()
		return stream{}, nil, withContext(ctx, err)
	}
	s := stream{body: resp.Body, trailer: func() http.Header { return resp.Trailer }, close: func() { cancel(); _ = resp.Body.Close() }}
	r := &response{call: call, status: resp.StatusCode, header: resp.Header}
	if !r.isDeclared() {
		defer s.close()
		r.receive(ctx, resp.Body)
		return stream{}, r, r.check()
	}
	if !begun() {
		s.close()
		return stream{}, nil, withContext(ctx, ctx.Err())
	}
	switch encoding := strings.ToLower(r.header.Get("Content-Encoding")); encoding { // what the transport has not decompressed
	case "", "identity":
	case "gzip", "x-gzip":
		decoder, err := gzip.NewReader(resp.Body)
		if err != nil {
			s.close()
			return stream{}, r, r.fail("the body could not be read", withContext(parent, err))
		}
		s.body = decoder
	default:
		s.close()
		return stream{}, r, r.fail("the body could not be read", encodingError(encoding))
	}
	return s, r, nil
}
