package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"caracal.run/management/gen/client"
)

// Marks of the objects of a plan, and their colors on a terminal (ECMA-48, 8.3.117).
var stateMarks = map[client.StateAction]struct{ mark, color string }{
	client.StateActionCreate:    {"+", "\x1b[32m"},
	client.StateActionUpdate:    {"~", "\x1b[33m"},
	client.StateActionUnchanged: {"=", "\x1b[2m"},
	"prune":                     {"-", "\x1b[31m"},
}

// A painter writes text in colors, if the output is a terminal.
type painter struct {
	out    io.Writer
	colors bool
}

func (p painter) printf(color, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if p.colors && color != "" {
		text = color + text + "\x1b[0m"
	}
	fmt.Fprintln(p.out, text)
}

// painterOf returns a painter for the output of a command. NO_COLOR disables colors
// (https://no-color.org).
func (a *apiCaller) painterOf(cmd *cobra.Command) painter {
	out := cmd.OutOrStdout()
	return painter{out, isTerminal(out) && a.getenv("NO_COLOR") == ""}
}

// printPlan prints the plan of a document for people. The API describes the content of a
// policy by its hash, so this compares the content in the document with that in an export.
func (a *apiCaller) printPlan(cmd *cobra.Command, d document, r client.StateReport) {
	var present map[string]string // contents by the names of the policies; nil: not known yet
	wanted := policyContents(d)
	for _, o := range r.Outcomes {
		if o.Kind != client.StateKindPolicy || o.Action != client.StateActionUpdate {
			continue
		}
		if present == nil {
			present = a.exportedPolicies(cmd)
		}
		before, known := present[o.Identity]
		after, given := wanted[o.Identity]
		for i := range o.Changes {
			if change := &o.Changes[i]; change.Field == "content" && known && given {
				change.Before, _ = json.Marshal(before) // texts are always valid JSON
				change.After, _ = json.Marshal(after)
			}
		}
	}
	a.painterOf(cmd).printReport(r)
}

// exportedPolicies returns the contents of the policies of the zone, by their names, as a
// document has them. It is empty if they cannot be exported: the hashes are printed then.
func (a *apiCaller) exportedPolicies(cmd *cobra.Command) map[string]string {
	c, zone, err := a.connectToZone(cmd)
	if err != nil {
		return map[string]string{}
	}
	text, err := c.ExportState(cmd.Context(), zone, client.ExportStateParams{Kinds: []string{string(client.StateKindPolicy)}})
	if err != nil {
		return map[string]string{}
	}
	exported, err := parseDocument("export.yaml", []byte(text))
	if err != nil {
		return map[string]string{}
	}
	return policyContents(exported)
}

// policyContents returns the content of each policy in a document, by its name.
func policyContents(d document) map[string]string {
	var document struct {
		Objects []struct {
			Kind client.StateKind
			Spec struct{ Name, Content string }
		}
	}
	contents := map[string]string{}
	if json.Unmarshal(d.json, &document) != nil {
		return contents // specs of other kinds have fields with these names and other types
	}
	for _, o := range document.Objects {
		if o.Kind == client.StateKindPolicy && o.Spec.Content != "" {
			contents[o.Spec.Name] = o.Spec.Content
		}
	}
	return contents
}

// printReport prints a plan: a line for each object, its fields that change, and a summary.
func (p painter) printReport(r client.StateReport) {
	width := 0
	for _, o := range r.Outcomes {
		width = max(width, len(o.Kind))
	}
	for _, o := range r.Outcomes {
		m := stateMarks[o.Action]
		p.printf(m.color, "%s %-*s  %s", m.mark, width, o.Kind, printable(o.Identity))
		fields := 0
		for _, c := range o.Changes {
			fields = max(fields, len(c.Field))
		}
		for _, c := range o.Changes {
			if o.Kind == client.StateKindPolicySet && c.Field == "policies" {
				c.Before, c.After = policyLines(c.Before), policyLines(c.After)
			}
			p.printChange(o.Action, fields, c)
		}
		for _, warning := range o.Warnings {
			p.printf("\x1b[33m", "    warning: %s", printable(warning))
		}
	}
	if len(r.Outcomes) > 0 {
		fmt.Fprintln(p.out)
	}
	if !r.Drift {
		fmt.Fprintln(p.out, "The zone is as the document says.")
		return
	}
	fmt.Fprintf(p.out, "Plan: %s.\n", summary(r.Summary, "to create", "to update", "to archive"))
}

// summary returns the numbers of objects in words.
func summary(s client.StateSummary, created, updated, pruned string) string {
	text := fmt.Sprintf("%d %s, %d %s, %d unchanged", s.Created, created, s.Updated, updated, s.Unchanged)
	if s.Pruned > 0 {
		text += fmt.Sprintf(", %d %s", s.Pruned, pruned)
	}
	if s.Failed > 0 {
		text += fmt.Sprintf(", %d failed", s.Failed)
	}
	return text
}

// printChange prints a field of an object that changes.
func (p painter) printChange(action client.StateAction, width int, c client.StateChange) {
	before, after := cell(c.Before), cell(c.After)
	switch {
	case c.Sensitive:
		p.printf("", "    %-*s  (will change)", width, c.Field)
	case isText(c.Before) || isText(c.After):
		p.printf("", "    %s", c.Field)
		removed, added := changedLines(textOf(c.Before), textOf(c.After))
		for _, line := range removed {
			p.printf("\x1b[31m", "      - %s", printable(line))
		}
		for _, line := range added {
			p.printf("\x1b[32m", "      + %s", printable(line))
		}
	case action == client.StateActionCreate:
		p.printf("", "    %-*s  %s", width, c.Field, after)
	default:
		p.printf("", "    %-*s  %s → %s", width, c.Field, before, after)
	}
}

// policyLines returns the policies of a policy set as a text with a line for each, such as
// Ledger v1.
func policyLines(value json.RawMessage) json.RawMessage {
	var policies []struct {
		Policy  string
		Version int
	}
	if json.Unmarshal(value, &policies) != nil || len(policies) == 0 {
		return value
	}
	names := make([]string, len(policies))
	for i, p := range policies {
		names[i] = fmt.Sprintf("%s v%d", p.Policy, p.Version)
	}
	text, _ := json.Marshal(strings.Join(names, "\n")) // texts are always valid JSON
	return text
}

// isText reports whether a value is a text of several lines.
func isText(value json.RawMessage) bool { return strings.Contains(textOf(value), "\n") }

// textOf returns a value that is a text, or "".
func textOf(value json.RawMessage) (text string) {
	if json.Unmarshal(value, &text) != nil {
		return ""
	}
	return text
}

// changedLines returns the lines between the first and the last one in which two texts
// differ.
func changedLines(before, after string) (removed, added []string) {
	removed, added = lines(before), lines(after)
	for len(removed) > 0 && len(added) > 0 && removed[0] == added[0] {
		removed, added = removed[1:], added[1:]
	}
	for len(removed) > 0 && len(added) > 0 && removed[len(removed)-1] == added[len(added)-1] {
		removed, added = removed[:len(removed)-1], added[:len(added)-1]
	}
	return removed, added
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
