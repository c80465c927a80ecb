package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/server"
	"caracal.run/management/store"
	"caracal.run/management/store/private"
)

// Where the examples find the service, and with what token.
var (
	address string
	token   = "a-bootstrap-token"
)

func TestMain(m *testing.M) {
	status, err := withService(m.Run)
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(status)
}

// withService runs tests beside a service.
func withService(tests func() int) (_ int, err error) {
	ctx := context.Background()
	servers, err := private.Start(ctx, private.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, servers.Stop()) }()
	if err := store.Migrate(ctx, servers.PostgresURL(private.Owner, "caracal"), func(string) {}); err != nil {
		return 0, err
	}
	config, err := server.LoadConfig([]string{
		"CARACAL_MODE=dev", "PORT=0", "CARACAL_ADMIN_TOKEN=" + token, "REDIS_URL=" + servers.RedisURL(),
		"DATABASE_URL=" + servers.PostgresURL(private.Service, "caracal"), "ZONE_KEK=" + strings.Repeat("01", 32),
	})
	if err != nil {
		return 0, err
	}
	running, err := server.Start(ctx, config, slog.New(slog.DiscardHandler))
	if err != nil {
		return 0, err
	}
	address = running.URL
	status := tests()
	return status, running.Stop()
}

// A client speaks for one token. OK, Created and Done take an operation's call
// and give what it promises, or an error.
func ExampleNew() {
	ctx := context.Background()
	c, err := client.New(address, token)
	if err != nil {
		log.Fatal(err)
	}
	zone, err := client.Created(c.CreateZoneWithResponse(ctx, client.NewZone{Name: "Production"}))
	if err != nil {
		log.Fatal(err)
	}
	again, err := client.OK(c.GetZoneWithResponse(ctx, zone.ID))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(again.Name, again.Slug)
	fmt.Println(client.Done(c.DeleteZoneWithResponse(ctx, zone.ID, nil)))
	// Output:
	// Production production
	// <nil>
}

// An iterator walks a list to its end, however many pages it has.
func ExampleClientWithResponses_AllApplications() {
	ctx := context.Background()
	c, err := client.New(address, token)
	if err != nil {
		log.Fatal(err)
	}
	zone, err := client.Created(c.CreateZoneWithResponse(ctx, client.NewZone{Name: "Paged"}))
	if err != nil {
		log.Fatal(err)
	}
	for n := range 5 {
		app := client.NewApplication{Name: fmt.Sprint("Application ", n), RegistrationMethod: client.NewApplicationRegistrationMethodManaged}
		if _, err := client.Created(c.CreateApplicationWithResponse(ctx, zone.ID, app)); err != nil {
			log.Fatal(err)
		}
	}
	for app, err := range c.AllApplications(ctx, zone.ID, &client.ListApplicationsParams{Limit: new(2)}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(app.Name)
	}
	// Output:
	// Application 4
	// Application 3
	// Application 2
	// Application 1
	// Application 0
}

// A refusal has a code, and says which members of a request it does not like.
func ExampleCode() {
	ctx := context.Background()
	c, err := client.New(address, token)
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.OK(c.GetZoneWithResponse(ctx, "nowhere"))
	if client.Code(err) == "zone_not_found" {
		fmt.Println("there is none")
	}
	_, err = client.Created(c.CreateZoneWithResponse(ctx, client.NewZone{Name: "", Slug: new("Not a slug")}))
	var refusal *client.Error
	if errors.As(err, &refusal) {
		fmt.Println(refusal.Status, refusal.Problem.Error)
		for _, issue := range refusal.Details.Issues {
			fmt.Println(issue.Path)
		}
	}
	// Output:
	// there is none
	// 400 invalid_zone
	// [name]
	// [slug]
}

// A change that depends on what was read says so with If-Match, and reads again
// when somebody else was faster.
func ExampleOK_conditionalUpdate() {
	ctx := context.Background()
	c, err := client.New(address, token)
	if err != nil {
		log.Fatal(err)
	}
	zone, err := client.Created(c.CreateZoneWithResponse(ctx, client.NewZone{Name: "Counter 0"}))
	if err != nil {
		log.Fatal(err)
	}
	increment := func() (client.Zone, error) {
		for {
			read, err := c.GetZoneWithResponse(ctx, zone.ID)
			now, err := client.OK(read, err)
			if err != nil {
				return now, err
			}
			var n int
			if _, err := fmt.Sscanf(now.Name, "Counter %d", &n); err != nil {
				return now, err
			}
			next := client.ZonePatch{Name: new(fmt.Sprint("Counter ", n+1))}
			changed, err := client.OK(c.UpdateZoneWithResponse(ctx, zone.ID, &client.UpdateZoneParams{IfMatch: &read.Headers200.ETag}, next))
			if client.Code(err) != "version_conflict" {
				return changed, err
			}
		}
	}
	const many = 8
	done := make(chan error, many)
	for range many {
		go func() { _, err := increment(); done <- err }()
	}
	for range many {
		if err := <-done; err != nil {
			log.Fatal(err)
		}
	}
	last, err := client.OK(c.GetZoneWithResponse(ctx, zone.ID))
	fmt.Println(last.Name, err)
	// Output: Counter 8 <nil>
}

// The context bounds a call with all its retries.
func ExampleRetry() {
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "20")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer busy.Close()
	c, err := client.New(busy.URL, token)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = client.OK(c.GetZoneWithResponse(ctx, "x"))
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output: true
}

// A provider's configuration is one of a few kinds; a secret in it goes in and
// never comes out.
func ExampleProviderConfigInput() {
	ctx := context.Background()
	c, err := client.New(address, token)
	if err != nil {
		log.Fatal(err)
	}
	zone, err := client.Created(c.CreateZoneWithResponse(ctx, client.NewZone{Name: "Production"}))
	if err != nil {
		log.Fatal(err)
	}
	var config client.ProviderConfigInput
	err = config.FromAPIKeyProviderConfig(client.APIKeyProviderConfig{HeaderName: new("X-Api-Key"), APIKey: new("the secret")})
	if err != nil {
		log.Fatal(err)
	}
	provider, err := client.Created(c.CreateProviderWithResponse(ctx, zone.ID, client.NewProvider{
		Name: new("Ledger"), Kind: client.ProviderKindAPIKey, ConfigJSON: &config,
	}))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(provider.Identifier, provider.SecretConfigKeys, string(provider.ConfigJSON))
	// Output: provider://ledger [api_key] {"header_name":"X-Api-Key","auth_location":"header"}
}
