package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"caracal.run/management/server"
)

// Groups of commands in the usage.
const (
	serviceGroup = "service"
	clientGroup  = "client"
)

// newRoot returns the tree of all commands. Those that call the API read the variables of
// getenv.
func newRoot(getenv func(string) string) *cobra.Command {
	root := &cobra.Command{
		Use:   "caracald",
		Short: "The Caracal Management API",
		Long: `caracald is the Caracal Management API.

Run a command with -h for its flags, its settings and an example. Settings are
environment variables. To read the value of NAME from a file, set NAME_FILE to
its path.

Commands that call the API of a service use the URL in CARACAL_URL and the admin
token in CARACAL_ADMIN_TOKEN, or a context: see caracald context -h.

Exit codes: 0 success, 1 failure, 2 invalid arguments or settings. Those of verify
are 0 no drift, 1 failure, 2 drift.`,
		Version:       version(),
		SilenceErrors: true, // main prints the error
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return invalidUsage(cmd, "%v", err) })
	root.AddGroup(&cobra.Group{ID: serviceGroup, Title: "Run the service:"}, &cobra.Group{ID: clientGroup, Title: "Call the API of a service:"})
	for _, command := range []*cobra.Command{devCommand(), serveCommand(), migrateCommand(), keysCommand(), settingsCommand(), loadCommand()} {
		command.GroupID = serviceGroup
		root.AddCommand(command)
	}
	a := &apiCaller{getenv: getenv}
	for _, n := range nouns {
		command := a.nounCommand(n)
		if n.name == "policy" {
			command.AddCommand(policyValidateCommand(a))
		}
		root.AddCommand(command)
	}
	for _, command := range []*cobra.Command{contextCommand(a), planCommand(a), applyCommand(a), verifyCommand(a), exportCommand(a), eventsCommand(a), auditCommand(a)} {
		command.GroupID = clientGroup
		root.AddCommand(command)
	}
	root.AddCommand(versionCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	requireSubcommands(root)
	return root
}

// requireSubcommands lets every command that only has subcommands return an error if
// the arguments name none of them. Cobra would print the help, without an error.
func requireSubcommands(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		requireSubcommands(sub)
	}
	if cmd.Runnable() || !cmd.HasSubCommands() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var names []string
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		switch {
		case len(args) == 0 && !cmd.HasParent():
			return invalidUsage(cmd, "a command is required")
		case len(args) == 0:
			return invalidUsage(cmd, "a command is required: %s", strings.Join(names, ", "))
		}
		cmd.SuggestionsMinimumDistance = 2
		if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
			names = similar
		} else if !cmd.HasParent() { // there are many
			return invalidUsage(cmd, "unknown command %q", args[0])
		}
		return invalidUsage(cmd, "unknown command %q: use %s", args[0], strings.Join(names, " or "))
	}
}

// A usageError means that the arguments are invalid.
type usageError string

func (e usageError) Error() string { return string(e) }

// invalidUsage returns a usageError with the path of the command and how to get its help.
func invalidUsage(cmd *cobra.Command, format string, args ...any) error {
	path := cmd.CommandPath()
	_, name, isSubcommand := strings.Cut(path, " ")
	if isSubcommand {
		name += ": "
	}
	return usageError(fmt.Sprintf("%s%s\nRun '%s -h' for help.", name, fmt.Sprintf(format, args...), path))
}

// arguments requires exactly the named arguments.
func arguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return invalidUsage(cmd, "%s is required", names[len(args)])
		case len(args) > len(names):
			return invalidUsage(cmd, "unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// withSettings adds the settings that a command uses to its description.
func withSettings(description string, used func(setting string) bool) string {
	return description + "\n\nSettings:\n" + strings.TrimSuffix(server.SettingsHelp(used), "\n")
}

func allSettings(string) bool { return true }

func version() string {
	return fmt.Sprintf("caracald %s, %s, %s/%s", server.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    "Prints the version of the program, of Go and of the platform.",
		Example: "  caracald version",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version())
			return err
		},
	}
}

func settingsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "settings",
		Short:   "Print the settings as a Markdown table",
		Long:    "Prints all settings of serve with their default values.",
		Example: "  caracald settings",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), server.SettingsTable())
			return err
		},
	}
}
