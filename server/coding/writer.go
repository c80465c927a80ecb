package coding

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"sync"
)

// MinSize is the size up to which a response is not compressed.
const MinSize = 1 << 10

// A writer keeps the status and the start of the body until it knows whether to
// compress the response. [Handler] calls its Close.
type writer struct {
	http.ResponseWriter
	status int // 0: not written yet
	mode   mode
	size   int // of start
	start  [MinSize]byte
	gzip   *gzip.Writer
}

type mode int

const (
	undecided mode = iota // start is not sent yet
	plain
	compressed
)

var writers = sync.Pool{New: func() any { return new(writer) }}

// The fastest level: a response is compressed while the client waits.
var gzips = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		panic(err) // cannot happen: the level is valid
	}
	return w
}}

// newWriter returns a writer for the response to a request that accepts gzip.
func newWriter(w http.ResponseWriter) *writer {
	c := writers.Get().(*writer)
	c.ResponseWriter, c.status, c.mode, c.size = w, 0, undecided, 0
	return c
}

// WriteHeader sets the status. The header is sent once it is known whether the
// response is compressed.
func (w *writer) WriteHeader(status int) {
	switch {
	case status < http.StatusOK: // informational; the response follows
		w.ResponseWriter.WriteHeader(status)
	case w.status != 0:
	case status == http.StatusCreated, status == http.StatusNoContent, status == http.StatusNotModified, w.Header().Get("Content-Encoding") != "",
		strings.Contains(w.Header().Get("Cache-Control"), "no-transform"):
		w.status, w.mode = status, plain
		w.ResponseWriter.WriteHeader(status)
	default:
		w.status = status
	}
}

// Write writes a part of the body.
func (w *writer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.mode == plain:
		return w.ResponseWriter.Write(b)
	case w.mode == compressed:
		return w.gzip.Write(b)
	case w.size+len(b) <= MinSize:
		w.size += copy(w.start[w.size:], b)
		return len(b), nil
	}
	h := w.Header()
	h.Set("Content-Encoding", "gzip")
	h.Del("Content-Length")
	w.ResponseWriter.WriteHeader(w.status)
	w.mode = compressed
	w.gzip = gzips.Get().(*gzip.Writer)
	w.gzip.Reset(w.ResponseWriter)
	if _, err := w.gzip.Write(w.start[:w.size]); err != nil {
		return 0, err
	}
	return w.gzip.Write(b)
}

// FlushError sends what was written so far (see [http.ResponseController.Flush]).
func (w *writer) FlushError() error {
	var err error
	if w.mode == compressed {
		err = w.gzip.Flush()
	} else {
		err = w.sendPlain()
	}
	if err != nil {
		return err
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// sendPlain sends the start of a response, which is then not compressed.
func (w *writer) sendPlain() error {
	if w.mode == plain {
		return nil
	}
	w.mode = plain
	if w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
	}
	if w.size == 0 {
		return nil
	}
	_, err := w.ResponseWriter.Write(w.start[:w.size])
	return err
}

// Unwrap returns the original writer, for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Close sends the rest of the response. The writer must not be used afterwards.
func (w *writer) Close() error {
	var err error
	if w.mode == compressed {
		err = w.gzip.Close()
		w.gzip.Reset(io.Discard) // keeps no reference to the connection
		gzips.Put(w.gzip)
	} else {
		err = w.sendPlain()
	}
	w.ResponseWriter, w.gzip = nil, nil
	writers.Put(w)
	return err
}
