//! Addresses as both sides store them: bytes in network order, IPv4 always IPv4-mapped, so that a
//! connection has one key however the application spelt its address.

/// An IP address, 16 bytes in network order; IPv4 as `::ffff:a.b.c.d`. Aligned, so that the kernel
/// side moves words and not bytes.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ip(pub [u8; 16]);

impl Ip {
    /// No address.
    pub const NONE: Self = Self([0; 16]);

    /// An IPv4 address from its four octets.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// The address from the kernel's four words, each in network order.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        let [a, b, c, d] = words;
        let (a, b) = (a.to_ne_bytes(), b.to_ne_bytes());
        let (c, d) = (c.to_ne_bytes(), d.to_ne_bytes());
        Self([
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1],
            d[2], d[3],
        ])
    }

    /// The kernel's four words, each in network order.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        let b = &self.0;
        [
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ]
    }

    /// Is this an IPv4 address?
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.words();
        a == 0 && b == 0 && c == 0xffff_u32.to_be()
    }

    /// Does a connection to it stay on the caller's own loopback interface? 127.0.0.0/8, `::1`,
    /// and the unspecified addresses, which Linux connects to loopback.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        let [a, b, _, d] = self.words();
        if self.is_v4() {
            return self.0[12] == 127 || d == 0;
        }
        let c = self.words()[2];
        a == 0 && b == 0 && c == 0 && (d == 0 || d == 1_u32.to_be())
    }

    /// Is it IPv6 link-local (fe80::/10)? Such an address means nothing without an interface.
    #[inline(always)]
    pub const fn is_v6_link_local(&self) -> bool {
        self.0[0] == 0xfe && self.0[1] & 0xc0 == 0x80
    }

    /// Is there an address at all?
    #[inline(always)]
    pub const fn is_some(&self) -> bool {
        let [a, b, c, d] = self.words();
        a | b | c | d != 0
    }

    /// Equality by words: the derived one calls `memcmp`, which the kernel does not have.
    #[inline(always)]
    pub const fn same(&self, other: &Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.words(), other.words());
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }
}

/// An IP address and a TCP port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub ip: Ip,
    /// The port, network order.
    pub port: [u8; 2],
    /// Always zero: keys are compared as bytes.
    pub zero: [u8; 2],
}

impl Endpoint {
    /// An address and a port in host order.
    #[inline(always)]
    pub const fn new(ip: Ip, port: u16) -> Self {
        Self {
            ip,
            port: port.to_be_bytes(),
            zero: [0; 2],
        }
    }

    /// The port in host order.
    #[inline(always)]
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes(self.port)
    }
}

/// A connection, seen from the side that opens it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The side that sends the SYN.
    pub from: Endpoint,
    /// The side that receives it.
    pub to: Endpoint,
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    fn v6(text: &str) -> Ip {
        Ip(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    #[test]
    fn ipv4_is_mapped_and_its_words_are_as_on_the_wire() {
        let ip = Ip::v4(Ipv4Addr::new(10, 1, 2, 3).octets());
        assert_eq!(ip, v6("::ffff:10.1.2.3"));
        assert!(ip.is_v4());
        assert_eq!(ip.words()[3].to_ne_bytes(), [10, 1, 2, 3]);
        assert_eq!(Ip::from_words(ip.words()), ip);
        assert!(!v6("2001:db8::1").is_v4());
        assert!(!v6("::10.1.2.3").is_v4());
    }

    #[test]
    fn loopback_is_what_linux_keeps_on_lo() {
        for (text, loopback) in [
            ("::ffff:127.0.0.1", true),
            ("::ffff:127.255.0.9", true),
            ("::ffff:0.0.0.0", true),
            ("::ffff:128.0.0.1", false),
            ("::1", true),
            ("::", true),
            ("::2", false),
            ("7f00::1", false),
        ] {
            assert_eq!(v6(text).is_loopback(), loopback, "{text}");
        }
        assert!(v6("fe80::1").is_v6_link_local());
        assert!(v6("febf::1").is_v6_link_local());
        assert!(!v6("fec0::1").is_v6_link_local());
    }

    #[test]
    fn same_is_equality() {
        let all = [
            v6("::"),
            v6("::1"),
            v6("1::"),
            v6("0:1::"),
            v6("0:0:0:0:1::"),
        ];
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert_eq!(a.same(b), i == j);
            }
            assert_eq!(a.is_some(), i != 0);
        }
    }

    #[test]
    fn ports_are_in_network_order() {
        assert_eq!(Endpoint::new(Ip::NONE, 0x1234).port, [0x12, 0x34]);
        assert_eq!(Endpoint::new(Ip::NONE, 15001).port(), 15001);
    }
}
