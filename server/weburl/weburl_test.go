package weburl_test

import (
	"strings"
	"testing"

	"caracal.run/management/server/weburl"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"https://api.example.com/v1?x=y#z": true, "HTTPS://API.example.com": true, "http://10.0.0.1:8080": true, "http://localhost": true,
		"http://my_service:8080/": true, "http://-a-.b--c/": true, "http://x.example.com.": true, "http://x:65535": true, "http://x:": true,
		"https://u:p@x/":           true, // the caller decides about userinfo
		"https://münchen.example/": true, "https://xn--mnchen-3ya.example/": true, "https://m%C3%BCnchen.example/": true, "https://日本.jp": true,
		"http://a/b c": false, "http://a\\b": false, "http://a/\\b": false, "http://a/b\tc": false, "http://a/\u2028": false, "http://a/\u0085": false,
		"ftp://x": false, "javascript:alert(1)": false, "urn:x": false, "//x": false, "x": false, "": false, "http:x": false, "http:/x": false, "https:///x": false,
		"http://": false, "http://:80": false, "http://u@": false, "http://x:99999": false, "http://x:65536": false, "http://x:0": false, "http://x:http": false, "http://x:-1": false,

		// Numbers are IPv4 addresses.
		"http://127.1/": true, "http://0x7f.1/": true, "http://0x7f000001": true, "http://017700000001": true, "http://2130706433": true, "http://4294967295": true, "http://1.2.3.4.": true, "http://0x.0x": true,
		"http://1.2.3.4.5/": false, "http://256.1.1.1": false, "http://1.2.3.256": false, "http://1.2.65536": false, "http://4294967296": false, "http://1.2.3.08": false, "http://1..2": false,
		"http://a.1": false, "http://a.0x1": false, "http://a.08": false, "http://a.0x": false, "http://99999999999999999999": false, "http://1.2.3.4.5.": false, "http://１.2.3.4.5": false,
		"http://1.2.3.4a": true, "http://1.a": true, "http://a.1e": true, "http://a.0xg": true, "http://a.1.": false, "http://.": true, "http://１２７.1": true,

		// IPv6 addresses are in brackets and have no zone.
		"http://[::1]/": true, "http://[2001:db8::1]:8080/x": true, "http://[::ffff:1.2.3.4]": true,
		"http://[fe80::1%25eth0]/": false, "http://[fe80::1%eth0]/": false, "http://[1.2.3.4]": false, "http://[::1": false, "http://[]": false, "http://[x]": false, "http://::1/": false, "http://[::1]x/": false,

		// Forbidden characters, also encoded, and as full-width characters.
		"http://a<b/": false, "http://a>b/": false, "http://a%3Cb/": false, "http://a%3Eb": false, "http://a%3cb%3E/": false, "http://%EF%BC%9Cb/": false, "http://a＞b": false, "http://a^b": false, "http://a|b": false,
		"http://a%25b": false, "http://%zz": false, "http://a%00b": false, "http://a%20b": false, "http://a／b": false, "http://a＠b": false, "http://a：80": false, "http://%ff": false, "http://\xff": false,
		"http://\u00ad": false, "http://xn--a": false, "http://a.xn--": false, "http://\u00adxn--.x": false, "http://ex\u00adample.com": false, "http://xn--日": false, "http://a\u202eb": false, "http://\u05d0a": false,
	} {
		u, err := weburl.Parse(text)
		if (err == nil) != ok || ok && u.Hostname() == "" {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && len(text) > 8 && strings.Contains(err.Error(), text) {
			t.Errorf("the error quotes the URL: %v", err)
		}
	}
}

// FuzzParse searches for URLs that cause a panic, or that are rejected when they are
// written again.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"https://api.example.com/v1?x=y#z", "http://1.2.3.4", "http://0x7f.1:80/", "http://[::1]/", "https://m%C3%BCnchen.example/", "http://a／b", "http://xn--mnchen-3ya/"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := weburl.Parse(text)
		if err != nil {
			return
		}
		again, err := weburl.Parse(u.String())
		if err != nil || again.Hostname() != u.Hostname() || again.Port() != u.Port() {
			t.Errorf("%q is written as %q: %v", text, u, err)
		}
	})
}
