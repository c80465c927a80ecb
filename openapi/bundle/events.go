package main

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// describeEvents appends the events that an operation publishes to its description,
// as declared in x-events, and adds their streams to used. It returns an error if
// an operation that writes does not declare x-events, or if an entry is incomplete,
// repeated, or on a stream that x-streams does not list.
func describeEvents(streams, op *yaml.Node, used map[string]bool) error {
	events := get(op, "x-events")
	if events == nil {
		if changes(list(get(op, "x-access"))) {
			return fmt.Errorf("x-events is required, because the operation writes; [] if it publishes no events")
		}
		return nil
	}
	if events.Kind != yaml.SequenceNode {
		return fmt.Errorf("x-events must be a list")
	}
	if len(events.Content) == 0 {
		appendDescription(op, "Publishes no events.")
		return nil
	}
	var lines, seen []string
	for _, event := range events.Content {
		for key := range pairs(event) {
			if key != "stream" && key != "description" {
				return fmt.Errorf("x-events: unknown field %s", key)
			}
		}
		stream, description := valueOf(get(event, "stream")), valueOf(get(event, "description"))
		switch {
		case stream == "" || description == "":
			return fmt.Errorf("x-events: stream and description are required")
		case get(streams, stream) == nil:
			return fmt.Errorf("x-events: unknown stream %s (not in x-streams)", stream)
		case slices.Contains(seen, stream):
			return fmt.Errorf("x-events: duplicate stream %s", stream)
		}
		seen = append(seen, stream)
		used[stream] = true
		lines = append(lines, fmt.Sprintf("- `%s`: %s", stream, description))
	}
	appendDescription(op, "Publishes events on these streams:\n\n"+strings.Join(lines, "\n"))
	return nil
}

// checkStreams returns an error if a stream of x-streams has no description, or
// if no operation publishes on it.
func checkStreams(streams *yaml.Node, used map[string]bool) error {
	for stream, description := range pairs(streams) {
		switch {
		case description.Value == "":
			return fmt.Errorf("x-streams: %s has no description", stream)
		case !used[stream]:
			return fmt.Errorf("x-streams: no operation publishes on %s", stream)
		}
	}
	return nil
}
