package server

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/caarlos0/env/v11"
)

// A ConfigError is an invalid setting.
type ConfigError struct {
	Setting string // its variable
	Problem string // in words; contains no secret
}

func (e ConfigError) Error() string { return e.Setting + ": " + e.Problem }

// ConfigErrors are all invalid settings. Each setting has one error.
type ConfigErrors []ConfigError

func (all ConfigErrors) Error() string {
	lines := make([]string, len(all))
	for i, e := range all {
		lines[i] = e.Error()
	}
	return "invalid settings: " + strings.Join(lines, "; ")
}

// add adds an error of a setting that has none yet.
func (all *ConfigErrors) add(setting, format string, args ...any) {
	name := strings.TrimSuffix(setting, "_FILE")
	if !slices.ContainsFunc(*all, func(e ConfigError) bool { return strings.TrimSuffix(e.Setting, "_FILE") == name }) {
		*all = append(*all, ConfigError{setting, fmt.Errorf(format, args...).Error()})
	}
}

// addParseErrors adds the errors of settings that have values of the wrong type.
func (all *ConfigErrors) addParseErrors(err error, values map[string]string) {
	var parsed env.AggregateError
	if !errors.As(err, &parsed) {
		all.add("environment", "%w", err)
		return
	}
	for _, err := range parsed.Errors {
		var parseErr env.ParseError
		field, known := reflect.StructField{}, false
		if errors.As(err, &parseErr) {
			field, known = reflect.TypeFor[Config]().FieldByName(parseErr.Name)
		}
		if !known {
			all.add("environment", "%w", err)
			continue
		}
		name := field.Tag.Get("env")
		kind := field.Type.Kind()
		if kind == reflect.Pointer {
			kind = field.Type.Elem().Kind()
		}
		switch kind {
		case reflect.Int, reflect.Int64:
			if errors.Is(parseErr.Err, strconv.ErrRange) {
				all.add(name, "is too large or too small: %s", values[name])
			} else {
				all.add(name, "must be a whole number, not %q", values[name])
			}
		case reflect.Bool:
			all.add(name, "must be true or false, not %q", values[name])
		default:
			all.add(name, "%w", parseErr.Err)
		}
	}
}

// of returns the errors of the settings that satisfy used, or nil.
func (all ConfigErrors) of(used func(setting string) bool) error {
	var some ConfigErrors
	for _, e := range all {
		if used(strings.TrimSuffix(e.Setting, "_FILE")) {
			some = append(some, e)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some
}

// prefixes are those of the settings of this service. Variables of other programs, such
// as HOSTNAME or REDIS_PORT_6379_TCP, do not begin with them.
var prefixes = []string{"CARACAL_", "API_", "ADMIN_", "CONTROL_", "DATABASE_", "DB_", "OUTBOX_", "READY_", "REDIS_URL", "STREAMS_", "STS_", "GATEWAY_STS_", "ZONE_KEK", "METRICS_", "TRUST_PROXY"}

// otherVariables are variables with these prefixes that other commands read, or that the
// tours set.
var otherVariables = []string{"CARACAL_MIGRATE_URL", "CARACAL_URL", "CARACAL_ZONE", "CARACAL_DATA"}

// UnknownSettings returns the names of the variables in an environment that begin like
// settings but are none, sorted, each with the setting that is most similar, or "".
func UnknownSettings(environ []string) (unknown [][2]string) {
	known := slices.Clone(otherVariables)
	for field := range settings() {
		known = append(known, field.Tag.Get("env"))
	}
	for _, pair := range environ {
		variable, _, _ := strings.Cut(pair, "=")
		name := strings.TrimSuffix(variable, "_FILE")
		similar := mostSimilar(name, known)
		ours := slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		// Kubernetes and Docker set such variables for each service that a container can reach.
		ofService := strings.Contains(name, "_SERVICE_") || strings.Contains(name, "_PORT_") || strings.HasSuffix(name, "_PORT")
		if slices.Contains(known, name) || ofService || !ours && similar == "" {
			continue
		}
		unknown = append(unknown, [2]string{variable, similar})
	}
	slices.SortFunc(unknown, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return unknown
}

// mostSimilar returns the long name in known that begins with name or differs from it by
// at most two letters, or "".
func mostSimilar(name string, known []string) (similar string) {
	const minLength, maxDistance = 8, 2
	least := maxDistance + 1
	for _, k := range known {
		if len(name) < minLength {
			break
		}
		d := distance(name, k)
		if strings.HasPrefix(k, name) {
			d = 1
		}
		if d < least {
			similar, least = k, d
		}
	}
	return similar
}

// distance returns the Levenshtein distance between two names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
