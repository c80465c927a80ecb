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
	"caracal.run/management/store/seal"
)

const keysUsage = `caracald keys rotate [-replace-older DURATION]
  Wraps every zone's data key with the first key of ZONE_KEK, which every replica
  must know by now. With -replace-older, zones whose data key is older than that
  get a new one, and their secrets are sealed with it. The service goes on
  meanwhile. Broken off, it goes on where it was when it is run again.
caracald keys verify
  Opens every secret and says whether all did.
`

// keys works with the settings of caracald serve.
func keys(ctx context.Context, args []string, out io.Writer) (err error) {
	what := ""
	if len(args) > 0 {
		what = args[0]
	}
	flags := flag.NewFlagSet("keys "+what, flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), keysUsage) }
	older := new(time.Duration)
	switch what {
	case "rotate":
		flags.DurationVar(older, "replace-older", 0, "replace data keys that are older than this")
	case "verify":
	case "-h", "-help", "--help":
		flags.Usage()
		return nil
	default:
		flags.Usage()
		return fmt.Errorf("keys: say rotate or verify, not %q", what)
	}
	if err := parse(flags, args[1:]); err != nil {
		return err
	}
	if *older < 0 {
		return fmt.Errorf("keys rotate: nothing is older than %s", *older)
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
	cause := store.Cause{Actor: store.System, RequestID: uuid.NewString(), Operation: "caracald keys " + what}
	step := func(what string, f func(context.Context, store.Cause, func(int)) error) error {
		last := -1 // what was told
		tell := func(done int) {
			if done != last {
				fmt.Fprintf(out, "%s: %d\n", what, done)
			}
			last = done
		}
		err := f(ctx, cause, tell)
		if err == nil && last < 0 { // nothing was to be done
			tell(0)
		}
		return err
	}
	if what == "verify" {
		return step("secrets that open", db.VerifySecrets)
	}
	fmt.Fprintln(out, "the key-encryption key", ring.Current(), "wraps")
	steps := []func() error{
		func() error { return step("data keys rewrapped", db.RewrapDataKeys) },
		func() error {
			if *older == 0 {
				return nil
			}
			return step("data keys replaced", func(ctx context.Context, cause store.Cause, progress func(int)) error {
				return db.ReplaceDataKeys(ctx, cause, *older, progress)
			})
		},
		func() error { return step("secrets resealed", db.Reseal) },
	}
	var failed []error
	for _, one := range steps {
		err := one()
		failed = append(failed, err)
		if err != nil && !errors.Is(err, seal.ErrDecrypt) { // what does not open holds up nothing else
			break
		}
	}
	return errors.Join(failed...)
}
