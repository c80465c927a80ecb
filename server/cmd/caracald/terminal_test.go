package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caracal.run/management/server/servertest"
)

// newTerminal returns both ends of a terminal: what is written to one is read at the other.
func newTerminal(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keyboard.Close(); _ = terminal.Close() })
	return keyboard, terminal
}

// On a terminal, a command asks before it deletes or applies anything, unless --yes is given.
func TestConfirmation(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	s := newShell(t, a, zone)
	file := s.file("zone.yaml", "objects:\n- {kind: application, spec: {name: Billing}}\n")
	for _, tt := range []struct {
		reply string
		args  []string
		code  int
		want  string // on the standard error
	}{
		{"n\n", []string{"apply", file}, exitFailed, "Make these changes? [y/N] caracald: not confirmed: nothing was changed\n"},
		{"\n", []string{"apply", file}, exitFailed, "[y/N] "},
		{"yes\n", []string{"apply", file}, 0, "Make these changes? [y/N] "},
		{"", []string{"apply", file, "--yes"}, 0, ""},
		{"no\n", []string{"zone", "delete", zone}, exitFailed, "Delete the zone " + zone + "? [y/N] "},
		{"", []string{"zone", "delete", zone, "--yes"}, 0, ""},
	} {
		keyboard, terminal := newTerminal(t)
		if _, err := keyboard.WriteString(tt.reply); err != nil {
			t.Fatal(err)
		}
		var out, errOut bytes.Buffer
		if code := s.start(t.Context(), terminal, &out, &errOut, tt.args...); code != tt.code || !strings.Contains(errOut.String(), tt.want) || (tt.reply == "") != (errOut.String() == "") {
			t.Errorf("%v after %q: exit code %d, want %d, %q\n%s%s", tt.args, tt.reply, code, tt.code, tt.want, &out, &errOut)
		}
	}
}

// The output has colors on a terminal only, and there only without NO_COLOR.
func TestColors(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	s := newShell(t, a, a.Zone().ID)
	file := s.file("zone.yaml", "objects:\n- {kind: application, spec: {name: Billing}}\n")
	for noColor, want := range map[string]bool{"": true, "1": false} {
		s.variables["NO_COLOR"] = noColor
		keyboard, terminal := newTerminal(t)
		var errOut bytes.Buffer
		if code := s.start(t.Context(), strings.NewReader(""), terminal, &errOut, "plan", file); code != 0 {
			t.Fatalf("exit code %d, %s", code, &errOut)
		}
		text := make([]byte, 4096)
		n, err := keyboard.Read(text)
		if err != nil || strings.Contains(string(text[:n]), "\x1b[32m+ application") != want {
			t.Errorf("with NO_COLOR=%q, the output is %q, %v", noColor, text[:n], err)
		}
	}
}
