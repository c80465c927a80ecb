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

// keysRotate rewraps data keys, and replaces old ones.
func keysRotate(flags *flag.FlagSet) func(context.Context, io.Writer) error {
	replaceOlder := flags.Duration("replace-older", 0, "replace data keys that are older than this `duration`; 0 replaces none")
	return func(ctx context.Context, out io.Writer) error {
		if *replaceOlder < 0 {
			return usageError("keys rotate: -replace-older must not be negative")
		}
		return changeKeys(ctx, out, "rotate", *replaceOlder)
	}
}

// keysVerify decrypts every secret.
func keysVerify(*flag.FlagSet) func(context.Context, io.Writer) error {
	return func(ctx context.Context, out io.Writer) error { return changeKeys(ctx, out, "verify", 0) }
}

// changeKeys runs a subcommand. It requires only the settings of the store.
func changeKeys(ctx context.Context, out io.Writer, subcommand string, replaceOlder time.Duration) error {
	config, err := server.LoadStoreConfig(os.Environ())
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
			if replaceOlder == 0 {
				return nil
			}
			return step("data keys replaced", func(ctx context.Context, cause store.Cause, progress func(int)) error {
				return db.ReplaceDataKeys(ctx, cause, replaceOlder, progress)
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
