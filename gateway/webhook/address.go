package webhook

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// Policy says where messages may be sent: to public addresses by https, and beyond
// that to the networks of Allow, by plain http too. The zero value is the strictest.
type Policy struct {
	Allow []netip.Prefix
}

// maxURL is how many bytes the URL of a receiver may have.
const maxURL = 2048

// CheckURL reports, as a sentence's end, what makes a URL unfit for a receiver, or
// nil. Names are not looked up: the address is checked whenever a connection is made.
func (p Policy) CheckURL(text string) error {
	if len(text) > maxURL {
		return fmt.Errorf("at most %d bytes, got %d", maxURL, len(text))
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return errors.New("want a URL such as https://example.org/hooks")
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("want https, got %q", u.Scheme)
	case u.Scheme == "http" && len(p.Allow) == 0:
		return errPlain
	case u.User != nil:
		return errors.New("a user or password in the URL is not sent; verify the signature instead")
	case u.Fragment != "" || strings.HasSuffix(text, "#"):
		return errors.New("want no #fragment: it is never sent")
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		host = "127.0.0.1"
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return p.admit(addr, u.Scheme == "http")
	}
	return nil
}

// admit reports why nothing may be sent to an address, or nil.
func (p Policy) admit(addr netip.Addr, plain bool) error {
	addr = addr.Unmap()
	for _, network := range p.Allow {
		if network.Contains(addr) {
			return nil
		}
	}
	if plain {
		return errPlain
	}
	if !public(addr) {
		return errPrivate
	}
	return nil
}

// Why an address is refused, without the address: what a name within the server's
// network resolves to is not the tenant's business.
var (
	errPlain   = errors.New("plain http goes only to networks that the server's setting --webhook-allow names; use https")
	errPrivate = errors.New("the address is not a public one; the server's setting --webhook-allow can admit its network")
)

// control returns the check of a connection's address, after names were resolved and
// before a byte is sent. What a name resolved to earlier does not matter.
func (p Policy) control(plain bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("webhook: %w", err)
		}
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return fmt.Errorf("webhook: %w", err)
		}
		return p.admit(addr, plain)
	}
}

// Networks that are not for the public, by the IANA registries of special-purpose
// addresses. Tunnels of IPv4 (6to4, Teredo) are among them; 168.63.129.16 is a host
// within Azure. Other metadata services live on private addresses.
var (
	reserved = prefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
		"172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	)
	globalIPv6 = netip.MustParsePrefix("2000::/3")
	translated = netip.MustParsePrefix("64:ff9b::/96") // NAT64: an IPv4 address in the last 4 bytes
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

// public reports whether an address belongs to the public internet.
func public(addr netip.Addr) bool {
	if translated.Contains(addr) {
		bytes := addr.As16()
		return public(netip.AddrFrom4([4]byte(bytes[12:])))
	}
	if !addr.IsValid() || addr.Zone() != "" || addr.Is6() && !globalIPv6.Contains(addr) {
		return false
	}
	for _, network := range reserved {
		if network.Contains(addr) {
			return false
		}
	}
	return true
}
