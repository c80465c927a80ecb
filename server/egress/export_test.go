package egress

import (
	"context"
	"net"
	"net/netip"
)

// What the tests see of the rules; none of it changes them.
var (
	Closed  = blockedPrefixes
	Details = details
	Public  = checkPublic
	Control = control
)

func (b block) Is() string { return b.is }

// First is the block that closes an address, and false if none does.
func First(addr netip.Addr) (netip.Prefix, bool) {
	for _, b := range blockedPrefixes {
		if b.Contains(addr) {
			return b.Prefix, true
		}
	}
	return netip.Prefix{}, false
}

// DialOf is how a client dials.
func DialOf(c *Client) func(ctx context.Context, network, address string) (net.Conn, error) {
	return c.options.Dial
}

// Check is whether a URL keeps the rules that need no network.
func Check(rawURL string, allowedHosts []string) error {
	_, err := parse(rawURL, allowedHosts)
	return err
}
