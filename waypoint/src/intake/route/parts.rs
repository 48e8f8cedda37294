//! The bytes of a `RouteConfiguration`, taken apart into those of its hosts and the rest.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::intake::error::Refused;

/// The field of a table's hosts.
const HOSTS: u32 = 2;

/// A table's bytes.
#[derive(Debug, PartialEq)]
pub(super) struct Parts<'a> {
    /// Each host's.
    pub(super) hosts: Vec<&'a [u8]>,
    /// Those of a table without hosts.
    pub(super) rest: Vec<u8>,
}

impl<'a> Parts<'a> {
    /// Takes a table's bytes apart.
    ///
    /// # Errors
    /// They are no message.
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, Refused> {
        let broken = |error| Refused::new(format!("is no RouteConfiguration: {error}"));
        let mut parts = Self {
            hosts: Vec::new(),
            rest: Vec::new(),
        };
        let mut left = bytes;
        while !left.is_empty() {
            let field = left;
            let (tag, wire) = decode_key(&mut left).map_err(broken)?;
            if (tag, wire) != (HOSTS, WireType::LengthDelimited) {
                skip_field(wire, tag, &mut left, DecodeContext::default()).map_err(broken)?;
                let length = field.len() - left.len();
                parts.rest.extend_from_slice(&field[..length]);
                continue;
            }
            let length = decode_varint(&mut left).map_err(broken)?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let (host, after) = left.split_at_checked(length).ok_or_else(|| {
                Refused::new("is no RouteConfiguration: a host is longer than the table")
            })?;
            parts.hosts.push(host);
            left = after;
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
    use prost::Message;

    use super::*;

    #[test]
    fn a_table_is_the_sum_of_its_parts() {
        let host = |name: &str| VirtualHost {
            name: name.to_owned(),
            ..VirtualHost::default()
        };
        let table = RouteConfiguration {
            name: "large".to_owned(),
            virtual_hosts: vec![host("a"), host("b")],
            internal_only_headers: vec!["x".to_owned()],
            most_specific_header_mutations_wins: true,
            ..RouteConfiguration::default()
        };
        let bytes = table.encode_to_vec();
        let parts = Parts::of(&bytes).unwrap();
        let read = |bytes: &&[u8]| VirtualHost::decode(*bytes).unwrap();
        let hosts: Vec<_> = parts.hosts.iter().map(read).collect();
        assert_eq!(hosts, table.virtual_hosts);
        let rest = RouteConfiguration::decode(parts.rest.as_slice()).unwrap();
        assert_eq!(rest.name, "large");
        assert!(rest.virtual_hosts.is_empty() && rest.most_specific_header_mutations_wins);
        for end in 0..bytes.len() {
            // However short it is: refused or taken apart, never more than there is.
            if let Ok(parts) = Parts::of(&bytes[..end]) {
                let hosts: usize = parts.hosts.iter().map(|host| host.len()).sum();
                assert!(hosts + parts.rest.len() <= end);
            }
        }
    }
}
