package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"caracal.run/management/server"
)

// A command is a command of the program, or the command of a group such as "keys".
type command struct {
	name        string // as typed: one or two words
	summary     string
	description string
	example     string
	argument    string                    // the name of its argument; "": it has none
	settings    func(setting string) bool // those that it reads; nil: none
	// setUp defines the flags and returns the function that runs the command after they
	// were parsed.
	setUp func(*flag.FlagSet) func(context.Context, io.Writer) error
}

func allSettings(string) bool { return true }

// commands returns all commands, in the order of the usage.
func commands() []command {
	return []command{
		{
			name: "dev", summary: "serve with a private Postgres and Redis, which it starts",
			description: "Starts a Postgres and a Redis that listen on no port, applies the migrations, creates\na bootstrap token, and serves on http://127.0.0.1:3000. It sets DATABASE_URL and\nREDIS_URL, and other required settings if they are not set.",
			example:     "PORT=8080 caracald dev -demo",
			settings:    func(s string) bool { return s != "DATABASE_URL" && s != "REDIS_URL" }, setUp: dev,
		},
		{
			name: "serve", summary: "serve with the Postgres and Redis in the settings",
			description: "Serves until it receives SIGTERM or Ctrl-C, and then completes the accepted requests.\nThe schema must be migrated. It writes its log to the standard output: as JSON, or as\ntext in dev mode.",
			example:     "DATABASE_URL=postgres://caracal_service:…@db/caracal REDIS_URL=redis://redis \\\n    ZONE_KEK_FILE=zone-kek STREAMS_HMAC_KEY_FILE=streams-hmac-key caracald serve",
			settings:    allSettings, setUp: serve,
		},
		{
			name: "migrate", summary: "migrate the schema, as its owner",
			description: "Applies the migrations that the database lacks. Several can run at the same time.\n\nSettings:\n  CARACAL_MIGRATE_URL\n        Postgres connection URL with the role that owns the schema; required",
			example:     "CARACAL_MIGRATE_URL=postgres://caracal_owner:…@db/caracal caracald migrate",
			setUp:       migrate,
		},
		{
			name: "keys rotate", summary: "rewrap data keys with the first key of ZONE_KEK",
			description: "Rewraps the data key of every zone with the first key of ZONE_KEK, which all replicas\nmust already have. With -replace-older, data keys older than the duration are replaced,\nand their secrets are encrypted with the new ones. The service can keep running. If the\ncommand is interrupted, run it again to continue.",
			example:     "DATABASE_URL=postgres://caracal_service:…@db/caracal ZONE_KEK_FILE=zone-kek \\\n    caracald keys rotate -replace-older 720h",
			settings:    server.UsedByStore, setUp: keysRotate,
		},
		{
			name: "keys verify", summary: "verify that every secret decrypts",
			description: "Decrypts every secret, and fails if one does not decrypt, for example after a restore.",
			example:     "DATABASE_URL=postgres://caracal_service:…@db/caracal ZONE_KEK_FILE=zone-kek \\\n    caracald keys verify",
			settings:    server.UsedByStore, setUp: keysVerify,
		},
		{
			name: "audit verify", summary: "verify an export of an audit log, without the service",
			description: "Verifies an export of audit entries or of authorization audit events with format=ndjson:\nthat no row was changed, deleted, inserted or moved since it was hashed. It prints the\nfirst line that does not fit and exits with code 1, or prints what it could not verify.\nFILE - is the standard input.",
			example:     "curl -H \"Authorization: Bearer $TOKEN\" \"$URL/v1/zones/$ZONE/admin-audit?format=ndjson\" > audit.ndjson\n  AUDIT_HMAC_KEY_FILE=audit-hmac-key caracald audit verify audit.ndjson",
			argument:    "FILE", settings: server.UsedByAuditVerify, setUp: auditVerify,
		},
		{
			name: "settings", summary: "print the settings as a Markdown table",
			description: "Prints all settings of serve with their default values.", example: "caracald settings", setUp: printSettings,
		},
		{
			name: "load", summary: "run a mixed load test on private servers",
			description: "Starts an ephemeral Postgres, Redis and service, sends requests, and prints latencies,\nerrors and memory.",
			example:     "caracald load -for 30s -callers 32", setUp: load,
		},
		{
			name: "completion bash", summary: "print the completion script for bash",
			description: "Prints a script that completes commands and flags in bash.", example: "source <(caracald completion bash)", setUp: completion(bash),
		},
		{
			name: "completion zsh", summary: "print the completion script for zsh",
			description: "Prints a script that completes commands and flags in zsh.", example: "source <(caracald completion zsh)", setUp: completion(zsh),
		},
		{
			name: "completion fish", summary: "print the completion script for fish",
			description: "Prints a script that completes commands and flags in fish.", example: "caracald completion fish | source", setUp: completion(fish),
		},
		{
			name: "version", summary: "print the version",
			description: "Prints the version of the program, of Go and of the platform.", example: "caracald version", setUp: version,
		},
	}
}

// find returns the command that the first arguments name, and the other arguments. It
// prints the help of a group as that of its commands.
func find(args []string) (command, []string, error) {
	var inGroup []string
	for _, c := range commands() {
		group, name, hasGroup := strings.Cut(c.name, " ")
		switch {
		case group != args[0]:
		case !hasGroup:
			return c, args[1:], nil
		case len(args) > 1 && args[1] == name:
			return c, args[2:], nil
		default:
			inGroup = append(inGroup, name)
		}
	}
	if inGroup == nil {
		return command{}, nil, usageError(fmt.Sprintf("unknown command %q\n\n%s", args[0], usage()))
	}
	if len(args) > 1 && slices.Contains([]string{"-h", "-help", "--help"}, args[1]) {
		return groupHelp(args[0]), nil, nil
	}
	given := ""
	if len(args) > 1 {
		given = args[1]
	}
	return command{}, nil, usageError(fmt.Sprintf("%s: the subcommand must be %s, not %q\nRun 'caracald %[1]s -h' for help.", args[0], strings.Join(inGroup, " or "), given))
}

// groupHelp returns a command that prints the help of all commands in a group.
func groupHelp(group string) command {
	return command{name: group, setUp: func(*flag.FlagSet) func(context.Context, io.Writer) error {
		return func(_ context.Context, out io.Writer) error {
			for _, c := range commands() {
				if strings.HasPrefix(c.name, group+" ") {
					fmt.Fprintf(out, "caracald %s: %s\n", c.name, c.summary)
				}
			}
			_, err := fmt.Fprintln(out, "\nRun one of them with -h for its flags, its settings and an example.")
			return err
		}
	}}
}

// usage returns the help of the program.
func usage() string {
	var b strings.Builder
	b.WriteString("caracald is the Caracal Management API.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  caracald %-16s %s\n", c.name, c.summary)
	}
	b.WriteString(`
Run a command with -h for its flags, its settings and an example. Settings are
environment variables. To read the value of NAME from a file, set NAME_FILE to
its path.

Exit codes: 0 success, 1 failure, 2 invalid arguments or settings.
`)
	return b.String()
}

// help returns the help of the command.
func (c command) help(flags *flag.FlagSet) string {
	var b strings.Builder
	fmt.Fprintf(&b, "caracald %s: %s\n\n%s\n", c.name, c.summary, c.description)
	if hasFlags(flags) {
		b.WriteString("\nFlags:\n")
		flags.SetOutput(&b)
		flags.PrintDefaults()
	}
	if c.settings != nil {
		fmt.Fprintf(&b, "\nSettings:\n%s", server.SettingsHelp(c.settings))
	}
	fmt.Fprintf(&b, "\nExample:\n  %s\n", c.example)
	return b.String()
}

func hasFlags(flags *flag.FlagSet) (has bool) {
	flags.VisitAll(func(*flag.Flag) { has = true })
	return has
}
