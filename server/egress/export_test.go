package egress

import (
	"context"
	"net"
	"net/netip"
)

// Exported for the tests; none of it changes the rules.
var (
	BlockedPrefixes = blockedPrefixes
	Details         = details
	CheckPublic     = checkPublic
	Control         = control
)

// Reason returns why a prefix is blocked.
func (b blockedPrefix) Reason() string { return b.reason }

// FirstMatch returns the first prefix that blocks an address, and false if none does.
func FirstMatch(addr netip.Addr) (netip.Prefix, bool) {
	for _, b := range blockedPrefixes {
		if b.Contains(addr) {
			return b.Prefix, true
		}
	}
	return netip.Prefix{}, false
}

// DialOf returns the Dial function of a client.
func DialOf(c *Client) func(ctx context.Context, network, address string) (net.Conn, error) {
	return c.options.Dial
}

// Check checks the rules that need no network.
func Check(rawURL string, allowedHosts []string) error {
	_, err := parse(rawURL, allowedHosts)
	return err
}
