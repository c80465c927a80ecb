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

// A browser is a headless Chromium, controlled through chromedriver with the W3C
// WebDriver protocol.
type browser struct {
	tb      testing.TB
	session string // URL of the session
}

// open starts a Chromium with an empty profile, and with this color scheme and
// window size.
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
		"browserName":         "chrome",
		"acceptInsecureCerts": true, // those of the demo authorization server
		"goog:chromeOptions":  options,
		"goog:loggingPrefs":   map[string]string{"browser": "ALL", "performance": "ALL"},
	}}})
	b.session += "/session/" + made.SessionID
	tb.Cleanup(func() { b.call(nil, "DELETE", "", nil) })
	b.devTools("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
	b.devTools("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
	// Chromium opens its own start page: ignore the requests of that.
	b.visit("about:blank")
	b.log("performance")
	b.log("browser")
	return b
}

var listening = regexp.MustCompile(`successfully on port (\d+)`)

// driver starts a chromedriver that is stopped with the test, and returns its URL.
func driver(tb testing.TB) string {
	tb.Helper()
	cmd := exec.Command("chromedriver", "--port=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("this test requires Debian's chromium and chromium-driver (task browser installs them): %v", err)
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
	tb.Fatal("chromedriver did not print its port")
	return ""
}

// call sends a command and decodes the value that it returns.
func (b *browser) call(into any, method, path string, body any) {
	b.tb.Helper()
	if err := b.try(into, method, path, body); err != nil {
		b.tb.Fatal(err)
	}
}

// try is call, but returns errors.
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
	result, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %.500s", method, path, result)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(result, &struct{ Value any }{into})
}

// devTools sends a command of the Chrome DevTools protocol.
func (b *browser) devTools(command string, parameters map[string]any) {
	b.tb.Helper()
	b.call(nil, "POST", "/goog/cdp/execute", map[string]any{"cmd": command, "params": parameters})
}

// visit opens a URL.
func (b *browser) visit(url string) {
	b.tb.Helper()
	b.call(nil, "POST", "/url", map[string]string{"url": url})
}

// element waits until a selector matches an element, and returns the element's
// path.
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

// click scrolls to an element and clicks it. Like a user, it can click only what is
// visible and not covered by the header.
func (b *browser) click(selector string) {
	b.tb.Helper()
	b.eventually("click "+selector, func() error {
		button := b.element(selector)
		run[any](b, "document.querySelector(arguments[0])?.scrollIntoView({block: 'center'})", selector)
		return b.try(nil, "POST", button+"/click", map[string]any{})
	})
}

// write replaces the text of an input.
func (b *browser) write(selector, text string) {
	b.tb.Helper()
	field := b.element(selector)
	const selectAll = "\ue009a\ue000" // Control with A, then no key
	b.call(nil, "POST", field+"/value", map[string]string{"text": selectAll + "\ue017" + text})
}

// text returns the visible text of an element.
func (b *browser) text(selector string) (visible string) {
	b.tb.Helper()
	b.call(&visible, "GET", b.element(selector)+"/text", nil)
	return visible
}

// run runs a script and returns its result.
func run[T any](b *browser, script string, args ...any) (result T) {
	b.tb.Helper()
	b.call(&result, "POST", "/execute/sync", map[string]any{"script": script, "args": append([]any{}, args...)})
	return result
}

// shows waits until an element that matches the selector contains the text.
func (b *browser) shows(selector, text string) {
	b.tb.Helper()
	b.eventually(selector+" contains "+text, func() error {
		if content := run[string](b, "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent).join('\\n')", selector); !strings.Contains(content, text) {
			return fmt.Errorf("it contains %.500q", content)
		}
		return nil
	})
}

// eventually calls check until it returns no error, for at most 30 seconds.
func (b *browser) eventually(what string, check func() error) {
	b.tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.tb.Fatalf("timed out: %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A logEntry is an entry of a browser log.
type logEntry struct{ Level, Source, Message string }

// log returns the entries of a log since the last call.
func (b *browser) log(kind string) (entries []logEntry) {
	b.tb.Helper()
	b.call(&entries, "POST", "/se/log", map[string]string{"type": kind})
	return entries
}

// picture saves a screenshot if the flag -pictures is set.
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
