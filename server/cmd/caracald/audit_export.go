package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"caracal.run/management/gen/client"
)

func auditExportCommand(a *apiCaller) *cobra.Command {
	var log, format, file, since, until string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Export the audit log of a zone",
		Long: `Exports audit entries (--log entries, the default), authorization audit events (--log
events) or the audit entries of no zone (--log global), as they are at one moment, to the
standard output or to a file. It fails if the export does not arrive complete and
unchanged. caracald audit verify verifies an export as ndjson later, without the service.
` + apiVariables,
		Example: "  caracald audit export --file audit.ndjson\n  caracald audit export --log events --format csv --since 2026-07-01T00:00:00Z > events.csv",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			export, isLog := auditExports[log]
			switch {
			case !isLog:
				return invalidUsage(cmd, "--log must be entries, events or global, not %q", log)
			case format != "ndjson" && format != "csv":
				return invalidUsage(cmd, "--format must be ndjson or csv, not %q", format)
			}
			c, zone, err := a.connectToLog(cmd, log)
			if err != nil {
				return err
			}
			exported, err := export(cmd.Context(), c, zone, client.ListFormat(format), since, until)
			if err != nil {
				return err
			}
			defer exported.Close()
			if err := writeExport(cmd, file, exported); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d rows, complete and unchanged.\n", exported.Rows())
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&format, "format", "ndjson", "`format`: ndjson, which can be verified, or csv")
	flags.StringVar(&file, "file", "", "`file` to write (default: the standard output)")
	flags.StringVar(&since, "since", "", "export only what happened at this `time` or later, such as 2026-07-01T00:00:00Z")
	flags.StringVar(&until, "until", "", "export only what happened before this `time`")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"ndjson", "csv"}, cobra.ShellCompDirectiveNoFileComp)) // fails only without the flag
	addLog(cmd, &log)
	a.addConnection(cmd)
	a.addZone(cmd)
	return cmd
}

// auditExports are the exports of the audit logs.
var auditExports = map[string]func(ctx context.Context, c *client.Client, zone string, format client.ListFormat, since, until string) (*client.Export, error){
	"entries": func(ctx context.Context, c *client.Client, zone string, format client.ListFormat, since, until string) (*client.Export, error) {
		return c.ExportAuditEntries(ctx, zone, format, client.ListAuditEntriesParams{Since: since, Until: until})
	},
	"events": func(ctx context.Context, c *client.Client, zone string, format client.ListFormat, since, until string) (*client.Export, error) {
		return c.ExportAuditEvents(ctx, zone, format, client.ListAuditEventsParams{Since: since, Until: until})
	},
	"global": func(ctx context.Context, c *client.Client, _ string, format client.ListFormat, since, until string) (*client.Export, error) {
		return c.ExportZonelessAuditEntries(ctx, format, client.ListZonelessAuditEntriesParams{Since: since, Until: until})
	},
}

// writeExport writes an export to a file, or to the standard output. It removes a file that
// is incomplete. On a terminal, it prints its progress.
func writeExport(cmd *cobra.Command, name string, export io.Reader) (err error) {
	out := cmd.OutOrStdout()
	if name != "" {
		file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer func() {
			if err = errors.Join(err, file.Close()); err != nil {
				err = errors.Join(err, os.Remove(name))
			}
		}()
		out = file
	}
	if progress := cmd.ErrOrStderr(); name != "" && isTerminal(progress) {
		defer fmt.Fprint(progress, "\r\x1b[K")
		export = io.TeeReader(export, &progressMeter{out: progress})
	}
	_, err = io.Copy(out, export)
	return err
}

// A progressMeter prints how much was written, at most a few times a second.
type progressMeter struct {
	out   io.Writer
	bytes int64
	last  time.Time
}

func (m *progressMeter) Write(p []byte) (int, error) {
	m.bytes += int64(len(p))
	if now := time.Now(); now.Sub(m.last) > 200*time.Millisecond {
		m.last = now
		fmt.Fprintf(m.out, "\r%.1f MB", float64(m.bytes)/1e6)
	}
	return len(p), nil
}

func auditExplainCommand(a *apiCaller) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "explain REQUEST",
		Short:   "Explain why a request of an agent was allowed or denied",
		Long:    "Prints the authorization audit events of a request, its final decision, and of each denial the\npolicies that determined it.\n" + apiVariables,
		Example: "  caracald audit explain 0198c0de-0000-7000-8000-00000000000a",
		Args:    arguments("REQUEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, &noun{name: "request", id: "request_id"}, zoneGet((*client.Client).ExplainRequest), args[0])
		},
	}
	a.addConnection(cmd)
	a.addZone(cmd)
	a.addOutput(cmd)
	return cmd
}
