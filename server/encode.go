package server

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"caracal.run/management/server/timestamp"
)

// writePage answers a page of a list, whose rows one appends to the other.
func writePage[Row any](w http.ResponseWriter, link *string, rows []Row, one func([]byte, Row) []byte) error {
	const usualRow = 320
	b := make([]byte, 0, usualRow*len(rows)+len("[]\n"))
	b = append(b, '[')
	for i, row := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, row)
	}
	b = append(b, ']', '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	if link != nil {
		h.Set("Link", *link)
	}
	_, err := w.Write(b)
	return err
}

// appendString appends a JSON string. What is not plain ASCII goes the long way.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			long, err := json.Marshal(s)
			if err != nil {
				panic(err) // every string has a JSON form
			}
			return append(b, long...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b, _ = timestamp.Time(t).AppendText(b) // never fails
	return append(b, '"')
}

func appendOptionalTime(b []byte, t *time.Time) []byte {
	if t == nil {
		return append(b, "null"...)
	}
	return appendTime(b, *t)
}

func appendOptionalString(b []byte, s *string) []byte {
	if s == nil {
		return append(b, "null"...)
	}
	return appendString(b, *s)
}

func appendStrings(b []byte, all []string) []byte {
	b = append(b, '[')
	for i, s := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}
