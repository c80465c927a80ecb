package control

// A Description is the catalog as it is returned to callers.
type Description struct {
	Commands    []CommandDescription `json:"commands"`
	Declarative Declarative          `json:"declarative"`
}

// A CommandDescription describes a command.
type CommandDescription struct {
	Command        string                  `json:"command"`
	Summary        string                  `json:"summary"`
	DelegatesScope bool                    `json:"delegatesScope"` // its subcommands require no scope of its own
	Subcommands    []SubcommandDescription `json:"subcommands"`
}

// A SubcommandDescription describes a subcommand.
type SubcommandDescription struct {
	Subcommand string            `json:"subcommand"`
	Summary    string            `json:"summary"`
	Scope      *string           `json:"scope"`
	Flags      []FlagDescription `json:"flags"`
}

// A FlagDescription describes a flag. The names of flags have no dashes before them.
type FlagDescription struct {
	Name     string `json:"name"`
	Summary  string `json:"summary"`
	Type     Kind   `json:"type"`
	Required bool   `json:"required"`
}

// Declarative describes declarative management.
type Declarative struct {
	Kinds          []StateKind `json:"kinds"`
	DocumentSchema string      `json:"documentSchema"`
}

// Describe describes the catalog.
func Describe() Description {
	d := Description{Declarative: Declarative{Kinds: StateKinds, DocumentSchema: documentSchema}}
	for _, c := range Commands {
		command := CommandDescription{Command: c.Name, Summary: c.Summary, Subcommands: []SubcommandDescription{}}
		for _, s := range c.Subcommands {
			described := SubcommandDescription{Subcommand: s.Name, Summary: s.Summary, Flags: []FlagDescription{}}
			if s.Scope != "" {
				described.Scope = &s.Scope
			} else {
				command.DelegatesScope = true
			}
			for _, f := range s.Flags {
				described.Flags = append(described.Flags, FlagDescription{f.Name, f.Summary, f.Kind, f.Required})
			}
			if s.changes() {
				described.Flags = append(described.Flags, FlagDescription{idempotencyFlag, "Text for the audit log. It has no other effect.", Text, false})
			}
			command.Subcommands = append(command.Subcommands, described)
		}
		d.Commands = append(d.Commands, command)
	}
	return d
}

const documentSchema = `An object with "objects", an array of {"kind", "spec"}, and optionally "owner", "prune", "prune_kinds" and ` +
	`"prune_max_share": the schema StateDocument of the API specification, without the kind "zone".`
