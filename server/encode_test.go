package server

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
)

// BenchmarkEncodePage encodes a page of 50 applications: from the rows by code
// written by hand, which is as fast as it gets, from the types of the API by the
// generated encoder, and by encoding/json.
func BenchmarkEncodePage(b *testing.B) {
	rows := make([]db.ListApplicationsRow, 50)
	for i := range rows {
		rows[i] = db.ListApplicationsRow{
			ID: fmt.Sprintf("0198c0de-0000-7000-8000-%012d", i), ZoneID: "0198c0de-0000-7000-8000-00000000000a",
			Name: fmt.Sprintf("Application %d", i), RegistrationMethod: "managed", Traits: []string{"team:payments"},
			CreatedAt: time.UnixMicro(1.8e15 + int64(i)),
		}
	}
	translate := func() []api.Application {
		items := make([]api.Application, len(rows))
		for i := range rows {
			items[i] = toListedApplication(&rows[i], true)
		}
		return items
	}
	items := translate()
	buffer := make([]byte, 0, 64<<10)
	for _, way := range []struct {
		name   string
		encode func()
	}{
		{"by hand from rows", func() { appendList(buffer, rows, appendApplicationByHand) }},
		{"generated from API types", func() { appendList(buffer, items, api.Application.AppendJSON) }},
		{"generated from rows", func() { appendList(buffer, translate(), api.Application.AppendJSON) }},
		{"encoding_json from API types", func() { _, _ = json.Marshal(items) }},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				way.encode()
			}
		})
	}
}

func appendList[T any](b []byte, items []T, one func(T, []byte) []byte) []byte {
	b = append(b, '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(item, b)
	}
	return append(b, ']')
}

func appendApplicationByHand(a db.ListApplicationsRow, b []byte) []byte {
	b = append(b, `{"id":`...)
	b = appendStringByHand(b, a.ID)
	b = append(b, `,"zone_id":`...)
	b = appendStringByHand(b, a.ZoneID)
	b = append(b, `,"name":`...)
	b = appendStringByHand(b, a.Name)
	b = append(b, `,"registration_method":`...)
	b = appendStringByHand(b, a.RegistrationMethod)
	b = append(b, `,"traits":[`...)
	for i, trait := range a.Traits {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendStringByHand(b, trait)
	}
	b = append(b, `],"expires_at":`...)
	if a.ExpiresAt == nil {
		b = append(b, "null"...)
	} else {
		b = appendTimeByHand(b, *a.ExpiresAt)
	}
	b = append(b, `,"created_at":`...)
	return append(appendTimeByHand(b, a.CreatedAt), '}')
}

func appendStringByHand(b []byte, s string) []byte {
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

func appendTimeByHand(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	return append(b, '"')
}
