package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"caracal.run/management/gen/client"
)

func exportCommand(a *apiCaller) *cobra.Command {
	var file string
	var kinds []string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write a zone as a document for plan, apply and verify",
		Long: `Writes a zone as a YAML document, to keep it in version control or to set up another zone with
it. A plan of it is empty. It has no IDs and no secrets: each secret of a provider is a
placeholder such as ${LEDGER_API_KEY}, which apply replaces by the environment variable.
Comments say what a document cannot express.
` + apiVariables,
		Example: "  caracald export > zone.yaml\n  caracald export --kinds policy,policy-set --file policies.yaml",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, zone, err := a.connectToZone(cmd)
			if err != nil {
				return err
			}
			text, err := c.ExportState(cmd.Context(), zone, client.ExportStateParams{Kinds: kinds})
			if err != nil {
				return err
			}
			if file != "" {
				return os.WriteFile(file, []byte(text), 0o600)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	cmd.Flags().StringSliceVar(&kinds, "kinds", nil, "`kinds` of the objects, separated by commas (default: all but grants)")
	cmd.Flags().StringVar(&file, "file", "", "`file` to write (default: the standard output)")
	_ = cmd.RegisterFlagCompletionFunc("kinds", cobra.FixedCompletions(slices.Clone(stateKinds), cobra.ShellCompDirectiveNoFileComp)) // fails only without the flag
	a.addConnection(cmd)
	a.addZone(cmd)
	return cmd
}

var stateKinds = []string{"zone", "application", "identity-provider", "resource", "policy", "policy-set", "grant"}
