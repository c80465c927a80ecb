package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"caracal.run/management/gen/client"
)

// Create a client, create a zone and read it back.
func Example() {
	ctx := context.Background()
	c, err := client.New(baseURL, "an-admin-token")
	if err != nil {
		log.Fatal(err)
	}
	zone, err := c.CreateZone(ctx, client.NewZone{Name: "Production", DCREnabled: new(true)})
	if err != nil {
		log.Fatal(err)
	}
	zone, err = c.GetZone(ctx, zone.ID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(zone.Name, zone.Slug)
	// Output: Production production
}

// Handle an expected error by its code, and show the invalid fields of a
// request.
func ExampleError() {
	ctx := context.Background()
	c, err := client.New(baseURL, "an-admin-token")
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.GetZone(ctx, "unknown")
	if client.Code(err) == client.CodeZoneNotFound {
		fmt.Println("There is no such zone.")
	}
	_, err = c.CreateZone(ctx, client.NewZone{Name: ""})
	if e, ok := errors.AsType[*client.Error](err); ok {
		fmt.Println(e.Status, e.Code)
		for _, field := range e.Fields {
			fmt.Println(field.Path, field.Message)
		}
	}
	// Output:
	// There is no such zone.
	// 400 invalid_zone
	// name must not be empty
}

// Report a response that does not come from the API, for example because the base URL
// is that of another program. It has no code.
func ExampleError_foreign() {
	ctx := context.Background()
	loginPage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<title>Log in</title>")
	}))
	defer loginPage.Close()
	c, err := client.New(loginPage.URL, "an-admin-token")
	if err != nil {
		log.Fatal(err)
	}
	for _, err := range c.Zones(ctx) {
		if e, ok := errors.AsType[*client.Error](err); ok && e.Code == "" {
			fmt.Println(e.Status, e.Description)
			fmt.Println(e.Body)
		}
	}
	// Output:
	// 200 content type "text/html" instead of application/json
	// <title>Log in</title>
}

// Tell a caller when to try again, if the delay is too long for the client to wait.
func ExampleError_retryAfter() {
	ctx := context.Background()
	limited := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"error":"rate_limited","requestId":"r1"}`)
	}))
	defer limited.Close()
	c, err := client.New(limited.URL, "an-admin-token", client.WithRetry(3, 10*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.CreateZone(ctx, client.NewZone{Name: "Production"})
	if e, ok := errors.AsType[*client.Error](err); ok && e.RetryAfter > 0 {
		fmt.Println("Try again in", e.RetryAfter)
	}
	fmt.Println(err)
	// Output:
	// Try again in 1m30s
	// createZone: rate_limited (429) (retry after 1m30s) (request r1)
}

// Iterate over all applications of a zone. The iterator requests further pages
// as needed.
func ExampleClient_Applications() {
	ctx := context.Background()
	c, err := client.New(baseURL, "an-admin-token")
	if err != nil {
		log.Fatal(err)
	}
	for app, err := range c.Applications(ctx, "zone-1", client.Limit(2)) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(app.Name)
	}
	// Output:
	// Billing
	// Invoicing
	// Reporting
}

// Request one page at a time, each with the cursor of the previous one.
func ExampleClient_ListApplications() {
	ctx := context.Background()
	c, err := client.New(baseURL, "an-admin-token")
	if err != nil {
		log.Fatal(err)
	}
	for cursor := ""; ; {
		page, err := c.ListApplications(ctx, "zone-1", client.Limit(2), client.Cursor(cursor))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(page.Items), "applications")
		if page.Next == "" {
			break
		}
		cursor = page.Next
	}
	// Output:
	// 2 applications
	// 1 applications
}

// Update a zone only if it has not been modified since it was read. If it has, read
// it again and retry.
func ExampleIfMatch() {
	ctx := context.Background()
	c, err := client.New(baseURL, "an-admin-token")
	if err != nil {
		log.Fatal(err)
	}
	for {
		var etag string
		zone, err := c.GetZone(ctx, "zone-1", client.ReadETag(&etag))
		if err != nil {
			log.Fatal(err)
		}
		zone, err = c.UpdateZone(ctx, zone.ID, client.ZonePatch{Name: new(zone.Name + " (EU)")}, client.IfMatch(etag))
		if client.Code(err) == client.CodeVersionConflict {
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(zone.Name)
		break
	}
	// Output: Production (EU)
}

// The configuration of a provider is one of several types, depending on the kind.
// Its secrets are never returned.
func ExampleProviderConfigInput() {
	ctx := context.Background()
	c, err := client.New(baseURL, "an-admin-token")
	if err != nil {
		log.Fatal(err)
	}
	provider, err := c.CreateProvider(ctx, "zone-1", client.NewProvider{
		Name:       new("Ledger"),
		Kind:       client.ProviderKindAPIKey,
		ConfigJSON: client.APIKeyProviderConfig{HeaderName: new("X-Api-Key"), APIKey: new("the-key")},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(provider.SecretConfigKeys)
	// Output: [api_key]
}

// Change the configuration of a provider and keep its secrets. The type of the
// configuration depends on the kind of the provider.
func ExampleClient_UpdateProvider() {
	ctx := context.Background()
	c, err := client.New(baseURL, "an-admin-token")
	if err != nil {
		log.Fatal(err)
	}
	var etag string
	provider, err := c.GetProvider(ctx, "zone-1", "provider-1", client.ReadETag(&etag))
	if err != nil {
		log.Fatal(err)
	}
	var config client.APIKeyProviderConfig
	if err := json.Unmarshal(provider.ConfigJSON, &config); err != nil {
		log.Fatal(err)
	}
	config.HeaderName = new("X-Ledger-Key")
	provider, err = c.UpdateProvider(ctx, "zone-1", provider.ID, client.ProviderPatch{ConfigJSON: config}, client.IfMatch(etag))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(provider.ConfigJSON), provider.SecretConfigKeys)
	// Output: {"header_name":"X-Ledger-Key"} [api_key]
}

// A field of an update can be omitted, null, or a value.
func ExampleNullable() {
	for _, patch := range []client.ResourcePatch{
		{Name: new("Invoices")},
		{UpstreamURL: client.Set("https://invoices.internal.example.com")},
		{UpstreamURL: client.Null[string]()},
	} {
		text, err := json.Marshal(patch)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(text))
	}
	// Output:
	// {"name":"Invoices"}
	// {"upstream_url":"https://invoices.internal.example.com"}
	// {"upstream_url":null}
}

// Configure the transport, the timeout and the retries.
func ExampleNew() {
	c, err := client.New("https://caracal.example.com", "an-admin-token",
		client.WithTransport(&http.Transport{MaxIdleConnsPerHost: 16}),
		client.WithTimeout(5*time.Second),
		client.WithRetry(5, time.Minute),
		client.WithUserAgent("provisioner/1.0"),
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c)
	// Output: caracal client of https://caracal.example.com
}

// baseURL is the address of a service with one zone.
var baseURL = httptest.NewServer(exampleService()).URL

func exampleService() http.Handler {
	const zone = `{"id":"zone-1","name":"Production","slug":"production","dcr_enabled":true}`
	mux := http.NewServeMux()
	reply := func(pattern string, status int, body string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("ETag", `"1"`)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		})
	}
	reply("GET /v1/zones/zone-1", 200, zone)
	reply("GET /v1/zones/unknown", 404, `{"error":"zone_not_found","error_description":"Zone not found."}`)
	reply("PATCH /v1/zones/zone-1", 200, strings.Replace(zone, "Production", "Production (EU)", 1))
	const provider = `{"id":"provider-1","kind":"api_key","config_json":{"header_name":"X-Api-Key"},"secret_config_keys":["api_key"]}`
	reply("GET /v1/zones/zone-1/providers/provider-1", 200, provider)
	reply("PATCH /v1/zones/zone-1/providers/provider-1", 200, strings.Replace(provider, "X-Api-Key", "X-Ledger-Key", 1))
	reply("POST /v1/zones/zone-1/providers", 201, `{"id":"provider-1","secret_config_keys":["api_key"]}`)
	mux.HandleFunc("POST /v1/zones", func(w http.ResponseWriter, r *http.Request) {
		var body client.NewZone
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Name == "" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_zone","details":{"issues":[{"path":["name"],"message":"must not be empty"}]}}`)
			return
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, zone)
	})
	mux.HandleFunc("GET /v1/zones/zone-1/applications", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("cursor") != "" {
			fmt.Fprint(w, `[{"id":"app-3","name":"Reporting"}]`)
			return
		}
		w.Header().Set("Link", `</v1/zones/zone-1/applications?cursor=page-2&limit=2>; rel="next"`)
		fmt.Fprint(w, `[{"id":"app-1","name":"Billing"},{"id":"app-2","name":"Invoicing"}]`)
	})
	return mux
}
