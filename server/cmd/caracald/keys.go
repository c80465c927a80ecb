package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"caracal.run/management/server"
	"caracal.run/management/store"
	"caracal.run/management/store/seal"
)

func keysCommand() *cobra.Command {
	var replaceOlder time.Duration
	rotate := &cobra.Command{
		Use:   "rotate",
		Short: "Rewrap data keys with the first key of ZONE_KEK",
		Long: withSettings(`Rewraps the data key of every zone with the first key of ZONE_KEK, which all replicas
must already have. With --replace-older, data keys older than the duration are replaced,
and their secrets are encrypted with the new ones. The service can keep running. If the
command is interrupted, run it again to continue.`, server.UsedByStore),
		Example: `  DATABASE_URL=postgres://caracal_service:…@db/caracal ZONE_KEK_FILE=zone-kek \
    caracald keys rotate --replace-older 720h`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if replaceOlder < 0 {
				return invalidUsage(cmd, "--replace-older must not be negative")
			}
			return changeKeys(cmd.Context(), cmd.OutOrStdout(), "rotate", replaceOlder)
		},
	}
	rotate.Flags().DurationVar(&replaceOlder, "replace-older", 0, "replace data keys that are older than this `duration`; 0 replaces none")
	verify := &cobra.Command{
		Use:   "verify",
		Short: "Verify that every secret decrypts",
		Long:  withSettings("Decrypts every secret, and fails if one does not decrypt, for example after a restore.", server.UsedByStore),
		Example: `  DATABASE_URL=postgres://caracal_service:…@db/caracal ZONE_KEK_FILE=zone-kek \
    caracald keys verify`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return changeKeys(cmd.Context(), cmd.OutOrStdout(), "verify", 0)
		},
	}
	keys := &cobra.Command{Use: "keys", Short: "Rotate and verify the keys that encrypt secrets", Example: "  caracald keys verify"}
	keys.AddCommand(rotate, verify)
	return keys
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
