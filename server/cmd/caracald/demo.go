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

// seedDemo creates a demo zone if there is none yet: with a managed application
// and two registered ones, which have sessions and agents. It keeps the zone's
// id in a file, and prints it.
func seedDemo(ctx context.Context, out io.Writer, url, token, ownerURL, file string) error {
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
		if existing, err := c.GetZoneWithResponse(ctx, zone); err == nil && existing.JSON200 != nil {
			return printDemo(out, "The demo zone already exists", zone)
		}
	}
	zone, err := c.CreateZoneWithResponse(ctx, client.NewZone{Name: "Demo", DCREnabled: new(true)})
	if err != nil || zone.JSON201 == nil {
		return stepError("creating the demo zone", zone, err)
	}
	zoneID := zone.JSON201.ID
	managed, err := c.CreateApplicationWithResponse(ctx, zoneID, client.NewApplication{Name: "Billing", RegistrationMethod: "managed"})
	if err != nil || managed.JSON201 == nil {
		return stepError("creating the managed application", managed, err)
	}
	var registered []string
	for _, name := range []string{"Invoice agent", "Reminder agent"} {
		a, err := c.RegisterApplicationWithResponse(ctx, zoneID, client.ApplicationRegistration{Name: name})
		if err != nil || a.JSON201 == nil {
			return stepError("registering "+name, a, err)
		}
		registered = append(registered, a.JSON201.ID)
	}
	if err := store.Demo(ctx, ownerURL, zoneID, registered); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(zoneID+"\n"), 0o600); err != nil {
		return err
	}
	return printDemo(out, "Created a demo zone with a managed application, two registered ones, and their sessions and agents", zoneID)
}

func printDemo(out io.Writer, status, zone string) error {
	_, err := fmt.Fprintf(out, "%s.\n\n  export DEMO_ZONE=%s\n\n", status, zone)
	return err
}

// stepError returns the error of a step that failed: err, or an unexpected status.
func stepError(step string, resp interface{ StatusCode() int }, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return fmt.Errorf("%s: unexpected status %d", step, resp.StatusCode())
}
