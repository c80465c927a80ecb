package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"caracal.run/management/gen/client"
)

var eventNoun = &noun{name: "event"}

func eventsCommand(a *apiCaller) *cobra.Command {
	var after, resume string
	var once bool
	cmd := &cobra.Command{
		Use:     "events",
		Short:   "Follow the changes of a zone",
		Long:    eventsAbout + apiVariables,
		Example: "  caracald events\n  caracald events --after 0 -o json\n  caracald events --resume position --after 0",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			position := after
			if resume != "" {
				text, err := os.ReadFile(resume)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				if err == nil {
					position = strings.TrimSpace(string(text))
				}
			}
			c, zone, err := a.connectToZone(cmd)
			if err != nil {
				return err
			}
			received := func(event json.RawMessage, err error) error {
				if err != nil {
					return err
				}
				if err := a.printEvent(cmd, event); err != nil || resume == "" {
					return err
				}
				return os.WriteFile(resume, []byte(eventNoun.idOf(event)+"\n"), 0o600)
			}
			if once {
				for event, err := range pages(cmd.Context(), c, zone, "", zoneList((*client.Client).ListZoneEvents), client.ListZoneEventsParams{After: position}) {
					if err := received(event, err); err != nil {
						return err
					}
				}
				return nil
			}
			var event json.RawMessage
			for _, err := range c.FollowZoneEvents(cmd.Context(), zone, position, client.ResponseJSON(&event)) {
				if err != nil && cmd.Context().Err() != nil {
					return nil // Ctrl-C ends it
				}
				if err := received(event, err); err != nil {
					return err
				}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&after, "after", "now", "`position` after which it begins: the ID of an event, 0 for all events, or now")
	flags.StringVar(&resume, "resume", "", "`file` in which it keeps its position, and from which it continues after a restart, instead of --after")
	flags.BoolVar(&once, "once", false, "print the events that exist, and exit")
	a.addConnection(cmd)
	a.addZone(cmd)
	a.addOutput(cmd)
	return cmd
}

const eventsAbout = `Prints the changes of a zone and of the objects in it as they are committed, in their order,
until Ctrl-C. If the connection is lost, it reconnects and continues without a loss or a
repetition. -o json prints one line of JSON for each event.
`

// printEvent prints an event as soon as it arrives.
func (a *apiCaller) printEvent(cmd *cobra.Command, event json.RawMessage) error {
	out := cmd.OutOrStdout()
	switch a.output {
	case "json":
		_, err := fmt.Fprintf(out, "%s\n", event)
		return err
	case "yaml":
		if _, err := fmt.Fprintln(out, "---"); err != nil {
			return err
		}
		return a.printText(out, event)
	case "name":
		_, err := fmt.Fprintln(out, eventNoun.idOf(event))
		return err
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(event, &values); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%-8s %s  %-32s %-36s  %s by %s\n", cell(values["id"]), cell(values["occurred_at"]), cell(values["type"]), cell(values["entity_id"]), cell(values["operation"]), cell(values["actor_name"]))
	return err
}
