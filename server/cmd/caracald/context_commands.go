package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"caracal.run/management/gen/client"
)

func contextCommand(a *apiCaller) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Choose the service, the zone and the credential",
		Long: `Contexts are names for services, zones and credentials. They are in the file
$XDG_CONFIG_HOME/caracal/config.yaml, by default ~/.config/caracal/config.yaml, which
only you may be able to read.`,
		Example: `  caracald context set production --url https://caracal.example.com --token-stdin < token
  caracald context set production --zone 0198c0de-0000-7000-8000-00000000000a
  caracald context use production`,
	}
	cmd.AddCommand(contextListCommand(a), contextSetCommand(a), contextUseCommand(a), contextDeleteCommand(a))
	return cmd
}

func contextListCommand(a *apiCaller) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the contexts, without their credentials",
		Long:    "Lists the contexts. The current one is marked with an asterisk. Tokens are not printed.",
		Example: "  caracald context list",
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := readContexts(a.getenv)
			if err != nil {
				return err
			}
			var items []json.RawMessage
			for _, name := range slices.Sorted(maps.Keys(all.Contexts)) {
				c := all.Contexts[name]
				current, credential := "", "the environment"
				if name == all.Current {
					current = "*"
				}
				switch {
				case c.Token != "":
					credential = "token"
				case c.TokenFile != "":
					credential = "file " + c.TokenFile
				}
				item, err := json.Marshal(struct {
					Current    string `json:"current"`
					Name       string `json:"name"`
					URL        string `json:"url"`
					Zone       string `json:"zone"`
					Credential string `json:"credential"`
				}{current, name, c.URL, c.Zone, credential})
				if err != nil {
					return err
				}
				items = append(items, item)
			}
			return a.printItems(cmd, contextNoun, items)
		},
	}
	a.addOutput(cmd)
	return cmd
}

var contextNoun = &noun{name: "context", columns: "current name url zone credential", id: "name"}

func contextSetCommand(a *apiCaller) *cobra.Command {
	var given apiContext
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Create or change a context",
		Long: `Creates a context, or changes the given fields of one. The first context becomes the
current one. The token is read from the standard input with --token-stdin, or from a file
whenever it is needed with --token-file. Without either, the token is that of the variable
CARACAL_ADMIN_TOKEN.`,
		Example: `  caracald context set production --url https://caracal.example.com --token-stdin < token
  caracald context set staging --url https://staging.example.com --token-file /run/secrets/token`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if fromStdin && given.TokenFile != "" {
				return invalidUsage(cmd, "--token-file and --token-stdin exclude each other")
			}
			all, err := readContexts(a.getenv)
			if err != nil {
				return err
			}
			c := all.Contexts[args[0]]
			if c == nil {
				c = &apiContext{}
				all.Contexts[args[0]] = c
			}
			changed := cmd.Flags().Changed
			if changed("url") {
				c.URL = given.URL
			}
			if changed("zone") {
				c.Zone = given.Zone
			}
			if changed("token-file") {
				if c.TokenFile, err = filepath.Abs(given.TokenFile); err != nil {
					return err
				}
				c.Token = ""
			}
			if fromStdin {
				if c.Token, err = readToken(cmd.InOrStdin()); err != nil {
					return err
				}
				c.TokenFile = ""
			}
			if c.URL == "" {
				return invalidUsage(cmd, "--url is required for a new context")
			}
			if _, err := client.New(c.URL, c.Token); err != nil {
				return invalidUsage(cmd, "%v", strings.TrimPrefix(err.Error(), "client: "))
			}
			if all.Current == "" {
				all.Current = args[0]
			}
			return all.write(a.getenv)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&given.URL, "url", "", "base `URL` of the service, without /v1")
	flags.StringVar(&given.Zone, "zone", "", "`ID` of the zone that commands use")
	flags.StringVar(&given.TokenFile, "token-file", "", "`file` with the admin token")
	flags.BoolVar(&fromStdin, "token-stdin", false, "read the admin token from the standard input, and keep it in the configuration file")
	return cmd
}

// readToken reads a token that is one line.
func readToken(in io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(in, 4<<10))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("the token is empty")
	}
	return token, nil
}

func contextUseCommand(a *apiCaller) *cobra.Command {
	return &cobra.Command{
		Use:               "use NAME",
		Short:             "Make a context the current one",
		Long:              "Makes a context the current one, which commands use unless --context names another one.",
		Example:           "  caracald context use production",
		Args:              arguments("NAME"),
		ValidArgsFunction: a.completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := readContexts(a.getenv)
			if err != nil {
				return err
			}
			if _, err := all.find(args[0]); err != nil {
				return err
			}
			all.Current = args[0]
			return all.write(a.getenv)
		},
	}
}

func contextDeleteCommand(a *apiCaller) *cobra.Command {
	return &cobra.Command{
		Use:               "delete NAME",
		Short:             "Delete a context and its credential",
		Long:              "Deletes a context and its credential from the configuration file. The token is not revoked.",
		Example:           "  caracald context delete staging",
		Args:              arguments("NAME"),
		ValidArgsFunction: a.completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := readContexts(a.getenv)
			if err != nil {
				return err
			}
			if _, err := all.find(args[0]); err != nil {
				return err
			}
			delete(all.Contexts, args[0])
			if all.Current == args[0] {
				all.Current = ""
			}
			return all.write(a.getenv)
		},
	}
}

// completeContexts completes the name of a context.
func (a *apiCaller) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	all, err := readContexts(a.getenv)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.Sorted(maps.Keys(all.Contexts)), cobra.ShellCompDirectiveNoFileComp
}

// readTokenFile reads a token from a file.
func readTokenFile(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	token, err := readToken(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return token, nil
}
