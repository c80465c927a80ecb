package store

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"caracal.run/management/gen/code"
	"caracal.run/management/store/controlkey"
)

var traitPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._:-]*$`)

// CheckTraits checks the traits of an application that an actor creates or changes and
// returns the error code of the first violation: trait_count_exceeded, trait_invalid,
// trait_duplicate or trait_forbidden. The order of the checks and the texts of
// the details are part of the API. The traits of a Control key are checked last.
func CheckTraits(actor Actor, traits []string) error {
	const maxTraits, maxLength = 32, 128
	if len(traits) > maxTraits {
		return code.TraitCountExceeded.With("detail", fmt.Sprintf("at most %d traits allowed", maxTraits))
	}
	for i, trait := range traits {
		switch {
		case trait == "" || utf8.RuneCountInString(trait) > maxLength:
			return code.TraitInvalid.With("detail", fmt.Sprintf("traits must be 1..%d chars", maxLength))
		case !traitPattern.MatchString(trait):
			return code.TraitInvalid.With("detail", fmt.Sprintf("trait '%s' violates [A-Za-z][A-Za-z0-9._:-]* format", trait))
		case slices.Contains(traits[:i], trait):
			return code.TraitDuplicate.With("detail", fmt.Sprintf("duplicate trait '%s'", trait))
		}
		if err := CheckTraitAccess(actor, traits[i:i+1]); err != nil {
			return err
		}
	}
	if _, _, err := controlkey.Parse(traits); err != nil {
		return code.TraitInvalid.With("detail", err.Error())
	}
	return nil
}

// CheckTraitAccess returns trait_forbidden if the actor is not global and a trait
// is in a privileged namespace. Such an actor can neither set these traits nor
// change an application that has them: otherwise any token with write access to
// the zone could take over an application that acts for Caracal itself.
func CheckTraitAccess(actor Actor, traits []string) error {
	if actor.Global() {
		return nil
	}
	for _, trait := range traits {
		if prefix, _, _ := strings.Cut(trait, ":"); prefix == "control" || prefix == "caracal.sys" {
			return code.TraitForbidden.With("detail", fmt.Sprintf("trait namespace '%s' requires global admin scope", prefix))
		}
	}
	return nil
}
