package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"

	"caracal.run/management/server"
	"caracal.run/management/store"
)

const keysUsage = `caracald keys rotate [-replace-older DURATION]
  Wraps every zone's data key with the first key of ZONE_KEK. With
  -replace-older, zones whose data key is older than that get a new one, and
  their secrets are sealed with it. The service goes on meanwhile. Broken off, it
  goes on where it was when it is run again.
caracald keys verify
  Opens every secret and says whether all did.
`

// keys works with the settings of caracald serve.
func keys(ctx context.Context, args []string, out io.Writer) (err error) {
	if len(args) == 0 {
		return errors.New("keys: say rotate or verify\n" + keysUsage)
	}
	flags := flag.NewFlagSet("keys "+args[0], flag.ContinueOnError)
	older := flags.Duration("replace-older", 0, "replace data keys that are older than this")
	if err := parse(flags, args[1:]); err != nil {
		return err
	}
	config, err := server.LoadConfig(os.Environ())
	if err != nil {
		return err
	}
	db, ring, err := config.OpenStore(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.CheckSchema(ctx); err != nil {
		return err
	}
	if err := db.CheckKeys(ctx); err != nil {
		return err
	}
	cause := store.Cause{Actor: store.System, RequestID: uuid.NewString(), Operation: "caracald keys " + args[0]}
	step := func(what string, f func(context.Context, store.Cause, func(int)) error) error {
		done := 0
		err := f(ctx, cause, func(n int) {
			done = n
			fmt.Fprintf(out, "%s: %d\n", what, n)
		})
		if err == nil && done == 0 { // nothing was to be done
			fmt.Fprintf(out, "%s: 0\n", what)
		}
		return err
	}
	switch args[0] {
	case "verify":
		return step("secrets that open", db.VerifySecrets)
	case "rotate":
		fmt.Fprintln(out, "the key-encryption key", ring.Current(), "wraps")
		if err := step("data keys rewrapped", db.RewrapDataKeys); err != nil {
			return err
		}
		if *older > 0 {
			before := time.Now().Add(-*older)
			err := step("data keys replaced", func(ctx context.Context, cause store.Cause, progress func(int)) error {
				return db.ReplaceDataKeys(ctx, cause, before, progress)
			})
			if err != nil {
				return err
			}
		}
		return step("secrets resealed", db.Reseal)
	}
	return fmt.Errorf("keys: what is %q?\n%s", args[0], keysUsage)
}
