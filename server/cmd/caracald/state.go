package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/provider"
)

// stateAbout is the part of the help about documents.
const stateAbout = `
FILE is a document with the objects that the zone should have, as JSON or YAML; - is the
standard input. caracald export writes one. A secret such as ${LEDGER_API_KEY} in the config
of a provider is replaced by the environment variable of that name, if it is set, except
CARACAL_ADMIN_TOKEN. Fields that are not secret are not.
`

func planCommand(a *apiCaller) *cobra.Command {
	var prune bool
	cmd := &cobra.Command{
		Use:   "plan FILE",
		Short: "Print what apply would change in a zone",
		Long: `Compares a document with a zone, and prints what has to be changed so that the zone is as the
document says: + is created, ~ is updated, - is archived, = is unchanged. Changes nothing. The
objects are in the order of the document; -o json also has the order of the changes.
` + stateAbout + apiVariables,
		Example: "  caracald plan zone.yaml\n  caracald plan zone.yaml -o json",
		Args:    arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := a.plan(cmd, args[0], prune)
			return err
		},
	}
	addPrune(cmd, &prune)
	a.addConnection(cmd)
	a.addZone(cmd)
	a.addOutput(cmd)
	return cmd
}

// errDrift means that a zone is not as a document says.
var errDrift = errors.New("the zone is not as the document says")

// A verifyError is an error of verify except errDrift: its exit code differs from that of
// drift whatever it is.
type verifyError struct{ error }

func (e verifyError) Unwrap() error { return e.error }

func verifyCommand(a *apiCaller) *cobra.Command {
	var prune bool
	failed := func(err error) error {
		if err == nil || errors.Is(err, errDrift) {
			return err
		}
		return verifyError{err}
	}
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check whether a zone is as a document says",
		Long: `Compares a document with a zone and prints the differences, like plan.

Exit codes: 0 the zone is as the document says, 2 it is not, 1 any error, also invalid
arguments or settings.
` + stateAbout + apiVariables,
		Example: "  caracald verify zone.yaml || notify 'The zone has drifted.'",
		Args:    func(cmd *cobra.Command, args []string) error { return failed(arguments("FILE")(cmd, args)) },
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := a.plan(cmd, args[0], prune)
			if err == nil && (report.Drift || !report.OK) {
				err = errDrift
			}
			return err
		},
	}
	addPrune(cmd, &prune)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return failed(invalidUsage(cmd, "%v", err)) })
	a.addConnection(cmd)
	a.addZone(cmd)
	a.addOutput(cmd)
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return failed(run(cmd, args)) }
	return cmd
}

func applyCommand(a *apiCaller) *cobra.Command {
	var planID string
	var yes, prune, confirmPrune, takeOwnership bool
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Change a zone so that it is as a document says",
		Long: `Prints the plan, and changes the zone so that it is as the document says. On a terminal, it
asks before. Either all changes are made, or none. It prints the client secrets of created
applications, which the API returns only this time.
` + stateAbout + apiVariables,
		Example: "  caracald apply zone.yaml\n  caracald apply zone.yaml --yes --plan-id \"$(caracald plan zone.yaml -o name)\"",
		Args:    arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			document, plan, text, err := a.requestPlan(cmd, args[0], prune)
			if err != nil {
				return err
			}
			if planID != "" && plan.PlanID != planID {
				return fmt.Errorf("the document or the zone was changed since the plan %s was made: nothing was changed", planID)
			}
			people := a.output == "table"
			if people {
				a.printPlan(cmd, document, plan)
			}
			if !plan.Drift {
				if !people {
					return a.printReportText(cmd, plan, text)
				}
				return nil
			}
			if !yes {
				if !people && isTerminal(cmd.InOrStdin()) {
					painter{out: cmd.ErrOrStderr()}.printReport(plan)
				}
				if err := confirm(cmd, "Make these changes?"); err != nil {
					return err
				}
			}
			applied, text, err := a.requestState(cmd, document, func(c *client.Client, ctx context.Context, zone string, d client.StateDocument, opts ...client.CallOption) (client.StateReport, error) {
				return c.ApplyState(ctx, zone, client.ApplyStateParams{PlanID: plan.PlanID, Prune: prune, ConfirmPrune: confirmPrune, TakeOwnership: takeOwnership}, d, opts...)
			})
			if err != nil {
				return err
			}
			if !people {
				return a.printReportText(cmd, applied, text)
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "\nApplied: %s.\n", summary(applied.Summary, "created", "updated", "archived"))
			for _, o := range applied.Outcomes {
				if o.ClientSecret != nil {
					fmt.Fprintf(out, "Client secret of the %s %s (%s): %s\n", o.Kind, printable(o.Identity), *o.ID, *o.ClientSecret)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&planID, "plan-id", "", "apply only if the `plan` is this one (plan -o name): neither the document nor the zone was changed since")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&confirmPrune, "confirm-prune", false, "archive also more objects than the document allows with prune_max_share")
	cmd.Flags().BoolVar(&takeOwnership, "take-ownership", false, "manage also objects that the document of another owner manages")
	addPrune(cmd, &prune)
	a.addConnection(cmd)
	a.addZone(cmd)
	a.addOutput(cmd)
	return cmd
}

// readState reads a document, and replaces the placeholders of secrets in it by variables,
// whose names it returns.
func (a *apiCaller) readState(cmd *cobra.Command, name string) (document, []string, error) {
	d, err := readDocument(cmd, name)
	if err != nil {
		return d, nil, err
	}
	value, err := decodeJSON(d.json)
	if err != nil {
		return d, nil, err
	}
	used := map[string]bool{}
	root, _ := value.(map[string]any)
	objects, _ := root["objects"].([]any) // the service reports anything else
	for _, o := range objects {
		object, _ := o.(map[string]any)
		spec, _ := object["spec"].(map[string]any)
		if config, _ := spec["config"].(map[string]any); object["kind"] == "identity-provider" {
			for _, name := range provider.ReplacePlaceholders(config, a.secretVariable) {
				used[name] = true
			}
		}
	}
	if len(used) > 0 {
		d.json, err = json.Marshal(value)
	}
	return d, slices.Sorted(maps.Keys(used)), err
}

// secretVariable returns the value of a variable that a document may name: any but the
// credential of this program.
func (a *apiCaller) secretVariable(name string) string {
	if name == "CARACAL_ADMIN_TOKEN" {
		return ""
	}
	return a.getenv(name)
}

// A stateOperation performs planState or applyState.
type stateOperation = func(*client.Client, context.Context, string, client.StateDocument, ...client.CallOption) (client.StateReport, error)

func planState(prune bool) stateOperation {
	return func(c *client.Client, ctx context.Context, zone string, d client.StateDocument, opts ...client.CallOption) (client.StateReport, error) {
		return c.PlanState(ctx, zone, client.PlanStateParams{Prune: prune}, d, opts...)
	}
}

func addPrune(cmd *cobra.Command, prune *bool) {
	cmd.Flags().BoolVar(prune, "prune", false, "archive objects that the document does not contain, as if it had prune: true")
}

// requestState performs an operation with a document. It returns the report, also as JSON.
func (a *apiCaller) requestState(cmd *cobra.Command, d document, f stateOperation) (report client.StateReport, text json.RawMessage, err error) {
	c, zone, err := a.connectToZone(cmd)
	if err != nil {
		return report, nil, err
	}
	report, err = f(c, cmd.Context(), zone, client.StateDocument{}, client.RequestJSON(d.json), client.ResponseJSON(&text))
	return report, text, d.locate(err)
}

// requestPlan reads a document and plans it. It prints which secrets the service has got.
func (a *apiCaller) requestPlan(cmd *cobra.Command, name string, prune bool) (document, client.StateReport, json.RawMessage, error) {
	d, secrets, err := a.readState(cmd, name)
	if err != nil {
		return d, client.StateReport{}, nil, err
	}
	report, text, err := a.requestState(cmd, d, planState(prune))
	if err == nil && len(secrets) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "Secrets are taken from the environment: %s.\n", strings.Join(secrets, ", "))
	}
	return d, report, text, err
}

// plan plans a document, and prints the plan.
func (a *apiCaller) plan(cmd *cobra.Command, name string, prune bool) (client.StateReport, error) {
	document, report, text, err := a.requestPlan(cmd, name, prune)
	if err != nil {
		return report, err
	}
	if a.output == "table" {
		a.printPlan(cmd, document, report)
		return report, nil
	}
	return report, a.printReportText(cmd, report, text)
}

// printReportText prints a report for programs: -o name prints the ID of the plan.
func (a *apiCaller) printReportText(cmd *cobra.Command, report client.StateReport, text json.RawMessage) error {
	if a.output == "name" {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), report.PlanID)
		return err
	}
	return a.printText(cmd.OutOrStdout(), text)
}
