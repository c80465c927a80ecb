//go:build linux

package private

import "context"

// Install installs on a machine whose programs are all on PATH.
func Install(ctx context.Context, root, terminal bool, log func(string)) error {
	return machine{root: root, terminal: terminal}.install(ctx, log)
}
