//! The `:authority` of a CONNECT: which address, or which name and port, the stream is for.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Longest DNS name, in bytes (RFC 1035, section 2.3.4, as text).
const MAX_NAME: usize = 253;

/// Where a CONNECT wants to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// `ip:port`.
    Address(SocketAddr),
    /// `name:port`.
    Name {
        /// A DNS name in lower case, without a trailing dot.
        name: String,
        /// Never 0.
        port: u16,
    },
}

/// An authority that is neither `ip:port` nor `name:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no destination: expected ip:port or name:port")]
pub struct AuthorityError(pub String);

impl FromStr for Destination {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        parse(text).ok_or_else(|| AuthorityError(text.chars().take(MAX_NAME).collect()))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

fn parse(text: &str) -> Option<Destination> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(Destination::Address(address));
    }
    let (name, port) = text.rsplit_once(':')?;
    if port.starts_with('+') {
        return None;
    }
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(inner)
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    // What ends in a number is an address that didn't parse, never a name.
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    (name.len() <= MAX_NAME && name.split('.').all(label) && !numeric)
        .then_some(Destination::Name { name, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_and_names() {
        let parsed = |text: &str| text.parse::<Destination>().map(|d| d.to_string());
        for same in [
            "10.0.0.1:80",
            "[fd00::1]:8080",
            "reviews.default.svc.cluster.local:9080",
        ] {
            assert_eq!(parsed(same).unwrap(), same);
        }
        assert_eq!(
            parsed("Reviews.Default:9080").unwrap(),
            "reviews.default:9080"
        );
        assert_eq!(
            parsed("reviews.default.:9080").unwrap(),
            "reviews.default:9080"
        );
        for wrong in [
            "",
            ":",
            ":80",
            "10.0.0.1",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "10.0.0.1:+80",
            "10.0.0:80",
            "10.0.0.1.2:80",
            "fd00::1:80",
            "[fd00::1]",
            "a..b:80",
            "-a:80",
            "a b:80",
            "user@host:80",
            "host:80/path",
            "host:http",
            "ho\u{0}st:80",
            "[::1%eth0]x:80",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
        assert!(parsed(&format!("{}:80", "a.".repeat(127) + "bc")).is_err());
    }

    proptest! {
        #[test]
        fn whatever_parses_parses_again(text in "[\\[\\]a-zA-Z0-9.:_-]{0,40}") {
            if let Ok(destination) = text.parse::<Destination>() {
                prop_assert_eq!(destination.to_string().parse::<Destination>().unwrap(), destination);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,64}") {
            let _ = text.parse::<Destination>();
        }
    }
}
