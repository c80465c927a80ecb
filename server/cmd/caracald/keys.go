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
  Rewraps the data key of every zone with the first key of ZONE_KEK, which all
  replicas must already have. With -replace-older, data keys older than DURATION
  are replaced, and their secrets are encrypted with the new ones. The service can
  keep running. If the command is interrupted, run it again to continue.
caracald keys verify
  Decrypts every secret, and fails if one does not decrypt.
`

// keys runs the subcommands rotate and verify, with the settings of caracald serve.
func keys(ctx context.Context, args []string, out io.Writer) (err error) {
	subcommand := ""
	if len(args) > 0 {
		subcommand = args[0]
	}
	flags := flag.NewFlagSet("keys "+subcommand, flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), keysUsage) }
	replaceOlder := new(time.Duration)
	switch subcommand {
	case "rotate":
		flags.DurationVar(replaceOlder, "replace-older", 0, "replace data keys that are older than this duration")
	case "verify":
	case "-h", "-help", "--help":
		flags.Usage()
		return nil
	default:
		flags.Usage()
		return fmt.Errorf("keys: the subcommand must be rotate or verify, not %q", subcommand)
	}
	if err := parse(flags, args[1:]); err != nil {
		return err
	}
	if *replaceOlder < 0 {
		return errors.New("keys rotate: -replace-older must not be negative")
	}
	config, err := server.LoadConfig(os.Environ())
	if err != nil {
		return err
	}
	db, keyring, err := config.OpenStore(ctx)
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
	cause := store.Cause{Actor: store.System, RequestID: uuid.NewString(), Operation: "caracald keys " + subcommand}
	step := func(name string, f func(context.Context, store.Cause, func(int)) error) error {
		last := -1 // the last number that was printed
		progress := func(done int) {
			if done != last {
				fmt.Fprintf(out, "%s: %d\n", name, done)
			}
			last = done
		}
		err := f(ctx, cause, progress)
		if err == nil && last < 0 { // there was nothing to do
			progress(0)
		}
		return err
	}
	if subcommand == "verify" {
		return step("secrets verified", db.VerifySecrets)
	}
	fmt.Fprintln(out, "current key-encryption key:", keyring.Current())
	steps := []func() error{
		func() error { return step("data keys rewrapped", db.RewrapDataKeys) },
		func() error {
			if *replaceOlder == 0 {
				return nil
			}
			return step("data keys replaced", func(ctx context.Context, cause store.Cause, progress func(int)) error {
				return db.ReplaceDataKeys(ctx, cause, *replaceOlder, progress)
			})
		},
		func() error { return step("secrets re-encrypted", db.Reseal) },
	}
	var errs []error
	for _, step := range steps {
		err := step()
		errs = append(errs, err)
		if err != nil && !errors.Is(err, seal.ErrDecrypt) { // a key or secret that does not decrypt must not stop the others
			break
		}
	}
	return errors.Join(errs...)
}
