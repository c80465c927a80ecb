package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"caracal.run/management/gen/client"
	"caracal.run/management/store"
)

// seedDemo creates a demo zone if there is none yet: with a managed application
// and two registered ones, which have sessions and agents. It saves the zone's
// id in a file, and prints it.
func seedDemo(ctx context.Context, out io.Writer, url, token, ownerURL, file string) error {
	c, err := client.New(url, token)
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
		if _, err := c.GetZone(ctx, zone); err == nil {
			return printDemo(out, "The demo zone already exists", zone)
		}
	}
	zone, err := c.CreateZone(ctx, client.NewZone{Name: "Demo", DCREnabled: new(true)})
	if err != nil {
		return fmt.Errorf("creating the demo zone: %w", err)
	}
	if _, err := c.CreateApplication(ctx, zone.ID, client.NewApplication{Name: "Billing", RegistrationMethod: "managed"}); err != nil {
		return fmt.Errorf("creating the managed application: %w", err)
	}
	var registered []string
	for _, name := range []string{"Invoice agent", "Reminder agent"} {
		app, err := c.RegisterApplication(ctx, zone.ID, client.ApplicationRegistration{Name: name})
		if err != nil {
			return fmt.Errorf("registering %s: %w", name, err)
		}
		registered = append(registered, app.ID)
	}
	if err := store.Demo(ctx, ownerURL, zone.ID, registered); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(zone.ID+"\n"), 0o600); err != nil {
		return err
	}
	return printDemo(out, "Created a demo zone with a managed application, two registered ones, and their sessions and agents", zone.ID)
}

func printDemo(out io.Writer, status, zone string) error {
	_, err := fmt.Fprintf(out, "%s.\n\n  export DEMO_ZONE=%s\n\n", status, zone)
	return err
}
