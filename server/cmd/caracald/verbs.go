package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"caracal.run/management/gen/client"
)

// nounCommand returns the command of a kind of objects, with a subcommand for each
// operation that it has.
func (a *apiCaller) nounCommand(n *noun) *cobra.Command {
	cmd := &cobra.Command{
		Use:     n.name,
		Aliases: []string{n.plural()},
		Long:    n.about + "\n" + apiVariables,
		GroupID: clientGroup,
	}
	a.addConnection(cmd)
	if !n.global {
		a.addZone(cmd)
	}
	var verbs []string
	add := func(offered bool, sub func(*noun) *cobra.Command) {
		if offered {
			command := sub(n)
			verbs = append(verbs, command.Name())
			cmd.AddCommand(command)
		}
	}
	add(n.list != nil, a.listCommand)
	add(n.get != nil, a.getCommand)
	add(n.create != nil, a.createCommand)
	add(n.update != nil, a.updateCommand)
	add(n.delete != nil, a.deleteCommand)
	for _, action := range n.actions {
		add(true, func(n *noun) *cobra.Command { return a.actionCommand(n, action) })
	}
	cmd.Short = strings.ToUpper(verbs[0][:1]) + strings.Join(verbs, ", ")[1:] + " " + n.many()
	cmd.Example = "  caracald " + n.name + " list"
	return cmd
}

// connectFor returns a client, and the zone if the objects belong to one.
func (a *apiCaller) connectFor(cmd *cobra.Command, n *noun) (*client.Client, string, error) {
	if n.global {
		c, _, err := a.connect()
		return c, "", err
	}
	return a.connectToZone(cmd)
}

func (a *apiCaller) listCommand(n *noun) *cobra.Command {
	var limit int
	filters := map[string]*string{}
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List " + n.many(),
		Long:    fmt.Sprintf("Lists all %s, newest first, or only the first ones with --limit.\n%s", n.many(), apiVariables),
		Example: fmt.Sprintf("  caracald %s list\n  caracald %[1]s list -o json --limit 10", n.name),
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return invalidUsage(cmd, "--limit must not be negative")
			}
			c, zone, err := a.connectFor(cmd, n)
			if err != nil {
				return err
			}
			var opts []client.ListOption
			if n.filter != nil {
				values := map[string]string{}
				for name, value := range filters {
					values[name] = *value
				}
				opts = append(opts, n.filter(values))
			}
			items, err := listAll(cmd, c, zone, "", n.list, limit, opts...)
			if err != nil {
				return err
			}
			return a.printItems(cmd, n, items)
		},
	}
	for _, name := range strings.Fields(n.filters) {
		filters[name] = cmd.Flags().String(strings.ReplaceAll(name, "_", "-"), "", "list only those with this `"+name+"`")
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "maximum `number` of objects; 0 lists all")
	a.addOutput(cmd)
	return cmd
}

// maxPage is the largest page that the API returns.
const maxPage = 200

// listAll returns the items of all pages, or the first ones up to the limit, if it is not 0.
func listAll(cmd *cobra.Command, c *client.Client, zone, id string, list lister, limit int, opts ...client.ListOption) (items []json.RawMessage, err error) {
	size := maxPage
	if limit > 0 {
		size = min(size, limit)
	}
	for item, err := range pages(cmd.Context(), c, zone, id, list, append(opts, client.Limit(size))...) {
		if err != nil {
			return nil, err
		}
		if items = append(items, item); len(items) == limit {
			break
		}
	}
	return items, nil
}

// pages returns an iterator over the items of all pages. If a request fails, it yields the
// error and stops.
func pages(ctx context.Context, c *client.Client, zone, id string, list lister, opts ...client.ListOption) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		for cursor := ""; ; {
			var text json.RawMessage
			next, err := list(ctx, c, zone, id, append(slices.Clip(opts), client.Cursor(cursor), client.ResponseJSON(&text))...)
			var items []json.RawMessage
			if err == nil {
				items, err = pageItems(text)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			cursor = next
		}
	}
}

// pageItems returns the items of a page, which is a list, or an object with rows.
func pageItems(text json.RawMessage) (items []json.RawMessage, err error) {
	if err := json.Unmarshal(text, &items); err == nil {
		return items, nil
	}
	var page struct{ Rows []json.RawMessage }
	err = json.Unmarshal(text, &page)
	return page.Rows, err
}

func (a *apiCaller) getCommand(n *noun) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get ID",
		Short:   "Print " + n.one(),
		Long:    fmt.Sprintf("Prints all fields of %s.\n%s", n.one(), apiVariables),
		Example: fmt.Sprintf("  caracald %s get 0198c0de-0000-7000-8000-00000000000a\n  caracald %[1]s get 0198c0de-0000-7000-8000-00000000000a -o yaml", n.name),
		Args:    arguments("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.call(cmd, n, n.get, args[0])
		},
	}
	a.addOutput(cmd)
	return cmd
}

// call performs an operation that returns an object, and prints it.
func (a *apiCaller) call(cmd *cobra.Command, n *noun, f operation, id string, opts ...client.CallOption) error {
	c, zone, err := a.connectFor(cmd, n)
	if err != nil {
		return err
	}
	var object json.RawMessage
	if err := f(cmd.Context(), c, zone, id, append(opts, client.ResponseJSON(&object))...); err != nil {
		return err
	}
	if object == nil { // the operation returns nothing
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s: done\n", n.name, printable(id))
		return err
	}
	return a.printObject(cmd, n, object)
}

// actionCommand returns the command of an operation that is none of the usual ones.
func (a *apiCaller) actionCommand(n *noun, action action) *cobra.Command {
	var in input
	var limit int
	about := strings.TrimSpace(action.does + ". " + action.about)
	cmd := &cobra.Command{
		Use:     action.name + " ID",
		Short:   action.does,
		Long:    about + "\n" + apiVariables,
		Example: strings.TrimRight(fmt.Sprintf("  caracald %s %s 0198c0de-0000-7000-8000-00000000000a %s", n.name, action.name, action.body), " "),
		Args:    arguments("ID"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var opts []client.CallOption
		if action.body != "" {
			in.optional = action.optional
			body, err := in.body(cmd)
			if err != nil {
				return err
			}
			opts = append(opts, client.RequestJSON(body))
		}
		return in.locate(a.call(cmd, n, action.call, strings.Join(args, ""), opts...))
	}
	if action.noID {
		cmd.Use, cmd.Args = action.name, arguments()
		cmd.Example = strings.TrimRight(fmt.Sprintf("  caracald %s %s %s", n.name, action.name, action.body), " ")
	}
	if action.listed != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			c, zone, err := a.connectFor(cmd, n)
			if err != nil {
				return err
			}
			items, err := listAll(cmd, c, zone, args[0], action.listed, limit)
			if err != nil {
				return err
			}
			return a.printItems(cmd, &noun{name: "version", columns: action.columns}, items)
		}
		cmd.Flags().IntVar(&limit, "limit", 0, "maximum `number` of objects; 0 lists all")
	}
	if action.body != "" {
		in.addFlags(cmd)
		cmd.Long = about + "\n" + inputAbout + apiVariables
	}
	a.addOutput(cmd)
	return cmd
}

func (a *apiCaller) createCommand(n *noun) *cobra.Command {
	var in input
	var key string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create " + n.one(),
		Long: fmt.Sprintf(`Creates %s with the fields in a file or in flags, and prints it. If it has a secret,
this is the only time that the API returns it. The fields are those of the API: see /docs
of the service.
%s%s`, n.one(), inputAbout, apiVariables),
		Example: fmt.Sprintf("  caracald %s create %s\n  caracald %[1]s create -f - < %[1]s.json", n.name, n.example),
		Args:    arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := in.body(cmd)
			if err != nil {
				return err
			}
			opts := []client.CallOption{client.RequestJSON(body)}
			if key != "" {
				opts = append(opts, client.IdempotencyKey(key))
			}
			return in.locate(a.call(cmd, n, n.create, "", opts...))
		},
	}
	in.addFlags(cmd)
	cmd.Flags().StringVar(&key, "idempotency-key", "", "`key` of the request: another request with it creates nothing, and prints the same")
	a.addOutput(cmd)
	return cmd
}

func (a *apiCaller) updateCommand(n *noun) *cobra.Command {
	var in input
	var etag string
	cmd := &cobra.Command{
		Use:     "update ID",
		Short:   "Change fields of " + n.one(),
		Long:    fmt.Sprintf("Changes the fields in a file or in flags of %s, and prints it. Other fields keep their\nvalues.\n%s%s", n.one(), inputAbout, apiVariables),
		Example: fmt.Sprintf("  caracald %s update 0198c0de-0000-7000-8000-00000000000a %s\n  caracald %[1]s update 0198c0de-0000-7000-8000-00000000000a -f changes.yaml", n.name, n.patch),
		Args:    arguments("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := in.body(cmd)
			if err != nil {
				return err
			}
			return in.locate(a.call(cmd, n, n.update, args[0], append(ifMatch(etag), client.RequestJSON(body))...))
		},
	}
	in.addFlags(cmd)
	addIfMatch(cmd, &etag)
	a.addOutput(cmd)
	return cmd
}

func addIfMatch(cmd *cobra.Command, etag *string) {
	cmd.Flags().StringVar(etag, "if-match", "", "change the object only if it still has this `ETag`")
}

func ifMatch(etag string) (opts []client.CallOption) {
	if etag != "" {
		opts = append(opts, client.IfMatch(etag))
	}
	return opts
}

func (a *apiCaller) deleteCommand(n *noun) *cobra.Command {
	var etag string
	var yes bool
	verb, past := "delete", "deleted"
	if n.revokes {
		verb, past = "revoke", "revoked"
	}
	cmd := &cobra.Command{
		Use:     verb + " ID",
		Short:   strings.ToUpper(verb[:1]) + verb[1:] + " " + n.one(),
		Long:    fmt.Sprintf("%s %s. On a terminal, it asks before.\n%s", strings.ToUpper(verb[:1])+verb[1:]+"s", n.one(), apiVariables),
		Example: fmt.Sprintf("  caracald %s %s 0198c0de-0000-7000-8000-00000000000a", n.name, verb),
		Args:    arguments("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, zone, err := a.connectFor(cmd, n)
			if err != nil {
				return err
			}
			if !yes {
				if err := confirm(cmd, fmt.Sprintf("%s the %s %s?", strings.ToUpper(verb[:1])+verb[1:], n.words(), printable(args[0]))); err != nil {
					return err
				}
			}
			if err := n.delete(cmd.Context(), c, zone, args[0], ifMatch(etag)...); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s\n", n.name, printable(args[0]), past)
			return err
		},
	}
	if n.revokes {
		cmd.Aliases = []string{"delete"}
	}
	addIfMatch(cmd, &etag)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
