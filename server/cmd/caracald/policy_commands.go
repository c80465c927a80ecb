package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"caracal.run/management/gen/client"
)

func policyValidateCommand(a *apiCaller) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate FILE",
		Short: "Validate a policy in Rego",
		Long: `Validates a policy in Rego, prints warnings, and fails with the line and the column of each
error if it is invalid. Creates nothing. With a zone, it also checks the rules of the zone.
FILE - is the standard input.
` + apiVariables,
		Example: "  caracald policy validate grants.rego",
		Args:    arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			content, err := readInput(cmd, args[0])
			if err != nil {
				return err
			}
			c, zone, err := a.connect()
			if err != nil {
				return err
			}
			body := client.PolicyToValidate{Content: string(content)}
			if zone != "" {
				body.ZoneID = &zone
			}
			var text json.RawMessage
			result, err := c.ValidatePolicy(cmd.Context(), body, client.ResponseJSON(&text))
			if err != nil {
				return err
			}
			if a.output == "json" || a.output == "yaml" {
				return a.printText(cmd.OutOrStdout(), text)
			}
			for _, issue := range result.Warnings {
				fmt.Fprintf(cmd.OutOrStdout(), "%s:%d:%d: warning: %s\n", args[0], issue.Row, issue.Column, printable(issue.Message))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid\n", args[0])
			return err
		},
	}
	a.addOutput(cmd)
	return cmd
}
