package webhook

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, addr string
		public     bool
	}{
		{"public", "8.8.8.8", true},
		{"public, beside a private network", "172.32.0.1", true},
		{"public IPv6", "2606:4700::1111", true},
		{"unspecified", "0.0.0.0", false},
		{"this network", "0.1.2.3", false},
		{"loopback", "127.0.0.1", false},
		{"all of loopback", "127.255.1.2", false},
		{"private 10", "10.1.2.3", false},
		{"private 172", "172.31.255.255", false},
		{"private 192", "192.168.0.1", false},
		{"carrier-grade NAT", "100.64.0.1", false},
		{"metadata of Alibaba", "100.100.100.200", false},
		{"link-local", "169.254.1.1", false},
		{"metadata of AWS, Google and Azure", "169.254.169.254", false},
		{"metadata of Oracle", "192.0.0.192", false},
		{"host of Azure", "168.63.129.16", false},
		{"documentation", "203.0.113.7", false},
		{"benchmarks", "198.19.0.1", false},
		{"multicast", "224.0.0.251", false},
		{"reserved", "240.0.0.1", false},
		{"broadcast", "255.255.255.255", false},
		{"6to4 relay", "192.88.99.1", false},
		{"unspecified IPv6", "::", false},
		{"loopback IPv6", "::1", false},
		{"mapped loopback", "::ffff:127.0.0.1", false},
		{"mapped private", "::ffff:10.0.0.1", false},
		{"mapped public", "::ffff:8.8.8.8", true},
		{"compatible loopback", "::127.0.0.1", false},
		{"NAT64 of a private address", "64:ff9b::10.0.0.1", false},
		{"NAT64 of metadata", "64:ff9b::169.254.169.254", false},
		{"NAT64 of a public address", "64:ff9b::8.8.8.8", true},
		{"NAT64 of a local network", "64:ff9b:1::8.8.8.8", false},
		{"6to4 of a private address", "2002:a00:1::1", false},
		{"Teredo", "2001:0:a00:1::1", false},
		{"documentation IPv6", "2001:db8::1", false},
		{"newer documentation IPv6", "3fff::1", false},
		{"unique local", "fd00::1", false},
		{"metadata of AWS by IPv6", "fd00:ec2::254", false},
		{"link-local IPv6", "fe80::1", false},
		{"link-local with a zone", "fe80::1%eth0", false},
		{"public with a zone", "2606:4700::1111%eth0", false},
		{"site-local", "fec0::1", false},
		{"multicast IPv6", "ff02::1", false},
		{"discard", "100::1", false},
	}
	for _, c := range cases {
		addr := netip.MustParseAddr(c.addr)
		if got := public(addr.Unmap()); got != c.public {
			t.Errorf("%s: %s is public: %t", c.name, c.addr, got)
		}
		if err := (Policy{}).admit(addr, false); (err == nil) != c.public {
			t.Errorf("%s: %s: %v", c.name, c.addr, err)
		}
		if err := (Policy{}).admit(addr, true); err == nil {
			t.Errorf("%s: plain http to %s is admitted", c.name, c.addr)
		}
		// What a connection is made to is what counts.
		address := "[" + c.addr + "]:443"
		if addr.Is4() {
			address = c.addr + ":443"
		}
		if err := (Policy{}).control(false)("tcp", address, nil); (err == nil) != c.public {
			t.Errorf("%s: connection to %s: %v", c.name, address, err)
		}
	}
}

func TestAllowedNetworks(t *testing.T) {
	t.Parallel()
	policy := Policy{Allow: prefixes("10.1.0.0/16", "::1/128")}
	for addr, plain := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "::1": true, "10.2.0.1": false, "127.0.0.1": false, "8.8.8.8": false} {
		if err := policy.admit(netip.MustParseAddr(addr), true); (err == nil) != plain {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if err := policy.admit(netip.MustParseAddr("8.8.8.8"), false); err != nil {
		t.Errorf("public: %v", err)
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	local := Policy{Allow: prefixes("127.0.0.0/8")}
	cases := []struct {
		policy    Policy
		url       string
		complaint string
	}{
		{Policy{}, "https://example.org/hooks?a=b", ""},
		{Policy{}, "https://example.org:8443", ""},
		{Policy{}, "https://8.8.8.8/", ""},
		{local, "http://127.0.0.1:9000/", ""},
		{local, "http://localhost:9000/", ""},
		{local, "http://receiver.internal/", ""},
		{Policy{}, "", "want a URL"},
		{Policy{}, "example.org/hooks", "want a URL"},
		{Policy{}, "https://", "want a URL"},
		{Policy{}, "https://:443/", "want a URL"},
		{Policy{}, "https:example.org", "want a URL"},
		{Policy{}, "https://exa mple.org", "want a URL"},
		{Policy{}, "https://example.org:port/", "want a URL"},
		{Policy{}, "ftp://example.org/", "want https"},
		{Policy{}, "gopher://example.org/", "want https"},
		{Policy{}, "file:///etc/passwd", "want a URL"},
		{Policy{}, "http://example.org/", "--webhook-allow"},
		{Policy{}, "https://me:secret@example.org/", "user or password"},
		{Policy{}, "https://example.org/#part", "fragment"},
		{Policy{}, "https://localhost/", "not a public one"},
		{Policy{}, "https://a.localhost./", "not a public one"},
		{Policy{}, "https://127.0.0.1/", "not a public one"},
		{Policy{}, "https://[::1]/", "not a public one"},
		{Policy{}, "https://[fe80::1%25eth0]/", "not a public one"},
		{Policy{}, "https://169.254.169.254/latest/meta-data", "not a public one"},
		{local, "http://8.8.8.8/", "use https"},
		{Policy{}, "https://example.org/" + strings.Repeat("a", maxURL), "at most 2048 bytes"},
	}
	for _, c := range cases {
		err := c.policy.CheckURL(c.url)
		if c.complaint == "" && err != nil || c.complaint != "" && (err == nil || !strings.Contains(err.Error(), c.complaint)) {
			t.Errorf("%s: %v, want %q", c.url, err, c.complaint)
		}
	}
}

func FuzzCheckURL(f *testing.F) {
	f.Add("https://example.org/hooks")
	f.Add("https://[::ffff:10.0.0.1]/")
	f.Fuzz(func(t *testing.T, url string) { _ = (Policy{}).CheckURL(url) })
}
