package egress

import (
	"fmt"
	"net/netip"
)

// A blockedPrefix is a range of addresses that are not public.
type blockedPrefix struct {
	netip.Prefix
	reason string
}

// blockedPrefixes lists all prefixes that are not public. They come from the IANA
// special-purpose registries (iana.org/assignments/iana-ipv4-special-registry and
// iana-ipv6-special-registry, RFC 6890), except for the one address of Azure.
// Prefixes that the registries call globally reachable are not blocked, except for
// 64:ff9b::/96, which can reach private IPv4 addresses, and the few in 192.0.0.0/24
// and 2001::/23, which have no servers. All other IPv4 addresses are public. Of
// IPv6, only 2000::/3 is assigned to networks (RFC 4291 §2.4); the last three rows
// block the rest. The first match determines the reason, so more specific rows come
// first.
var blockedPrefixes = []blockedPrefix{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network, RFC 791"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private, RFC 1918"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT, RFC 6598"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback, RFC 1122"},
	{netip.MustParsePrefix("168.63.129.16/32"), "Azure platform services, which are local to each virtual machine"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local and cloud metadata, RFC 3927"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private, RFC 1918"},
	{netip.MustParsePrefix("192.0.0.0/24"), "IETF protocol assignments, RFC 6890"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation, RFC 5737"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay, RFC 7526"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private, RFC 1918"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking, RFC 2544"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation, RFC 5737"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation, RFC 5737"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast, RFC 5771"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved and broadcast, RFC 1112 and RFC 919"},

	{netip.MustParsePrefix("::/128"), "unspecified, RFC 4291"},
	{netip.MustParsePrefix("::1/128"), "loopback, RFC 4291"},
	{netip.MustParsePrefix("::/96"), "IPv4-compatible, RFC 4291"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4-mapped, RFC 4291"},
	{netip.MustParsePrefix("64:ff9b::/96"), "NAT64, RFC 6052"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64, RFC 8215"},
	{netip.MustParsePrefix("100::/64"), "discard, RFC 6666"},
	{netip.MustParsePrefix("2001::/23"), "IETF protocol assignments, RFC 2928: Teredo, benchmarking, ORCHID"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation, RFC 3849"},
	{netip.MustParsePrefix("2002::/16"), "6to4, RFC 3056"},
	{netip.MustParsePrefix("3fff::/20"), "documentation, RFC 9637"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing, RFC 9602"},
	{netip.MustParsePrefix("fc00::/7"), "unique local and cloud metadata, RFC 4193"},
	{netip.MustParsePrefix("fe80::/10"), "link-local, RFC 4291"},
	{netip.MustParsePrefix("fec0::/10"), "site-local, RFC 3879"},
	{netip.MustParsePrefix("ff00::/8"), "multicast, RFC 4291"},

	{netip.MustParsePrefix("::/3"), "not global unicast, RFC 4291"},
	{netip.MustParsePrefix("4000::/2"), "not global unicast, RFC 4291"},
	{netip.MustParsePrefix("8000::/1"), "not global unicast, RFC 4291"},
}

// checkPublic returns an error with the reason if an address is not public.
func checkPublic(addr netip.Addr) error {
	if !addr.IsValid() || addr.Zone() != "" { // no prefix contains an address with a zone
		return fmt.Errorf("%v is not a public address", addr)
	}
	for _, b := range blockedPrefixes {
		if b.Contains(addr) {
			return fmt.Errorf("%v is %s", addr, b.reason)
		}
	}
	return nil
}
