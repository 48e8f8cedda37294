//! The small values of protobuf in plain types: durations, wrapped numbers, addresses, and data
//! that stands in the configuration itself.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf as google;
use http::{HeaderName, StatusCode};
use ipnet::IpNet;

use super::error::{At as _, Refused, need};

/// The longest duration that protobuf knows, in seconds: far from where sums of times overflow.
const LONGEST: u64 = 315_576_000_000;

/// Whether a wrapped truth value is there and true.
#[must_use]
pub fn on(value: Option<google::BoolValue>) -> bool {
    value.is_some_and(|value| value.value)
}

/// A wrapped truth value, or what it counts as where it isn't there.
#[must_use]
pub fn on_or(value: Option<google::BoolValue>, otherwise: bool) -> bool {
    value.map_or(otherwise, |value| value.value)
}

/// A wrapped number.
#[must_use]
pub fn number(value: Option<google::UInt32Value>) -> Option<u32> {
    value.map(|value| value.value)
}

/// A duration, which must not be negative, nor longer than protobuf has it.
///
/// # Errors
/// It is negative, too long, or no duration at all.
pub fn duration(value: google::Duration) -> Result<Duration, Refused> {
    let google::Duration { seconds, nanos } = value;
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) if seconds <= LONGEST && nanos < 1_000_000_000 => {
            Ok(Duration::new(seconds, nanos))
        }
        _ => Err(Refused::new(format!(
            "a duration of {seconds} s and {nanos} ns is none: both parts must be positive, and it \
             can't be longer than 10,000 years"
        ))),
    }
}

/// A duration that may be left out.
///
/// # Errors
/// It is there, and negative.
pub fn maybe_duration(
    value: Option<google::Duration>,
    field: &str,
) -> Result<Option<Duration>, Refused> {
    value.map(duration).transpose().at(field)
}

/// A duration that may be left out, and whose zero means that there is no limit.
///
/// # Errors
/// It is there, and negative.
pub fn limit(value: Option<google::Duration>, field: &str) -> Result<Option<Duration>, Refused> {
    Ok(maybe_duration(value, field)?.filter(|limit| !limit.is_zero()))
}

/// Like [`limit`], with a limit of its own where it is left out.
///
/// # Errors
/// It is there, and negative.
pub fn limit_or(
    value: Option<google::Duration>,
    otherwise: Duration,
    field: &str,
) -> Result<Option<Duration>, Refused> {
    let given = maybe_duration(value, field)?.unwrap_or(otherwise);
    Ok(Some(given).filter(|limit| !limit.is_zero()))
}

/// A range of addresses.
///
/// # Errors
/// The address is none, or the prefix is too long for it.
pub fn range(value: core::CidrRange) -> Result<IpNet, Refused> {
    let core::CidrRange {
        address_prefix,
        prefix_len,
    } = value;
    cidr(&address_prefix, number(prefix_len))
}

/// A range of addresses by its two parts. No length means 0, as in protobuf.
///
/// # Errors
/// The address is none, or the prefix is too long for it.
pub fn cidr(address: &str, length: Option<u32>) -> Result<IpNet, Refused> {
    let ip = self::ip(address).at("address_prefix")?;
    let length = length.unwrap_or(0);
    u8::try_from(length)
        .ok()
        .and_then(|length| IpNet::new(ip, length).ok())
        .map(|range| range.trunc())
        .ok_or_else(|| Refused::new(format!("{length} is too long for {ip}")).under("prefix_len"))
}

/// An address.
///
/// # Errors
/// It is none, for example a host name.
pub fn ip(text: &str) -> Result<IpAddr, Refused> {
    text.parse()
        .map_err(|_| Refused::new(format!("{text:?} is no IP address")))
}

/// A port.
///
/// # Errors
/// It is larger than a port can be.
pub fn port(number: u32) -> Result<u16, Refused> {
    u16::try_from(number).map_err(|_| Refused::new(format!("{number} is no port")))
}

/// The address of a socket.
///
/// # Errors
/// It is something else: a pipe, an internal listener, a host name, a named port.
pub fn socket_address(value: Option<core::Address>) -> Result<SocketAddr, Refused> {
    use core::address::Address;
    use core::socket_address::PortSpecifier;

    match need(value.and_then(|value| value.address), "address")? {
        Address::SocketAddress(core::SocketAddress {
            protocol,
            address,
            resolver_name: _,
            ipv4_compat: _,
            network_namespace_filepath,
            port_specifier,
        }) => {
            if protocol != core::socket_address::Protocol::Tcp as i32 {
                return Err(Refused::new("only TCP is served").under("protocol"));
            }
            if !network_namespace_filepath.is_empty() {
                let reason = "sockets are opened in the proxy's own namespace";
                return Err(Refused::new(reason).under("network_namespace_filepath"));
            }
            let port = match need(port_specifier, "port_value")? {
                PortSpecifier::PortValue(value) => port(value).at("port_value")?,
                PortSpecifier::NamedPort(_) => {
                    return Err(Refused::new("ports have numbers").under("named_port"));
                }
            };
            Ok(SocketAddr::new(ip(&address).at("address")?, port))
        }
        Address::Pipe(_) => Err(Refused::new("pipes aren't served").under("pipe")),
        Address::EnvoyInternalAddress(_) => {
            let reason = "only the cluster's endpoints are internal addresses";
            Err(Refused::new(reason).under("envoy_internal_address"))
        }
    }
}

/// Data that stands in the configuration itself.
///
/// # Errors
/// It is in a file or in the environment.
pub fn data(value: core::DataSource) -> Result<Vec<u8>, Refused> {
    use core::data_source::Specifier;

    let core::DataSource {
        watched_directory: _,
        specifier,
    } = value;
    match specifier {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        Some(Specifier::InlineString(text)) => Ok(text.into_bytes()),
        Some(Specifier::Filename(name)) => {
            let reason = format!("{name:?} isn't read: put the data into the configuration");
            Err(Refused::new(reason).under("filename"))
        }
        Some(Specifier::EnvironmentVariable(name)) => {
            let reason = format!("${name} isn't read: put the data into the configuration");
            Err(Refused::new(reason).under("environment_variable"))
        }
        None => Err(Refused::new("has no data")),
    }
}

/// The same as text.
///
/// # Errors
/// It isn't in the configuration, or no text.
pub fn text(value: core::DataSource) -> Result<String, Refused> {
    String::from_utf8(data(value)?).map_err(|_| Refused::new("is no UTF-8"))
}

/// The name of a header, in any case.
///
/// # Errors
/// It is none, for example one of the request line.
pub fn header_name(name: &str) -> Result<HeaderName, Refused> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Refused::new(format!("{name:?} is no header's name")))
}

/// A status of HTTP between two bounds, both included.
///
/// # Errors
/// It is outside of them.
pub fn status(number: u32, first: u16, last: u16) -> Result<StatusCode, Refused> {
    u16::try_from(number)
        .ok()
        .filter(|status| (first..=last).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| Refused::new(format!("{number} isn't between {first} and {last}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_one_that_clocks_can_be_moved_by() {
        let read = |seconds, nanos| duration(google::Duration { seconds, nanos });
        let longest = read(315_576_000_000, 999_999_999).unwrap();
        assert!(
            std::time::Instant::now()
                .checked_add(longest * 1000)
                .is_some()
        );
        for (seconds, nanos) in [(i64::MAX, 0), (315_576_000_001, 0), (-1, 0), (1, -1)] {
            let refused = read(seconds, nanos).unwrap_err().to_string();
            assert!(refused.contains("is none"), "{refused}");
        }
    }
}
