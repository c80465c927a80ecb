package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"caracal.run/management/gen/client"
	"caracal.run/management/server"
)

// An apiCaller has what the commands that call the API share.
type apiCaller struct {
	getenv  func(string) string
	context string // flags
	zone    string
	output  string
}

// apiVariables is the part of the help about the environment.
const apiVariables = `
The service and the credential are those of the context that --context names. Without it,
they are CARACAL_URL and CARACAL_ADMIN_TOKEN (or CARACAL_ADMIN_TOKEN_FILE), if CARACAL_URL
is set, and otherwise those of the current context.`

// addConnection adds the flags that choose the service.
func (a *apiCaller) addConnection(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&a.context, "context", "", "`name` of the context to use, instead of the environment or the current one")
	_ = cmd.RegisterFlagCompletionFunc("context", a.completeContexts) // fails only without the flag
}

// addZone adds the flag that chooses the zone.
func (a *apiCaller) addZone(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&a.zone, "zone", "", "`ID` of the zone (default: that of the context, or CARACAL_ZONE)")
}

// A target is where requests go, and with which token.
type target struct{ url, token, zone string }

// target returns the target that the flags, the environment and the configuration file
// determine. A URL of one of them is never used with a token of a context.
func (a *apiCaller) target() (t target, err error) {
	t.zone = a.getenv("CARACAL_ZONE")
	if a.context == "" && a.getenv("CARACAL_URL") != "" {
		t.url = a.getenv("CARACAL_URL")
	} else {
		all, err := readContexts(a.getenv)
		if err != nil {
			return target{}, err
		}
		c, err := all.find(a.context)
		if err != nil {
			return target{}, err
		}
		if c == nil {
			return target{}, server.ConfigErrors{{Setting: "CARACAL_URL", Problem: "must be set to the URL of the service, unless there is a current context (caracald context set)"}}
		}
		t.url, t.token = c.URL, c.Token
		if c.Zone != "" {
			t.zone = c.Zone
		}
		if c.TokenFile != "" {
			if t.token, err = readTokenFile(c.TokenFile); err != nil {
				return target{}, err
			}
		}
	}
	if a.zone != "" {
		t.zone = a.zone
	}
	if t.token == "" {
		t.token, err = a.tokenOfEnvironment()
	}
	return t, err
}

// tokenOfEnvironment returns the token in the environment, or in a file that it names.
func (a *apiCaller) tokenOfEnvironment() (string, error) {
	if token := a.getenv("CARACAL_ADMIN_TOKEN"); token != "" {
		return token, nil
	}
	name := a.getenv("CARACAL_ADMIN_TOKEN_FILE")
	if name == "" {
		return "", server.ConfigErrors{{Setting: "CARACAL_ADMIN_TOKEN", Problem: "must be set to an admin token, unless the context has one"}}
	}
	token, err := readTokenFile(name)
	if err != nil {
		return "", server.ConfigErrors{{Setting: "CARACAL_ADMIN_TOKEN_FILE", Problem: err.Error()}}
	}
	return token, nil
}

// connect returns a client, and the zone, which can be "".
func (a *apiCaller) connect() (*client.Client, string, error) {
	t, err := a.target()
	if err != nil {
		return nil, "", err
	}
	c, err := client.New(t.url, t.token, client.WithUserAgent("caracald/"+server.Version()))
	if err != nil {
		return nil, "", usageError(strings.TrimPrefix(err.Error(), "client: "))
	}
	return c, t.zone, nil
}

// connectToZone is like connect, but requires a zone.
func (a *apiCaller) connectToZone(cmd *cobra.Command) (*client.Client, string, error) {
	c, zone, err := a.connect()
	if err == nil && zone == "" {
		err = invalidUsage(cmd, "a zone is required: choose one with --zone or CARACAL_ZONE, or with the zone of the context")
	}
	return c, zone, err
}

// isTerminal reports whether a reader or writer is a terminal.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // a character device, too
	return err != nil || !os.SameFile(info, null)
}

// confirm asks a question if the standard input is a terminal. Otherwise, it does not ask.
func confirm(cmd *cobra.Command, question string) error {
	if !isTerminal(cmd.InOrStdin()) {
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	var reply string
	_, _ = fmt.Fscanln(cmd.InOrStdin(), &reply) // an empty line is an error, and no
	if reply = strings.ToLower(reply); reply != "y" && reply != "yes" {
		return errors.New("not confirmed: nothing was changed")
	}
	return nil
}
