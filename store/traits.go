package store

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"caracal.run/management/gen/code"
)

var traitPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._:-]*$`)

// checkTraits says whether the actor may give these traits. The rules, their
// order and their words are the contract's (applications.md, "Trait rules").
func (tx *Tx) checkTraits(traits []string) error {
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
		if err := tx.checkTraitAccess(traits[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// checkTraitAccess refuses traits of a privileged namespace to everybody but
// global actors: neither to be given, nor to be changed where they are, or
// whoever may write in a zone could take over what acts for Caracal itself.
func (tx *Tx) checkTraitAccess(traits []string) error {
	if tx.cause.Actor.Global() {
		return nil
	}
	for _, trait := range traits {
		if space, _, _ := strings.Cut(trait, ":"); space == "control" || space == "caracal.sys" {
			return code.TraitForbidden.With("detail", fmt.Sprintf("trait namespace '%s' requires global admin scope", space))
		}
	}
	return nil
}
