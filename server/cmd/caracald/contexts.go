package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// contexts is the content of the configuration file: services and zones, by name.
type contexts struct {
	Current  string                 `yaml:"current,omitempty"`
	Contexts map[string]*apiContext `yaml:"contexts"`
}

// An apiContext names a service, a zone of it, and the credential for both. Without a
// credential, that of the environment is used.
type apiContext struct {
	URL       string `yaml:"url"`
	Zone      string `yaml:"zone,omitempty"`
	Token     string `yaml:"token,omitempty"`
	TokenFile string `yaml:"token_file,omitempty"`
}

// contextsFile returns the path of the configuration file.
func contextsFile(getenv func(string) string) (string, error) {
	dir := getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home := cmp.Or(getenv("HOME"), getenv("USERPROFILE")) // the latter on Windows
		if home == "" {
			return "", errors.New("neither XDG_CONFIG_HOME nor HOME is set: the configuration file is unknown")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "caracal", "config.yaml"), nil
}

// readContexts reads the configuration file, which need not exist. It returns an error if
// anyone but its owner, who must be the caller, can read or write it.
func readContexts(getenv func(string) string) (*contexts, error) {
	all := &contexts{Contexts: map[string]*apiContext{}}
	name, err := contextsFile(getenv)
	if err != nil {
		return all, nil
	}
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat() // of the open file: another one cannot take its place
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(name, info); err != nil {
		return nil, err
	}
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	if err := decoder.Decode(all); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s is invalid: %w", name, withoutValues(err))
	}
	for context, c := range all.Contexts {
		if c == nil {
			return nil, fmt.Errorf("%s is invalid: the context %q is empty", name, context)
		}
	}
	if all.Contexts == nil {
		all.Contexts = map[string]*apiContext{}
	}
	return all, nil
}

// withoutValues removes from an error of YAML what it quotes of the file, which may be a
// token.
func withoutValues(err error) error {
	var invalid *yaml.TypeError
	if !errors.As(err, &invalid) {
		return errors.New("it is not YAML")
	}
	var lines []string
	for _, e := range invalid.Errors {
		if strings.Contains(e, "not found in type") {
			e, _, _ = strings.Cut(e, " not found in type")
			lines = append(lines, e+" is unknown")
			continue
		}
		line, _, _ := strings.Cut(e, ":")
		lines = append(lines, line+": has another type than it must have")
	}
	return errors.New(strings.Join(lines, "; "))
}

// write replaces the configuration file atomically, with permissions for its owner only.
func (all *contexts) write(getenv func(string) string) error {
	name, err := contextsFile(getenv)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	text, err := yaml.Marshal(all)
	if err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(name), ".config-*.yaml") // with the permissions 0600
	if err != nil {
		return err
	}
	_, err = next.Write(text)
	if err = errors.Join(err, next.Close()); err == nil {
		err = os.Rename(next.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next.Name()))
	}
	return nil
}

// find returns a context by its name; "" is the current one. It returns nil if there is no
// current one.
func (all *contexts) find(name string) (*apiContext, error) {
	if name == "" {
		name = all.Current
	}
	if name == "" {
		return nil, nil
	}
	c := all.Contexts[name]
	if c == nil {
		return nil, fmt.Errorf("there is no context %q: %s", name, all.names())
	}
	return c, nil
}

// names lists the contexts in words.
func (all *contexts) names() string {
	if len(all.Contexts) == 0 {
		return "create one with caracald context set"
	}
	return "there are " + strings.Join(slices.Sorted(maps.Keys(all.Contexts)), ", ")
}
