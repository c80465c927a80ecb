// Package jsonresponse writes JSON responses. The generated code in gen/api uses it:
// an encoder appends a value of the spec to a buffer, and a response sends the
// buffer in one write.
package jsonresponse

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
)

// An Encoder appends its JSON form to b and returns the extended buffer.
type Encoder interface{ AppendJSON(b []byte) []byte }

// Buffers are reused. One that a response has made larger than maxPooledSize is not,
// so that the garbage collector can free it.
const maxPooledSize = 256 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// Write sends body with the given status. It returns an error if the client
// has disconnected.
func Write[T Encoder](w http.ResponseWriter, status int, body T) error {
	buffer := buffers.Get().(*[]byte)
	*buffer = body.AppendJSON((*buffer)[:0])
	return send(w, status, buffer)
}

// A Buffer is a body that is encoded already.
type Buffer struct{ bytes *[]byte }

// NewBuffer returns the body that a function appends to a buffer.
func NewBuffer(appendBody func([]byte) []byte) Buffer {
	b := buffers.Get().(*[]byte)
	*b = appendBody((*b)[:0])
	return Buffer{b}
}

// Send sends the body, once, with the given status. It returns an error if the client has
// disconnected.
func (b Buffer) Send(w http.ResponseWriter, status int) error { return send(w, status, b.bytes) }

// WriteList sends items as an array, with the given status. It returns an error
// if the client has disconnected.
func WriteList[T Encoder](w http.ResponseWriter, status int, items []T) error {
	buffer := buffers.Get().(*[]byte)
	b := append((*buffer)[:0], '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = item.AppendJSON(b)
	}
	*buffer = append(b, ']')
	return send(w, status, buffer)
}

// WriteAny sends body, which has no encoder of its own, with the given status.
// It returns an error if body cannot be encoded or the client has disconnected.
func WriteAny(w http.ResponseWriter, status int, body any) error {
	b, err := Marshal(body)
	if err != nil {
		return err
	}
	return send(w, status, &b)
}

// Marshal is like [json.Marshal], but escapes the same characters as [AppendString].
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes()[:b.Len()-1], nil // without the line feed
}

// maxBuffered is the size up to which net/http buffers a response and then sets
// its Content-Length.
const maxBuffered = 2 << 10

// send writes the buffer's content, followed by a line feed, and returns the
// buffer to the pool. It sets Content-Length only if net/http does not, because
// each header costs several allocations.
func send(w http.ResponseWriter, status int, buffer *[]byte) error {
	b := append(*buffer, '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if len(b) > maxBuffered {
		h.Set("Content-Length", strconv.Itoa(len(b)))
	}
	w.WriteHeader(status)
	_, err := w.Write(b)
	if cap(b) <= maxPooledSize {
		*buffer = b
		buffers.Put(buffer)
	}
	return err
}
