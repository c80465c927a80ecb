package egress_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"caracal.run/management/server/egress"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	const host = "token.example.com"
	tests := []struct {
		name, url string
		allowed   []string
		want      error
	}{
		{"plain", "https://token.example.com/oauth/token", []string{host}, nil},
		{"with a port", "https://token.example.com:8443/", []string{host}, nil},
		{"first port", "https://token.example.com:1/", []string{host}, nil},
		{"last port", "https://token.example.com:65535/", []string{host}, nil},
		{"empty port", "https://token.example.com:/", []string{host}, nil},
		{"with a query", "https://token.example.com?tenant=1", []string{host}, nil},
		{"space around", "  https://token.example.com/ ", []string{" token.example.com "}, nil},
		{"scheme in capitals", "HTTPS://token.example.com/", []string{host}, nil},
		{"host in capitals", "https://TOKEN.Example.com/", []string{host}, nil},
		{"list in capitals", "https://token.example.com/", []string{"Token.Example.COM"}, nil},
		{"final dot in the URL", "https://token.example.com./", []string{host}, nil},
		{"final dot in the list", "https://token.example.com/", []string{"token.example.com."}, nil},
		{"second in the list", "https://token.example.com/", []string{"example.org", host}, nil},
		{"bad entry before it", "https://token.example.com/", []string{"127.0.0.1", "", "*", host}, nil},
		{"one label", "https://idp/", []string{"idp"}, nil},
		{"digits in it", "https://1.2.3.4.nip.io/", []string{"1.2.3.4.nip.io"}, nil},
		{"hyphens where IDNA reserves them", "https://r3---sn-a5.example.com/", []string{"r3---sn-a5.example.com"}, nil},
		{"international, punycode in the list", "https://bücher.example/", []string{"xn--bcher-kva.example"}, nil},
		{"international, punycode in the URL", "https://xn--bcher-kva.example/", []string{"BÜCHER.example"}, nil},
		{"international, percent-encoded", "https://b%C3%BCcher.example/", []string{"bücher.example"}, nil},
		{"fullwidth letters are letters", "https://ｔｏｋｅｎ。example.com/", []string{host}, nil},

		{"http", "http://token.example.com/", []string{host}, egress.NotHTTPS},
		{"no scheme", "token.example.com/", []string{host}, egress.NotHTTPS},
		{"only slashes", "//token.example.com/", []string{host}, egress.NotHTTPS},
		{"file", "file:///etc/passwd", []string{host}, egress.NotHTTPS},
		{"gopher", "gopher://token.example.com/", []string{host}, egress.NotHTTPS},
		{"empty", "", []string{host}, egress.NotHTTPS},

		{"user", "https://user@token.example.com/", []string{host}, egress.HasUserinfo},
		{"user and password", "https://user:pass@token.example.com/", []string{host}, egress.HasUserinfo},
		{"empty user", "https://@token.example.com/", []string{host}, egress.HasUserinfo},
		{"host as user", "https://token.example.com@example.org/", []string{host}, egress.HasUserinfo},
		{"host as user and port", "https://token.example.com:443@127.0.0.1/", []string{host}, egress.HasUserinfo},

		{"no host", "https:///oauth", []string{host, ""}, egress.InvalidURL},
		{"only a port", "https://:443/", []string{host, ""}, egress.InvalidURL},
		{"no slashes", "https:token.example.com", []string{host}, egress.InvalidURL},
		{"backslashes", `https:\\token.example.com\`, []string{host}, egress.InvalidURL},
		{"backslash in the host", `https://token.example.com\.example.org/`, []string{host}, egress.InvalidURL},
		{"backslash before an at", `https://token.example.com\@127.0.0.1/`, []string{host}, egress.InvalidURL},
		{"line feed", "https://token.example.com/\nHost: other", []string{host}, egress.InvalidURL},
		{"tab in the host", "https://token.exa\tmple.com/", []string{host}, egress.InvalidURL},
		{"space in the host", "https://token.example.com /", []string{host}, egress.InvalidURL},
		{"port 0", "https://token.example.com:0/", []string{host}, egress.InvalidURL},
		{"port 65536", "https://token.example.com:65536/", []string{host}, egress.InvalidURL},
		{"port far too large", "https://token.example.com:99999999999999999999/", []string{host}, egress.InvalidURL},
		{"port below 0", "https://token.example.com:-1/", []string{host}, egress.InvalidURL},
		{"port with a sign", "https://token.example.com:+443/", []string{host}, egress.InvalidURL},
		{"port of letters", "https://token.example.com:https/", []string{host}, egress.InvalidURL},
		{"two ports", "https://token.example.com:80:443/", []string{host}, egress.InvalidURL},

		{"other host", "https://example.org/", []string{host}, egress.HostNotAllowed},
		{"nothing allowed", "https://token.example.com/", nil, egress.HostNotAllowed},
		{"parent", "https://example.com/", []string{host}, egress.HostNotAllowed},
		{"child", "https://a.token.example.com/", []string{host}, egress.HostNotAllowed},
		{"suffix", "https://eviltoken.example.com/", []string{host}, egress.HostNotAllowed},
		{"prefix", "https://token.example.com.evil.example/", []string{host}, egress.HostNotAllowed},
		{"no wildcards", "https://token.example.com/", []string{"*", "*.example.com", ".example.com"}, egress.HostNotAllowed},
		{"a list entry with a port", "https://token.example.com/", []string{"token.example.com:443"}, egress.HostNotAllowed},
		{"a list entry that is a URL", "https://token.example.com/", []string{"https://token.example.com"}, egress.HostNotAllowed},
		{"homograph", "https://tоken.example.com/", []string{host}, egress.HostNotAllowed}, // with a Cyrillic o

		{"underscore", "https://to_ken.example.com/", []string{"to_ken.example.com"}, egress.HostNotAName},
		{"empty label", "https://token..example.com/", []string{"token..example.com"}, egress.HostNotAName},
		{"two final dots", "https://token.example.com../", []string{"token.example.com.."}, egress.HostNotAName},
		{"only a dot", "https://./", []string{"."}, egress.HostNotAName},
		{"angle brackets", "https://<token.example.com>/", []string{host}, egress.HostNotAName},
		{"punycode of nothing", "https://xn--a.example/", []string{"xn--a.example"}, egress.HostNotAName},
		{"both directions in a label", "https://א1a.example/", []string{"א1a.example"}, egress.HostNotAName},
		{"long label", "https://" + strings.Repeat("a", 64) + ".example/", []string{strings.Repeat("a", 64) + ".example"}, egress.HostNotAName},
		{"long name", "https://" + strings.Repeat("a.", 127) + "example/", []string{strings.Repeat("a.", 127) + "example"}, egress.HostNotAName},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := egress.Check(tt.url, tt.allowed); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// An IP address is rejected in every spelling that some parser or resolver accepts,
// even if it is in the allow list.
func TestHostMustNotBeAnAddress(t *testing.T) {
	t.Parallel()
	for name, hosts := range map[string][]string{
		"dotted":             {"127.0.0.1", "10.0.0.1", "169.254.169.254", "255.255.255.255", "0.0.0.0", "8.8.8.8"},
		"final dot":          {"127.0.0.1.", "2130706433.", "0x7f.1.", "8.8.8.8."},
		"decimal":            {"2130706433", "0", "4294967295", "4294967296", "134744072", "99999999999999999999999"},
		"octal":              {"0177.0.0.1", "0177.0.0.01", "017700000001", "00000177.1", "0251.0376.0251.0376", "08.8.8.8", "0300.0250.1.1"},
		"hex":                {"0x7f.1", "0x7f.0x0.0x0.0x1", "0x7f000001", "0X7F000001", "0xA9FEA9FE", "0x", "127.0.0.0x", "0x0.0x0"},
		"short":              {"127.1", "127.0.1", "10.1", "1", "192.168.257"},
		"mixed":              {"0x7f.0.0.01", "0177.0x0.1", "127.0x0001"},
		"too many parts":     {"127.0.0.1.1", "1.2.3.4.5.6"},
		"name, then number":  {"token.example.com.1", "token.example.com.0x1", "localhost.127"},
		"fullwidth":          {"１２７.０.０.１", "１２７．０．０．１", "２１３０７０６４３３", "０ｘ７ｆ.1"},
		"full stops":         {"127。0。0。1", "127．0．0．1", "127｡0｡0｡1", "127。0。0。1。", "127.0.0。1"},
		"circled":            {"①②⑦.⓪.⓪.①", "①27.0.0.1"},
		"superscript":        {"¹²⁷.⁰.⁰.¹", "₁₂₇.0.0.1"},
		"mathematical":       {"𝟏𝟐𝟕.𝟎.𝟎.𝟏", "𝟷𝟸𝟽.1"},
		"invisible":          {"127.0.0.1\u00ad", "12\u200b7.0.0.1", "127.0.0.\ufeff1"},
		"percent-encoded":    {"%31%32%37.0.0.1", "127%2E0%2E0%2E1", "%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1", "127%E3%80%820%E3%80%820%E3%80%821", "127.0.0.1%00", "127.0.0.1%25", "%5B::1%5D"},
		"IPv6":               {"[::1]", "[::]", "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]", "[fd00:ec2::254]", "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]"},
		"IPv6 with a zone":   {"[fe80::1%25eth0]", "[::1%25lo]", "[fe80::1%eth0]", "[fe80::1%25]"},
		"IPv4-mapped":        {"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::FFFF:A9FE:A9FE]", "[::ffff:8.8.8.8]", "[0:0:0:0:0:ffff:10.0.0.1]"},
		"IPv4-compatible":    {"[::127.0.0.1]", "[::7f00:1]"},
		"NAT64":              {"[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::a00:1]"},
		"6to4 and Teredo":    {"[2002:7f00:1::]", "[2001:0:7f00:1::]"},
		"IPv6, bare":         {"::1", "fe80::1", "::ffff:127.0.0.1"},
		"brackets elsewhere": {"[127.0.0.1]", "[token.example.com]", "[v1.token]", "[]", "[::1", "::1]", "[[::1]]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, host := range hosts {
				plain := strings.Trim(host, "[]")
				for _, port := range []string{"", ":443"} {
					err := egress.Check("https://"+host+port+"/token", []string{host, plain, "127.0.0.1", "::1"})
					if !errors.Is(err, egress.HostNotAName) && !errors.Is(err, egress.InvalidURL) {
						t.Errorf("%s%s: got %v", host, port, err)
					}
				}
			}
		})
	}
}

// FuzzDo searches for a URL, an allow list and an address from the resolver that
// cause a connection to an address that is not public, or a lookup of an IP address.
func FuzzDo(f *testing.F) {
	for _, seed := range []string{
		"https://token.example.com/", "https://127.0.0.1/", "https://0x7f.1/", "https://127。0。0。1/", "https://[::1]:443/",
		"https://xn--bcher-kva.example/", "https://a@b.example/", "https://b%C3%BCcher.example:8443/?q=1#f", `https://a\@b/`,
		"https://%EF%BC%91.0.0.1/", "https://[fe80::1%25eth0]/", "https://token.example.com.:1/",
	} {
		f.Add(seed, "token.example.com", []byte{127, 0, 0, 1})
		f.Add(seed, "", []byte{93, 184, 215, 14})
		f.Add(seed, "b", netip.MustParseAddr("::ffff:10.0.0.1").AsSlice())
		f.Add(seed, "b", netip.MustParseAddr("64:ff9b::7f00:1").AsSlice())
	}
	name := regexp.MustCompile(`^([a-z0-9-]{1,63}\.)+$`)
	// What inet_aton and URL parsers accept as an IPv4 address.
	number := regexp.MustCompile(`(^|\.)(0[xX][0-9a-fA-F]*|[0-9]+)\.$`)
	f.Fuzz(func(t *testing.T, rawURL, allowed string, resolved []byte) {
		// The host as it is written, so that the allow list rejects as little as possible.
		_, written, _ := strings.Cut(rawURL, "://")
		if end := strings.IndexAny(written, "/?#"); end >= 0 {
			written = written[:end]
		}
		withoutPort, _, _ := strings.Cut(written, ":")
		list := []string{allowed, written, withoutPort}
		var lookups []string
		client := egress.New(egress.Options{
			Resolver: resolver(func(_ context.Context, network, name string) ([]netip.Addr, error) {
				lookups = append(lookups, name)
				addr, _ := netip.AddrFromSlice(resolved)
				return []netip.Addr{addr}, nil
			}),
			Dial: func(_ context.Context, network, address string) (net.Conn, error) {
				to, err := netip.ParseAddrPort(address)
				if err != nil || to.Port() == 0 || !netipPublic(to.Addr()) {
					t.Errorf("%q connects to %q", rawURL, address)
				}
				return nil, errors.New("no network")
			},
		})
		if _, err := client.Do(t.Context(), egress.Request{Method: "POST", URL: rawURL, AllowedHosts: list}); err == nil {
			t.Error("there is a response without a connection")
		}
		if err := egress.Check(rawURL, list); (err == nil) != (len(lookups) == 1) {
			t.Errorf("Check returns %v, and %q was looked up", err, lookups)
		}
		for _, lookup := range lookups {
			if !name.MatchString(lookup) || number.MatchString(lookup) {
				t.Errorf("%q looks up %q", rawURL, lookup)
			}
		}
	})
}
