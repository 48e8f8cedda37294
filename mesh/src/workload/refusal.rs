//! The steps that parsers of outside messages share, and the refusal they end in: it names the
//! resource, the field and the likely cause.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why a resource was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {field}: {reason}")]
pub struct Invalid {
    /// Kind and name: `workload Kubernetes//Pod/default/sleep`.
    pub resource: String,
    /// The field, with indices: `addresses[1]`.
    pub field: String,
    /// What is wrong with it, and what was expected.
    pub reason: String,
}

/// A refusal on its way up: it doesn't know yet in which resource it happened.
#[derive(Debug)]
pub(crate) struct Refusal {
    field: String,
    reason: String,
}

/// A block of addresses from its bytes and prefix length. A block of IPv4-mapped addresses becomes
/// the IPv4 block it stands for; bits after the prefix are cleared.
pub(crate) fn block(bytes: &[u8], length: u32) -> Result<IpNet, String> {
    const MAPPED: u8 = 96;
    let (ip, longest) = (
        raw_ip(bytes)?,
        u32::try_from(bytes.len() * 8).unwrap_or(u32::MAX),
    );
    let length = u8::try_from(length)
        .ok()
        .filter(|_| length <= longest)
        .ok_or_else(|| format!("a prefix of {length} bits is longer than its address"))?;
    let (ip, length) = match ip.to_canonical() {
        canonical @ IpAddr::V4(_) if ip.is_ipv6() && length >= MAPPED => {
            (canonical, length - MAPPED)
        }
        _ => (ip, length),
    };
    let block = IpNet::new(ip, length).map_err(|e| e.to_string())?;
    Ok(block.trunc())
}

/// A canonical address from the 4 or 16 bytes of the wire.
pub(crate) fn ip(bytes: &[u8]) -> Result<IpAddr, String> {
    raw_ip(bytes).map(|ip| ip.to_canonical())
}

fn raw_ip(bytes: &[u8]) -> Result<IpAddr, String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(v4).into());
    }
    if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        return Ok(Ipv6Addr::from(v6).into());
    }
    Err(format!(
        "an address of {} bytes: expected 4 (IPv4) or 16 (IPv6), not text",
        bytes.len()
    ))
}

pub(crate) fn port(field: &str, value: u32) -> Result<u16, Refusal> {
    u16::try_from(value).map_err(|_| refuse(field, format!("{value} is no port: 0 to 65535")))
}

/// The enum value behind a number of the wire.
pub(crate) fn known<T: TryFrom<i32>>(field: &str, value: i32) -> Result<T, Refusal> {
    T::try_from(value).map_err(|_| {
        refuse(
            field,
            format!("unknown value {value}: the control plane is probably newer than this proxy"),
        )
    })
}

pub(crate) fn required<'a>(field: &str, value: &'a str) -> Result<&'a str, Refusal> {
    if value.is_empty() {
        return Err(refuse(
            field,
            "empty, but it is what the resource is found by",
        ));
    }
    Ok(value)
}

pub(crate) fn refuse(field: impl Into<String>, reason: impl fmt::Display) -> Refusal {
    Refusal {
        field: field.into(),
        reason: reason.to_string(),
    }
}

impl Refusal {
    /// The same refusal seen from the field's parent.
    pub(crate) fn within(self, parent: impl fmt::Display) -> Self {
        Self {
            field: format!("{parent}.{}", self.field),
            reason: self.reason,
        }
    }

    /// The refusal of a whole resource.
    pub(crate) fn of(self, resource: String) -> Invalid {
        Invalid {
            resource,
            field: self.field,
            reason: self.reason,
        }
    }
}
