// Package private runs a Postgres and a Redis for this program alone, from the
// binaries of the machine, which it installs if they are missing. `caracald dev`
// keeps their data in a folder; tests use an ephemeral one.
//
// The servers listen on no port, only on Unix sockets in a folder that only
// their user may enter. So they conflict with no other server of the machine,
// and need no passwords. They do not outlive this program, however it ends: the
// kernel sends them a signal to shut down.
//
// Postgres does not run as root. If this program does, both servers run as the
// owner of the folder's data; in a new folder of root, that is the user
// "postgres" or, if there is none, "nobody".
//
// All this rests on signals, locks and folders of Linux: on other systems, [Start] fails.
package private

// The roles every private Postgres has, next to a database "caracal".
const (
	Owner   = "caracal_owner"   // owns the database, may create databases and roles
	Service = "caracal_service" // may log in, and owns nothing
)

// Options are the data folder and a function for progress messages.
type Options struct {
	// Dir is the folder for the data. Start creates it if it is missing. If Dir
	// is empty, the data is in an ephemeral folder, in RAM if there is enough:
	// Stop removes it, and Start removes those of killed programs.
	Dir string
	// Log, if not nil, is called before each step that takes a while.
	Log func(step string)
}
