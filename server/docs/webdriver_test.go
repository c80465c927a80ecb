//go:build browser

package docs_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A browser is a headless Chromium, spoken to through chromedriver in the
// protocol of W3C WebDriver.
type browser struct {
	tb      testing.TB
	session string // the session's address
}

// open starts a Chromium that has never seen anything, and that looks at the
// page the way one of a scheme and a size does.
func open(tb testing.TB, scheme string, width, height int) *browser {
	tb.Helper()
	options := map[string]any{
		"args": []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
			"--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
			"--user-data-dir=" + filepath.Join(tb.TempDir(), "profile"),
		},
	}
	if path, err := exec.LookPath("chromium"); err == nil {
		options["binary"] = path
	}
	b := &browser{tb: tb, session: driver(tb)}
	var made struct{ SessionID string }
	b.call(&made, "POST", "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"browserName":        "chrome",
		"goog:chromeOptions": options,
		"goog:loggingPrefs":  map[string]string{"browser": "ALL", "performance": "ALL"},
	}}})
	b.session += "/session/" + made.SessionID
	tb.Cleanup(func() { b.call(nil, "DELETE", "", nil) })
	b.tell("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
	b.tell("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
	// Chromium opens with a page of its own: what that asked for is no news.
	b.visit("about:blank")
	b.log("performance")
	b.log("browser")
	return b
}

var listening = regexp.MustCompile(`successfully on port (\d+)`)

// driver starts a chromedriver that dies with the test, and is its address.
func driver(tb testing.TB) string {
	tb.Helper()
	cmd := exec.Command("chromedriver", "--port=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("this test needs Debian's chromium and chromium-driver (task browser installs them): %v", err)
	}
	tb.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if port := listening.FindStringSubmatch(lines.Text()); port != nil {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return "http://127.0.0.1:" + port[1]
		}
	}
	tb.Fatal("chromedriver does not say where it listens")
	return ""
}

// call sends a command and reads the value that it answers.
func (b *browser) call(into any, method, path string, body any) {
	b.tb.Helper()
	if err := b.try(into, method, path, body); err != nil {
		b.tb.Fatal(err)
	}
}

func (b *browser) try(into any, method, path string, body any) error {
	var text io.Reader
	if method == "POST" {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		text = bytes.NewReader(encoded)
	}
	r, err := http.NewRequest(method, b.session+path, text)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %.500s", method, path, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, &struct{ Value any }{into})
}

// tell speaks to Chromium itself, past WebDriver.
func (b *browser) tell(command string, parameters map[string]any) {
	b.tb.Helper()
	b.call(nil, "POST", "/goog/cdp/execute", map[string]any{"cmd": command, "params": parameters})
}

func (b *browser) visit(address string) {
	b.tb.Helper()
	b.call(nil, "POST", "/url", map[string]string{"url": address})
}

// element waits until a selector finds something, and is its address.
func (b *browser) element(selector string) string {
	b.tb.Helper()
	var found map[string]string
	b.eventually(selector, func() error {
		return b.try(&found, "POST", "/element", map[string]string{"using": "css selector", "value": selector})
	})
	for _, id := range found {
		return "/element/" + id
	}
	b.tb.Fatalf("%s has no id", selector)
	return ""
}

// click clicks as a person does, who first brings a thing from under the
// header: on what is visible and uncovered.
func (b *browser) click(selector string) {
	b.tb.Helper()
	b.eventually("click "+selector, func() error {
		button := b.element(selector)
		run[any](b, "document.querySelector(arguments[0])?.scrollIntoView({block: 'center'})", selector)
		return b.try(nil, "POST", button+"/click", map[string]any{})
	})
}

// write replaces what is in a field.
func (b *browser) write(selector, text string) {
	b.tb.Helper()
	field := b.element(selector)
	const selectAll = "\ue009a\ue000" // Control with A, then no key
	b.call(nil, "POST", field+"/value", map[string]string{"text": selectAll + "\ue017" + text})
}

// text is what is to be read in an element.
func (b *browser) text(selector string) (shown string) {
	b.tb.Helper()
	b.call(&shown, "GET", b.element(selector)+"/text", nil)
	return shown
}

// run is what a script returns.
func run[T any](b *browser, script string, args ...any) (result T) {
	b.tb.Helper()
	b.call(&result, "POST", "/execute/sync", map[string]any{"script": script, "args": append([]any{}, args...)})
	return result
}

// shows waits until an element has a text in it.
func (b *browser) shows(selector, text string) {
	b.tb.Helper()
	b.eventually(selector+" shows "+text, func() error {
		if shown := run[string](b, "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent).join('\\n')", selector); !strings.Contains(shown, text) {
			return fmt.Errorf("it shows %.500q", shown)
		}
		return nil
	})
}

func (b *browser) eventually(what string, happens func() error) {
	b.tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := happens()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.tb.Fatalf("never: %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A logEntry is what the console, or Chromium itself, has to say.
type logEntry struct{ Level, Source, Message string }

// log is what was logged since it was last asked for.
func (b *browser) log(kind string) (entries []logEntry) {
	b.tb.Helper()
	b.call(&entries, "POST", "/se/log", map[string]string{"type": kind})
	return entries
}

// picture saves what is on the screen, if somebody wants to look.
func (b *browser) picture(name string) {
	b.tb.Helper()
	if *pictures == "" {
		return
	}
	var encoded string
	b.call(&encoded, "GET", "/screenshot", nil)
	png, err := base64.StdEncoding.DecodeString(encoded)
	if err == nil {
		err = os.MkdirAll(*pictures, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(*pictures, name+".png"), png, 0o600)
	}
	if err != nil {
		b.tb.Fatal(err)
	}
}
