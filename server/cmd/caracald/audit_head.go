package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"caracal.run/management/gen/client"
)

func auditHeadCommand(a *apiCaller) *cobra.Command {
	var log string
	cmd := &cobra.Command{
		Use:   "head",
		Short: "Print the head of an audit log, to prove later that no row was deleted at its end",
		Long: `Prints the number and the hash of the newest row of an audit log as JSON. Keep it where an
administrator of the service cannot change it: audit verify --head then shows that a later
export contains this row, and that the log was not replaced.
` + apiVariables,
		Example: "  caracald audit head > head.json\n  caracald audit verify audit.ndjson --head head.json",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			head, isLog := auditHeads[log]
			if !isLog {
				return invalidUsage(cmd, "--log must be entries, events or global, not %q", log)
			}
			c, zone, err := a.connectToLog(cmd, log)
			if err != nil {
				return err
			}
			var text json.RawMessage
			if err := head(cmd.Context(), c, zone, "", client.ResponseJSON(&text)); err != nil {
				return err
			}
			a.output = "json"
			return a.printText(cmd.OutOrStdout(), text)
		},
	}
	addLog(cmd, &log)
	a.addConnection(cmd)
	a.addZone(cmd)
	return cmd
}

// auditHeads return the heads of the audit logs.
var auditHeads = map[string]operation{
	"entries": zoneOnly((*client.Client).GetAuditHead),
	"events":  zoneOnly((*client.Client).GetAuditEventHead),
	"global":  noObject((*client.Client).GetZonelessAuditHead),
}

// addLog adds the flag that chooses an audit log.
func addLog(cmd *cobra.Command, log *string) {
	cmd.Flags().StringVar(log, "log", "entries", "`log`: entries, events or global")
	_ = cmd.RegisterFlagCompletionFunc("log", cobra.FixedCompletions([]string{"entries", "events", "global"}, cobra.ShellCompDirectiveNoFileComp)) // fails only without the flag
}

// connectToLog is like connectToZone, but requires no zone for the log of none.
func (a *apiCaller) connectToLog(cmd *cobra.Command, log string) (*client.Client, string, error) {
	if log == "global" {
		return a.connect()
	}
	return a.connectToZone(cmd)
}
