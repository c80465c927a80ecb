package server_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const clientProgram = `package main

import (
	"context"
	"fmt"

	"caracal.run/management/gen/client"
)

func main() {
	c, err := client.New("https://caracal.example.com", "token")
	if err != nil {
		panic(err)
	}
	zone, err := c.CreateZone(context.Background(), client.NewZone{Name: "Production"})
	fmt.Println(zone.ID, client.Code(err) == client.CodeZoneSlugConflict)
	for app, err := range c.Applications(context.Background(), zone.ID) {
		fmt.Println(app.Name, err)
	}
}
`

// TestClientModule checks, in a module of its own, that a program that imports
// the client depends on no other module.
func TestClientModule(t *testing.T) {
	t.Parallel()
	clientFolder, err := filepath.Abs("../gen/client")
	if err != nil {
		t.Fatal(err)
	}
	program := t.TempDir()
	for name, text := range map[string]string{
		"main.go": clientProgram,
		"go.mod": "module example.com/program\n\ngo 1.26.0\n\nrequire caracal.run/management/gen/client v0.0.0\n\n" +
			"replace caracal.run/management/gen/client => " + clientFolder + "\n",
	} {
		if err := os.WriteFile(filepath.Join(program, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	goTool := func(args ...string) []string {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir = program
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, &stderr)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	goTool("build", "-o", filepath.Join(program, "program"), ".")
	modules := goTool("list", "-m", "-f", "{{.Path}}", "all")
	if want := []string{"example.com/program", "caracal.run/management/gen/client"}; !slices.Equal(modules, want) {
		t.Errorf("the program depends on the modules %q, want %q", modules, want)
	}
	packages := goTool("list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
	packages = slices.DeleteFunc(packages, func(p string) bool { return p == "" })
	if want := []string{"caracal.run/management/gen/client", "example.com/program"}; !slices.Equal(packages, want) {
		t.Errorf("the program contains the packages %q, want %q", packages, want)
	}
}
