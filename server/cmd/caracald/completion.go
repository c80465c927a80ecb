package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"caracal.run/management/server"
)

func version(*flag.FlagSet) func(context.Context, io.Writer) error {
	return func(_ context.Context, out io.Writer) error {
		_, err := fmt.Fprintf(out, "caracald %s, %s, %s/%s\n", server.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	}
}

func printSettings(*flag.FlagSet) func(context.Context, io.Writer) error {
	return func(_ context.Context, out io.Writer) error {
		_, err := io.WriteString(out, server.SettingsTable())
		return err
	}
}

// completion returns the setUp of a command that prints a completion script.
func completion(script func() string) func(*flag.FlagSet) func(context.Context, io.Writer) error {
	return func(*flag.FlagSet) func(context.Context, io.Writer) error {
		return func(_ context.Context, out io.Writer) error {
			_, err := io.WriteString(out, script())
			return err
		}
	}
}

// A completedWord is a word that can follow others on the command line.
type completedWord struct{ after, word, description string }

// completedWords returns all words of the commands and their flags.
func completedWords() (words []completedWord) {
	groups := map[string]bool{}
	for _, c := range commands() {
		group, name, hasGroup := strings.Cut(c.name, " ")
		if hasGroup {
			if !groups[group] {
				words = append(words, completedWord{"", group, "has subcommands"})
			}
			groups[group] = true
			words = append(words, completedWord{group, name, c.summary})
		} else {
			words = append(words, completedWord{"", c.name, c.summary})
		}
		flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.setUp(flags)
		words = append(words, completedWord{c.name, "-h", "print the help"})
		flags.VisitAll(func(f *flag.Flag) {
			words = append(words, completedWord{c.name, "-" + f.Name, strings.ReplaceAll(f.Usage, "`", "")})
		})
	}
	return append(words, completedWord{"", "help", "print the usage"})
}

// bash returns the completion script for bash.
func bash() string {
	var after []string
	following := map[string][]string{}
	for _, w := range completedWords() {
		if following[w.after] == nil {
			after = append(after, w.after)
		}
		following[w.after] = append(following[w.after], w.word)
	}
	var b strings.Builder
	b.WriteString(`# completion of caracald
_caracald() {
	local after words
	case $COMP_CWORD in
	1) after= ;;
	2) after=${COMP_WORDS[1]} ;;
	*) after="${COMP_WORDS[1]} ${COMP_WORDS[2]}" ;;
	esac
	case $after in
`)
	for _, name := range after {
		pattern := "'" + name + "'"
		if slices.ContainsFunc(commands(), func(c command) bool { return c.name == name }) {
			pattern += " | '" + name + " '*" // after other flags
		}
		fmt.Fprintf(&b, "\t%s) words='%s' ;;\n", pattern, strings.Join(following[name], " "))
	}
	b.WriteString(`	esac
	COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _caracald caracald
`)
	return b.String()
}

// zsh returns the completion script for zsh, which can use that for bash.
func zsh() string {
	return "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + bash()
}

// fish returns the completion script for fish.
func fish() string {
	var b strings.Builder
	b.WriteString("# fish completion of caracald\n")
	for _, w := range completedWords() {
		condition := "__fish_use_subcommand"
		if w.after != "" {
			condition = "string match -q -- 'caracald " + w.after + "' (string join ' ' -- (commandline -opc)[1.." + fmt.Sprint(2+strings.Count(w.after, " ")) + "])"
		}
		kind := "-a " + w.word
		if name, isFlag := strings.CutPrefix(w.word, "-"); isFlag {
			kind = "-o " + name
		}
		fmt.Fprintf(&b, "complete -c caracald -f -n %q %s -d %q\n", condition, kind, w.description)
	}
	return b.String()
}
