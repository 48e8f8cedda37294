//! The PROXY protocol's header (haproxy, *The PROXY protocol, versions 1 & 2*): who the client is,
//! told to the endpoint before anything else. Pure.

use std::net::{IpAddr, SocketAddr};

/// Version 2's first bytes.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
/// TCP over IPv4, and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header for a connection from `source` to `destination`. Addresses of different families are
/// both written as IPv6.
pub(super) fn header(version: u8, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (from @ IpAddr::V4(_), to @ IpAddr::V4(_)) => (from, to),
        (from, to) => (mapped(from), mapped(to)),
    };
    match version {
        2 => binary(from, to, source.port(), destination.port()),
        _ => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let (source, destination) = (source.port(), destination.port());
            format!("PROXY {family} {from} {to} {source} {destination}\r\n").into_bytes()
        }
    }
}

fn binary(from: IpAddr, to: IpAddr, source: u16, destination: u16) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(VERSION_AND_COMMAND);
    let mut addresses = Vec::with_capacity(36);
    let family = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            addresses.extend(from.octets());
            addresses.extend(to.octets());
            TCP4
        }
        (from, to) => {
            for ip in [from, to] {
                match mapped(ip) {
                    IpAddr::V6(ip) => addresses.extend(ip.octets()),
                    IpAddr::V4(ip) => addresses.extend(ip.to_ipv6_mapped().octets()),
                }
            }
            TCP6
        }
    };
    addresses.extend(source.to_be_bytes());
    addresses.extend(destination.to_be_bytes());
    header.push(family);
    header.extend((addresses.len() as u16).to_be_bytes());
    header.append(&mut addresses);
    header
}

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        ip @ IpAddr::V6(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1_is_a_line() {
        let header = header(1, at("192.0.2.1:5000"), at("192.0.2.2:80"));
        assert_eq!(header, b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n");
        let header = super::header(1, at("[2001:db8::1]:5000"), at("192.0.2.2:80"));
        assert_eq!(
            header,
            b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 5000 80\r\n"
        );
    }

    #[test]
    fn version_2_is_what_the_specification_draws() {
        let header = header(2, at("192.0.2.1:5000"), at("192.0.2.2:80"));
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
        expected.extend([192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 0, 80]);
        assert_eq!(header, expected);
        let header = super::header(2, at("[::1]:1"), at("[::2]:2"));
        assert_eq!((header[13], header.len()), (TCP6, 16 + 36));
    }
}
