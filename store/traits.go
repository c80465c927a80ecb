package store

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"caracal.run/management/gen/code"
)

var traitForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._:-]*$`)

// checkTraits says whether the actor may give these traits. The rules, their
// order and their words are the contract's (applications.md, "Trait rules").
func (tx *Tx) checkTraits(traits []string) error {
	const most, longest = 32, 128
	if len(traits) > most {
		return code.TraitCountExceeded.With("detail", fmt.Sprintf("at most %d traits allowed", most))
	}
	for i, t := range traits {
		switch {
		case t == "" || utf8.RuneCountInString(t) > longest:
			return code.TraitInvalid.With("detail", fmt.Sprintf("traits must be 1..%d chars", longest))
		case !traitForm.MatchString(t):
			return code.TraitInvalid.With("detail", fmt.Sprintf("trait '%s' violates [A-Za-z][A-Za-z0-9._:-]* format", t))
		case slices.Contains(traits[:i], t):
			return code.TraitDuplicate.With("detail", fmt.Sprintf("duplicate trait '%s'", t))
		}
		if err := tx.mayTouchTraits(traits[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// mayTouchTraits refuses traits of a privileged namespace to everybody but
// global actors: neither to be given, nor to be changed where they are, or
// whoever may write in a zone could take over what acts for Caracal itself.
func (tx *Tx) mayTouchTraits(traits []string) error {
	if tx.cause.Actor.Global() {
		return nil
	}
	for _, t := range traits {
		if space, _, _ := strings.Cut(t, ":"); space == "control" || space == "caracal.sys" {
			return code.TraitForbidden.With("detail", fmt.Sprintf("trait namespace '%s' requires global admin scope", space))
		}
	}
	return nil
}
