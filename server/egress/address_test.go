package egress_test

import (
	"net/netip"
	"strings"
	"testing"

	"caracal.run/management/server/egress"
)

// The addresses are written from the IANA registries, so that a missing or mistyped
// row of the table is detected.
func TestNonPublicAddresses(t *testing.T) {
	t.Parallel()
	for name, addrs := range map[string][]string{
		"this network":          {"0.0.0.0", "0.0.0.1", "0.255.255.255"},
		"private":               {"10.0.0.0", "10.0.0.1", "10.255.255.255", "172.16.0.0", "172.17.0.1", "172.31.255.255", "192.168.0.0", "192.168.1.1", "192.168.255.255"},
		"carrier-grade NAT":     {"100.64.0.0", "100.100.100.200", "100.127.255.255"},
		"loopback":              {"127.0.0.0", "127.0.0.1", "127.0.0.53", "127.255.255.255", "::1"},
		"link-local":            {"169.254.0.0", "169.254.1.1", "169.254.255.255", "fe80::", "fe80::1", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"cloud metadata":        {"169.254.169.254", "169.254.170.2", "169.254.169.123", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"},
		"protocol assignments":  {"192.0.0.0", "192.0.0.8", "192.0.0.170", "192.0.0.255", "2001::", "2001:1::1", "2001:3::1", "2001:4:112::1", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"documentation":         {"192.0.2.0", "192.0.2.255", "198.51.100.0", "198.51.100.255", "203.0.113.0", "203.0.113.255", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"6to4 relay":            {"192.88.99.0", "192.88.99.1", "192.88.99.255"},
		"benchmarking":          {"198.18.0.0", "198.19.255.255", "2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff"},
		"multicast":             {"224.0.0.0", "224.0.0.1", "239.255.255.255", "ff00::", "ff02::1", "ff0e::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"reserved":              {"240.0.0.0", "250.1.2.3", "255.255.255.254", "4000::", "8000::", "c000::1", "e000::1", "fbff::1", "fe00::1", "200::1", "1000::1", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "100:0:0:1::", "6000::", "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"broadcast":             {"255.255.255.255"},
		"unspecified":           {"::"},
		"IPv4-compatible":       {"::2", "::7f00:1", "::8.8.8.8", "::255.255.255.255"},
		"IPv4-mapped":           {"::ffff:0.0.0.0", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1", "::ffff:8.8.8.8", "::ffff:255.255.255.255"},
		"IPv4-translated":       {"::ffff:0:7f00:1", "::ffff:0:127.0.0.1"},
		"NAT64":                 {"64:ff9b::", "64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b::8.8.8.8", "64:ff9b::ffff:ffff", "64:ff9b:1::", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"},
		"discard":               {"100::", "100::1", "100::ffff:ffff:ffff:ffff"},
		"Teredo":                {"2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::7f00:1"},
		"ORCHID":                {"2001:10::", "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff", "2001:20::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff"},
		"6to4":                  {"2002::", "2002:7f00:1::", "2002:a00:1::1", "2002:808:808::1", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"segment routing":       {"5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"unique local":          {"fc00::", "fc00::1", "fd12:3456:789a::1", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"site-local":            {"fec0::", "fec0::1", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"with a zone":           {"fe80::1%eth0", "::1%lo", "2606:2800:21f:cb07:6820:80da:af6b:8b2c%eth0", "ff02::1%1"},
		"mapped, and of a zone": {"::ffff:8.8.8.8%eth0"},
	} {
		for _, addr := range addrs {
			if egress.CheckPublic(netip.MustParseAddr(addr)) == nil {
				t.Errorf("%s: %s is accepted as public", name, addr)
			}
		}
	}
	if egress.CheckPublic(netip.Addr{}) == nil {
		t.Error("the zero address is accepted as public")
	}
}

// Rows within a larger blocked prefix only give a more specific reason.
func TestReasonIsTheMostSpecificBlock(t *testing.T) {
	t.Parallel()
	for reason, addrs := range map[string][]string{
		"unspecified":     {"::"},
		"loopback":        {"::1"},
		"IPv4-compatible": {"::2", "::255.255.255.255"},
		"IPv4-mapped":     {"::ffff:0.0.0.0", "::ffff:255.255.255.255"},
		"NAT64":           {"64:ff9b::", "64:ff9b::ffff:ffff"},
		"local NAT64":     {"64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"},
		"discard":         {"100::", "100::ffff:ffff:ffff:ffff"},
		"segment routing": {"5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"unique local":    {"fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"link-local":      {"fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"site-local":      {"fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"multicast":       {"ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"not global unicast": {
			"::1:0:0", "::fffe:ffff:ffff", "::1:0:0:0", "64:ff9b::1:0:0", "64:ff9b:0:ffff::", "64:ff9b:2::", "100:0:0:1::", "1fff::",
			"4000::", "5eff::", "5f01::", "6000::", "7fff::", "8000::", "fbff::", "fe00::", "fe7f::",
		},
	} {
		for _, addr := range addrs {
			if err := egress.CheckPublic(netip.MustParseAddr(addr)); err == nil || !strings.Contains(err.Error(), " is "+reason) {
				t.Errorf("%s: got %v, want the reason %s", addr, err, reason)
			}
		}
	}
}

// The addresses next to each blocked prefix are public.
func TestPublicNeighborsAreAllowed(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{
		"1.0.0.0",
		"9.255.255.255", "11.0.0.0",
		"100.63.255.255", "100.128.0.0",
		"126.255.255.255", "128.0.0.0",
		"168.63.129.15", "168.63.129.17",
		"169.253.255.255", "169.255.0.0",
		"172.15.255.255", "172.32.0.0",
		"191.255.255.255", "192.0.1.0",
		"192.0.1.255", "192.0.3.0",
		"192.88.98.255", "192.88.100.0",
		"192.167.255.255", "192.169.0.0",
		"198.17.255.255", "198.20.0.0",
		"198.51.99.255", "198.51.101.0",
		"203.0.112.255", "203.0.114.0",
		"223.255.255.255",
		"8.8.8.8", "93.184.215.14", "1.1.1.1", "100.0.0.1", "192.31.196.1", "192.52.193.1", "192.175.48.1",

		"2000::", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"2001:200::", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::",
		"2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::",
		"3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"2606:2800:21f:cb07:6820:80da:af6b:8b2c", "2001:4860:4860::8888", "2a00:1450:4001:82f::200e", "2620:4f:8000::1",
	} {
		if err := egress.CheckPublic(netip.MustParseAddr(addr)); err != nil {
			t.Errorf("%s is rejected: %v", addr, err)
		}
	}
}

// The first and last address of each row are blocked; the addresses before and
// after are not blocked by that row.
func TestBlockBoundaries(t *testing.T) {
	t.Parallel()
	for _, row := range egress.BlockedPrefixes {
		t.Run(row.String(), func(t *testing.T) {
			t.Parallel()
			if row.Prefix != row.Masked() {
				t.Errorf("%v is not in canonical form, %v", row, row.Masked())
			}
			if row.Reason() == "" {
				t.Error("it has no reason")
			}
			first, last := row.Masked().Addr(), lastOf(row.Prefix)
			for _, inside := range []netip.Addr{first, last} {
				if egress.CheckPublic(inside) == nil {
					t.Errorf("%v is accepted as public", inside)
				}
			}
			for _, outside := range []netip.Addr{first.Prev(), last.Next()} {
				if !outside.IsValid() {
					continue // the ends of the address space
				}
				by, blocked := egress.FirstMatch(outside)
				if by == row.Prefix {
					t.Errorf("%v is blocked by the row", outside)
				}
				if public := egress.CheckPublic(outside) == nil; public == blocked {
					t.Errorf("%v: public %t, blocked by %v", outside, public, by)
				}
			}
		})
	}
}

// No address that net/netip classifies as special is public. The test samples the
// address space.
func TestLocalAddressesAreNotPublic(t *testing.T) {
	t.Parallel()
	check := func(addr netip.Addr) {
		if egress.CheckPublic(addr) == nil && !netipPublic(addr) {
			t.Errorf("%v is accepted as public", addr)
		}
	}
	for high := 0; high < 1<<16; high += 7 {
		check(netip.AddrFrom4([4]byte{byte(high >> 8), byte(high), 1, 1}))
		addr := [16]byte{byte(high >> 8), byte(high)}
		check(netip.AddrFrom16(addr))
		addr[15] = 1
		check(netip.AddrFrom16(addr))
	}
}

// netipPublic reports whether an address is public as far as net/netip can tell.
func netipPublic(addr netip.Addr) bool {
	return addr.IsGlobalUnicast() && !addr.IsPrivate() && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() &&
		!addr.IsMulticast() && !addr.IsUnspecified() && !addr.Is4In6() && addr.Zone() == "" &&
		(addr.Is4() && addr.As4()[0] != 0 && addr.As4()[0] < 224 || addr.Is6() && addr.As16()[0]>>5 == 1)
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(bytes); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}
