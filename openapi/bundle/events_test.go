package main

import (
	"slices"
	"testing"
)

func TestEventsAreDescribed(t *testing.T) {
	streams := operation(t, "{caracal.a: Events of a., caracal.b: Events of b.}")
	for _, tt := range []struct {
		name, op, want string
		used           []string
	}{
		{"read", "x-access: [read]", "Does something.", nil},
		{"write without events", "x-access: [write]\nx-events: []", "Does something.\n\nPublishes no events.", nil},
		{"one stream", "x-access: [write]\nx-events: [{stream: caracal.b, description: One event per b.}]",
			"Does something.\n\nPublishes events on these streams:\n\n- `caracal.b`: One event per b.", []string{"caracal.b"}},
		{"several streams", "x-access: [global, write]\nx-events: [{stream: caracal.b, description: One event per b.}, {stream: caracal.a, description: One event.}]",
			"Does something.\n\nPublishes events on these streams:\n\n- `caracal.b`: One event per b.\n- `caracal.a`: One event.", []string{"caracal.a", "caracal.b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			op := operation(t, tt.op+"\ndescription: Does something.")
			used := map[string]bool{}
			if err := describeEvents(streams, op, used); err != nil {
				t.Fatal(err)
			}
			if got := get(op, "description").Value; got != tt.want {
				t.Errorf("description %q, want %q", got, tt.want)
			}
			for _, stream := range []string{"caracal.a", "caracal.b"} {
				if used[stream] != slices.Contains(tt.used, stream) {
					t.Errorf("used %v, want %q", used, tt.used)
				}
			}
		})
	}
}

func TestInvalidEventsAreAnError(t *testing.T) {
	streams := operation(t, "{caracal.a: Events of a.}")
	for _, tt := range []struct{ op, want string }{
		{"x-access: [write]", "x-events is required, because the operation writes; [] if it publishes no events"},
		{"x-access: [global, write]", "x-events is required, because the operation writes; [] if it publishes no events"},
		{"x-access: [write]\nx-events: caracal.a", "x-events must be a list"},
		{"x-access: [write]\nx-events: [caracal.a]", "x-events: stream and description are required"},
		{"x-access: [write]\nx-events: [{stream: caracal.a}]", "x-events: stream and description are required"},
		{"x-access: [write]\nx-events: [{description: One event.}]", "x-events: stream and description are required"},
		{"x-access: [write]\nx-events: [{stream: caracal.a, description: One event., when: always}]", "x-events: unknown field when"},
		{"x-access: [write]\nx-events: [{stream: caracal.c, description: One event.}]", "x-events: unknown stream caracal.c (not in x-streams)"},
		{"x-access: [write]\nx-events: [{stream: caracal.a, description: One event.}, {stream: caracal.a, description: Another.}]", "x-events: duplicate stream caracal.a"},
	} {
		err := describeEvents(streams, operation(t, tt.op+"\ndescription: Does something."), map[string]bool{})
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v, want %s", tt.op, err, tt.want)
		}
	}
}

func TestStreamsAreDescribedAndUsed(t *testing.T) {
	for _, tt := range []struct{ streams, want string }{
		{"{caracal.a: Events of a.}", ""},
		{"{caracal.a: Events of a., caracal.b: }", "x-streams: caracal.b has no description"},
		{"{caracal.a: Events of a., caracal.b: Events of b.}", "x-streams: no operation publishes on caracal.b"},
	} {
		message := ""
		if err := checkStreams(operation(t, tt.streams), map[string]bool{"caracal.a": true}); err != nil {
			message = err.Error()
		}
		if message != tt.want {
			t.Errorf("%s: error %q, want %q", tt.streams, message, tt.want)
		}
	}
}

// A dead letter can be of any stream, and is published on that stream when it is
// retried.
func TestARetriedDeadLetterCanBeOfAnyStream(t *testing.T) {
	spec, err := merge("..")
	if err != nil {
		t.Fatal(err)
	}
	var declared, streams []string
	for _, event := range get(get(get(get(spec, "paths"), "/v1/dead-letters/{id}/rearm"), "post"), "x-events").Content {
		declared = append(declared, get(event, "stream").Value)
	}
	for stream := range pairs(get(spec, "x-streams")) {
		streams = append(streams, stream)
	}
	slices.Sort(declared)
	slices.Sort(streams)
	if !slices.Equal(declared, streams) {
		t.Errorf("rearmDeadLetter declares %q, want all of x-streams: %q", declared, streams)
	}
}
