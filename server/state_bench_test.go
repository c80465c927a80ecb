package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// benchmarkDocument is a document of 1,000 objects of all kinds: 100 applications, 100
// providers, 300 resources, 100 policies, a policy set and 399 grants. The suffix is a part
// of every name, and traits those of the applications.
func benchmarkDocument(suffix, trait string) string {
	var objects []string
	add := func(format string, args ...any) { objects = append(objects, fmt.Sprintf(format, args...)) }
	var names []string
	for i := range 100 {
		add(`{"kind":"application","spec":{"name":"App %d%s","traits":[%q]}}`, i, suffix, trait)
		add(`{"kind":"identity-provider","spec":{"identifier":"provider://p%d%s","kind":"api_key","config":{"header_name":"X-Key","api_key":"secret"}}}`, i, suffix)
		add(`{"kind":"policy","spec":{"name":"Policy %d%s","content":%q}}`, i, suffix, documentOf(fmt.Sprint("p", i, trait)))
	}
	names = append(names, fmt.Sprintf(`"Policy 0%s"`, suffix))
	add(`{"kind":"policy-set","spec":{"name":"Set%s","policies":[%s],"activate":true}}`, suffix, strings.Join(names, ","))
	for i := range 300 {
		add(`{"kind":"resource","spec":{"identifier":"https://r%d%s.example.com","upstream_url":"https://r%d.example.com","scopes":["read","write"],
			"credential_provider":"provider://p%d%s","gateway_application":"App %d%s","operations":[{"method":"GET","path":"/","scope":"read"}]}}`, i, suffix, i, i%100, suffix, i%100, suffix)
	}
	for i := range 399 {
		add(`{"kind":"grant","spec":{"application":"App %d%s","user_id":"user-%d","resource":"https://r%d%s.example.com","scopes":["read"]}}`, i%100, suffix, i, i%300, suffix)
	}
	return `{"objects":[` + strings.Join(objects, ",") + `]}`
}

// BenchmarkPlanState plans a document that is applied already.
func BenchmarkPlanState(b *testing.B) {
	x := newBench(b)
	text := benchmarkDocument("", "a")
	x.direct.call(b, "POST", x.zone+"/state/apply", text, http.StatusOK)
	x.counted.call(b, "POST", x.zone+"/state/plan", text, http.StatusOK)
	before := x.counter.trips.Load()
	x.counted.call(b, "POST", x.zone+"/state/plan", text, http.StatusOK)
	trips := x.counter.trips.Load() - before
	for b.Loop() {
		x.direct.call(b, "POST", x.zone+"/state/plan", text, http.StatusOK)
	}
	b.ReportMetric(float64(trips), "trips/op")
}

// BenchmarkApplyState creates the objects of a document.
func BenchmarkApplyState(b *testing.B) {
	x := newBench(b)
	n := 0
	for b.Loop() {
		n++
		x.direct.call(b, "POST", x.zone+"/state/apply", benchmarkDocument(fmt.Sprint("-", n), "a"), http.StatusOK)
	}
}
