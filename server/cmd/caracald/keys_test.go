package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

const (
	oldKEK = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
	newKEK = "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
)

func parseKeys(t *testing.T, text string) *seal.Keys {
	t.Helper()
	keys, err := seal.Load(func() (string, error) { return text, nil })
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// A keyFile is a ZONE_KEK_FILE that several processes read.
type keyFile string

func newKeyFile(t *testing.T, text string) keyFile {
	f := keyFile(filepath.Join(t.TempDir(), "kek"))
	f.write(t, text)
	return f
}

// write replaces the file atomically.
func (f keyFile) write(t *testing.T, text string) {
	t.Helper()
	next := string(f) + ".new"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, string(f)); err != nil {
		t.Fatal(err)
	}
}

// settings returns the settings of a service that reads its keys from the file.
func (f keyFile) settings(db *storetest.DB, redisURL string) []string {
	return append(settingsOf(db, redisURL), "DB_POOL_MAX=8", "PUBLIC_URL=http://localhost", "ZONE_KEK=", "ZONE_KEK_FILE="+string(f))
}

// serve starts a replica that reads its keys from the file. The test fails if the
// replica logs a warning, an error or a key.
func (f keyFile) serve(t *testing.T, db *storetest.DB, redisURL string) *rawclient.ClientWithResponses {
	t.Helper()
	return startReplica(t, func(level, line string) {
		if level != "INFO" || strings.Contains(line, oldKEK) || strings.Contains(line, newKEK) {
			t.Errorf("the service logged %s", line)
		}
	}, f.settings(db, redisURL)).client
}

// bearerConfig returns the configuration of a provider with a bearer token.
func bearerConfig(token string) client.ProviderConfigInput {
	return client.BearerTokenProviderConfig{BearerToken: &token}
}

// acknowledgedSecrets maps "zone/provider" to the secret of the last request that
// succeeded.
type acknowledgedSecrets struct{ sync.Map }

// write creates a provider and updates its secret a number of times, each time
// through the next replica. It returns false if a request fails.
func (v *acknowledgedSecrets) write(t *testing.T, replicas []*rawclient.ClientWithResponses, zone, name string, updates int) bool {
	secret := func(n int) string { return fmt.Sprintf("%s in %s, %d", name, zone, n) }
	created, err := replicas[0].CreateProviderWithResponse(context.Background(), zone, client.NewProvider{Name: &name, Kind: "bearer_token", ConfigJSON: bearerConfig(secret(0))})
	if err != nil || created.JSON201 == nil {
		t.Errorf("create: %v %s", err, created.GetBody())
		return false
	}
	v.Store(zone+"/"+created.JSON201.ID, secret(0))
	for n := 1; n <= updates; n++ {
		patched, err := replicas[n%len(replicas)].UpdateProviderWithResponse(context.Background(), zone, created.JSON201.ID, nil, client.ProviderPatch{ConfigJSON: bearerConfig(secret(n))})
		if err != nil || patched.JSON200 == nil {
			t.Errorf("patch: %v %s", err, patched.GetBody())
			return false
		}
		v.Store(zone+"/"+created.JSON201.ID, secret(n))
	}
	return true
}

func newZone(t *testing.T, c *rawclient.ClientWithResponses) string {
	created, err := c.CreateZoneWithResponse(context.Background(), client.NewZone{Name: "Zone"})
	if err != nil || created.JSON201 == nil {
		t.Errorf("create a zone: %v %s", err, created.GetBody())
		return ""
	}
	return created.JSON201.ID
}

// check decrypts all secrets in the database, compares them with the acknowledged
// ones, and returns their number.
func (v *acknowledgedSecrets) check(t *testing.T, db *storetest.DB, keys *seal.Keys) (count int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.OwnerURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "SET caracal.zone_id = '*'"); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), `SELECT zone_id, number, wrapped_by, wrapped, id, secret_config FROM providers JOIN data_keys USING (zone_id) WHERE number = data_key`)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	var w seal.Wrapped
	var id string
	var sealed []byte
	_, err = pgx.ForEachRow(rows, []any{&w.Zone, &w.Number, &w.KEKID, &w.Bytes, &id, &sealed}, func() error {
		key, err := keys.Unwrap(w)
		if err != nil {
			return err
		}
		secret, err := key.Open(seal.Location{Zone: w.Zone, Table: "providers", Column: "secret_config", Row: id}, sealed)
		found[w.Zone+"/"+id] = string(secret)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	v.Range(func(provider, secret any) bool {
		count++
		if !strings.Contains(found[provider.(string)], fmt.Sprintf("%q", secret)) {
			t.Errorf("%s has %q, but %q was acknowledged", provider, found[provider.(string)], secret)
		}
		return true
	})
	if len(found) != count {
		t.Errorf("the database has %d secrets, but %d were acknowledged", len(found), count)
	}
	return count
}

// Keys are rotated while clients write to two replicas, and the rotation is killed
// several times. No request fails, no secret is lost, and afterwards nothing
// requires the old key.
func TestKilledKeyRotationLosesNoSecret(t *testing.T) {
	t.Parallel()
	const zones, writers = 130, 3
	db, redisURL, file := storetest.New(t), storetest.RedisURL(t), newKeyFile(t, oldKEK)
	replicas := []*rawclient.ClientWithResponses{file.serve(t, db, redisURL), file.serve(t, db, redisURL)}
	var secrets acknowledgedSecrets
	var all [zones]string
	var seed sync.WaitGroup
	for n := range 4 {
		seed.Go(func() {
			for i := n; i < zones; i += 4 {
				all[i] = newZone(t, replicas[i%2])
				secrets.write(t, replicas, all[i], "seed", 0)
			}
		})
	}
	seed.Wait()

	stop := make(chan struct{})
	var load sync.WaitGroup
	for n := range writers {
		load.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				zone := all[(n+i*7)%zones]
				if i%5 == 0 { // a new zone has no data key yet
					zone = newZone(t, replicas[i/5%2])
				}
				if !secrets.write(t, replicas, zone, fmt.Sprintf("writer %d %d", n, i), 2) {
					return
				}
			}
		})
	}
	file.write(t, newKEK+"\n"+oldKEK+"\n")
	rotate := []string{"keys", "rotate", "--replace-older", "1ns"}
	for _, at := range []struct {
		text string
		nth  int
	}{{"data keys rewrapped: ", 1}, {"data keys replaced: ", 1}, {"secrets re-encrypted: ", 10}, {"secrets re-encrypted: ", 60}} {
		killAt(t, program(rotate, file.settings(db, redisURL)...), at.text, at.nth)
	}
	out, err := program(rotate, file.settings(db, redisURL)...).CombinedOutput()
	if err != nil {
		t.Errorf("rotate: %v\n%s", err, out)
	}
	close(stop)
	load.Wait()

	count := secrets.check(t, db, parseKeys(t, newKEK+" "+oldKEK))
	out, err = program([]string{"keys", "verify"}, file.settings(db, redisURL)...).CombinedOutput()
	if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil || lines[len(lines)-1] != fmt.Sprint("secrets verified: ", count) {
		t.Errorf("verify, of %d secrets: %v\n%s", count, err, out)
	}
	if n := storetest.Value[int](db, "SELECT count(*) FROM data_keys WHERE wrapped_by <> $1", parseKeys(t, newKEK).Current()); n > 0 {
		t.Errorf("%d data keys are wrapped by the old key", n)
	}
	if n := storetest.Value[int](db, "SELECT count(*) FROM data_keys WHERE number = 1 AND retired_at IS NULL AND zone_id = ANY ($1)", all[:]); n > 0 {
		t.Errorf("%d data keys were not replaced", n)
	}

	file.write(t, newKEK)
	fresh := file.serve(t, db, redisURL)
	for _, zone := range []string{all[0], newZone(t, fresh)} {
		secrets.write(t, []*rawclient.ClientWithResponses{fresh, replicas[0], replicas[1]}, zone, "afterwards", 3)
	}
	secrets.check(t, db, parseKeys(t, newKEK))
	t.Logf("%d secrets", count)
}

// killAt kills a program as soon as it has printed n lines that begin with text.
func killAt(t *testing.T, cmd *exec.Cmd, text string, n int) {
	t.Helper()
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	printed := 0
	for lines := bufio.NewScanner(out); printed < n && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), text) {
			printed++
		}
	}
	_ = cmd.Process.Kill()
	if err := cmd.Wait(); printed < n || err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Errorf("it was not killed after %q: %v", text, err)
	}
}

func TestKeysRotateReportsABrokenZoneAndRotatesTheOthers(t *testing.T) {
	t.Parallel()
	db, redisURL, file := storetest.New(t), storetest.RedisURL(t), newKeyFile(t, oldKEK)
	c := file.serve(t, db, redisURL)
	broken, whole := newZone(t, c), newZone(t, c)
	for _, zone := range []string{broken, whole} {
		new(acknowledgedSecrets).write(t, []*rawclient.ClientWithResponses{c}, zone, "p", 0)
	}
	db.Exec("UPDATE data_keys SET wrapped = 'x' WHERE zone_id = $1", broken)
	file.write(t, newKEK+"\n"+oldKEK+"\n")
	out, err := program([]string{"keys", "rotate", "--replace-older", "1ns"}, file.settings(db, redisURL)...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), broken) || strings.Contains(string(out), whole) {
		t.Errorf("rotate: %v\n%s", err, out)
	}
	if key := storetest.Value[int](db, "SELECT data_key FROM providers WHERE zone_id = $1", whole); key != 2 {
		t.Errorf("the other zone's secret is sealed with data key %d\n%s", key, out)
	}
}

func TestServeAndKeysFailWithoutTheKeysOfTheDatabase(t *testing.T) {
	t.Parallel()
	db, redisURL, file := storetest.New(t), storetest.RedisURL(t), newKeyFile(t, oldKEK)
	c := file.serve(t, db, redisURL)
	new(acknowledgedSecrets).write(t, []*rawclient.ClientWithResponses{c}, newZone(t, c), "p", 0)
	needed := parseKeys(t, oldKEK).Current()
	for _, tt := range []struct{ name, setting, want string }{
		{"another key", "ZONE_KEK=" + newKEK, needed},
		{"another key in a file", "ZONE_KEK_FILE=" + string(newKeyFile(t, newKEK)), needed},
		{"no key", "ZONE_KEK=", "ZONE_KEK: must be set"},
		{"a missing file", "ZONE_KEK_FILE=/nowhere", "ZONE_KEK_FILE: cannot read the file: no such file or directory"},
		{"a key in place of a path", "ZONE_KEK_FILE=" + newKEK, "ZONE_KEK_FILE: cannot read the file: no such file or directory"},
		{"an unreadable file", "ZONE_KEK_FILE=" + t.TempDir(), "ZONE_KEK_FILE: cannot read the file: is a directory"},
		{"an empty file", "ZONE_KEK_FILE=" + string(newKeyFile(t, "\n")), "ZONE_KEK_FILE"},
		{"half a key", "ZONE_KEK=" + oldKEK[:32], "ZONE_KEK: key 1 is not 32 bytes"},
		{"an invalid second key", "ZONE_KEK_FILE=" + string(newKeyFile(t, oldKEK+"\n"+newKEK[:60])), "ZONE_KEK: key 2 is not 32 bytes"},
	} {
		for _, command := range []string{"serve", "keys rotate", "keys verify"} {
			t.Run(command+" with "+tt.name, func(t *testing.T) {
				t.Parallel()
				out, err := program(strings.Fields(command), append(keyFile("").settings(db, redisURL), tt.setting)...).CombinedOutput()
				if err == nil || !strings.Contains(string(out), tt.want) {
					t.Errorf("want %s, got %v\n%s", tt.want, err, out)
				}
				for _, kek := range []string{oldKEK, newKEK} {
					if strings.Contains(string(out), kek[:8]) {
						t.Errorf("the output has a key: %s", out)
					}
				}
			})
		}
	}
}

func TestKeysOutput(t *testing.T) {
	t.Parallel()
	db, file := storetest.New(t), newKeyFile(t, oldKEK)
	for _, tt := range []struct {
		args, want string
		fails      bool
	}{
		{"", "a command is required: rotate, verify", true},
		{"rotat", `unknown command "rotat": use rotate`, true},
		{"--replace-older 1h", "unknown flag: --replace-older", true},
		{"-h", "Verify that every secret decrypts", false},
		{"rotate -h", "--replace-older duration", false},
		{"rotate now", `unexpected argument "now"`, true},
		{"rotate --replace-older 1", "invalid argument", true},
		{"rotate --replace-older -1h", "--replace-older must not be negative", true},
		{"verify --replace-older 1h", "unknown flag", true},
		{"verify", "secrets verified: 0\n", false},
		{"rotate", "current key-encryption key: " + parseKeys(t, oldKEK).Current() + "\ndata keys rewrapped: 0\nsecrets re-encrypted: 0\n", false},
		{"rotate --replace-older 1h", "data keys rewrapped: 0\ndata keys replaced: 0\nsecrets re-encrypted: 0\n", false},
	} {
		t.Run("keys "+tt.args, func(t *testing.T) {
			t.Parallel()
			out, err := program(append([]string{"keys"}, strings.Fields(tt.args)...), file.settings(db, "redis://")...).CombinedOutput()
			if (err != nil) != tt.fails || !strings.Contains(string(out), tt.want) || tt.args == "verify" && string(out) != tt.want {
				t.Errorf("want %s, got %v\n%s", tt.want, err, out)
			}
		})
	}
}
