package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"caracal.run/management/gen/client"
	"caracal.run/management/store"
)

// demo makes sure that there is a zone to look at: with a managed application,
// two that registered themselves, and sessions and agents under those. The
// zone's id stays in a file, so that it is made once.
func demo(ctx context.Context, out io.Writer, url, token, ownerURL, file string) error {
	c, err := client.NewClientWithResponses(url, client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	}))
	if err != nil {
		return err
	}
	id, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		zone := strings.TrimSpace(string(id))
		if have, err := c.GetZoneWithResponse(ctx, zone); err == nil && have.JSON200 != nil {
			_, err := fmt.Fprintf(out, "The demo zone is there, as you left it.\n\n  export DEMO_ZONE=%s\n\n", zone)
			return err
		}
	}
	zone, err := c.CreateZoneWithResponse(ctx, client.NewZone{Name: "Demo", DCREnabled: new(true)})
	if err != nil || zone.JSON201 == nil {
		return stepError("the demo zone", zone, err)
	}
	in := zone.JSON201.ID
	managed, err := c.CreateApplicationWithResponse(ctx, in, client.NewApplication{Name: "Billing", RegistrationMethod: "managed"})
	if err != nil || managed.JSON201 == nil {
		return stepError("the managed application", managed, err)
	}
	var registered []string
	for _, name := range []string{"Invoice agent", "Reminder agent"} {
		a, err := c.RegisterApplicationWithResponse(ctx, in, client.ApplicationRegistration{Name: name})
		if err != nil || a.JSON201 == nil {
			return stepError(name, a, err)
		}
		registered = append(registered, a.JSON201.ID)
	}
	if err := store.Demo(ctx, ownerURL, in, registered); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(in+"\n"), 0o600); err != nil {
		return err
	}
	return printDemo(out, in)
}

func printDemo(out io.Writer, zone string) error {
	_, err := fmt.Fprintf(out, "The demo zone is new: a managed application, two that registered themselves, their sessions and agents.\n\n  export DEMO_ZONE=%s\n\n", zone)
	return err
}

func stepError(what string, answer interface{ StatusCode() int }, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: the service answered %d", what, answer.StatusCode())
}
