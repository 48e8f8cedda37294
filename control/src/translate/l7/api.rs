//! Envoy's vocabulary in short: names of its packages, and the words that every message needs.

use std::collections::HashMap;
use std::net::IpAddr;

use prost::{Message, Name};

pub(super) use envoy_types::pb::envoy::config::accesslog::v3 as accesslog;
pub(super) use envoy_types::pb::envoy::config::cluster::v3 as cluster;
pub(super) use envoy_types::pb::envoy::config::core::v3 as core;
pub(super) use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
pub(super) use envoy_types::pb::envoy::config::listener::v3 as listener;
pub(super) use envoy_types::pb::envoy::config::rbac::v3 as rbac;
pub(super) use envoy_types::pb::envoy::config::route::v3 as route;
pub(super) use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub(super) use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
pub(super) use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub(super) use envoy_types::pb::envoy::r#type::v3 as percent;
pub(super) use envoy_types::pb::google::protobuf::value::Kind;
pub(super) use envoy_types::pb::google::protobuf::{
    Any, BoolValue, Duration, Empty, ListValue, Struct, UInt32Value, UInt64Value, Value,
};
pub(super) use envoy_types::pb::xds::core::v3 as xds_core;
pub(super) use envoy_types::pb::xds::r#type::matcher::v3 as xds_matcher;

use super::view::Place;
use crate::objects::duration::Duration as Parsed;

/// A message with its type.
pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

/// Two messages that envoy-types leaves out. (cncf/xds, `udpa/type/v1/typed_struct.proto`)
#[derive(Clone, PartialEq, Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Struct>,
}

/// An extension of Istio's, whose fields are JSON-like (`udpa.type.v1.TypedStruct`: on the wire the
/// same as its successor).
pub(super) fn typed_struct(of: &str, value: Struct) -> Any {
    let message = TypedStruct {
        type_url: format!("type.googleapis.com/{of}"),
        value: Some(value),
    };
    Any {
        type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".to_owned(),
        value: message.encode_to_vec(),
    }
}

pub(super) fn duration(duration: std::time::Duration) -> Duration {
    Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

pub(super) fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

pub(super) fn parsed(value: Option<Parsed>) -> Option<Duration> {
    value.map(|value| duration(value.0))
}

pub(super) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// A number where zero says that nothing was said.
pub(super) fn said(value: u32) -> Option<UInt32Value> {
    (value > 0).then_some(UInt32Value { value })
}

pub(super) fn truth(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub(super) fn text(value: impl Into<String>) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.into())),
    }
}

pub(super) fn yes() -> Value {
    Value {
        kind: Some(Kind::BoolValue(true)),
    }
}

pub(super) fn list(values: Vec<Value>) -> Value {
    Value {
        kind: Some(Kind::ListValue(ListValue { values })),
    }
}

pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Struct {
    Struct {
        fields: fields
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect(),
    }
}

pub(super) fn nested(value: Struct) -> Value {
    Value {
        kind: Some(Kind::StructValue(value)),
    }
}

/// `filter_metadata: {name: value}`.
pub(super) fn metadata(parts: impl IntoIterator<Item = (String, Struct)>) -> core::Metadata {
    core::Metadata {
        filter_metadata: parts.into_iter().collect(),
        typed_filter_metadata: HashMap::new(),
    }
}

pub(super) fn socket_address(place: &Place, port: u32) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: match place {
                Place::Address(address) => address.to_string(),
                Place::Name(name) => name.clone(),
            },
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
            ..core::SocketAddress::default()
        })),
    }
}

pub(super) fn internal_address(listener: &str, endpoint_id: &str) -> core::Address {
    use core::envoy_internal_address::AddressNameSpecifier;
    core::Address {
        address: Some(core::address::Address::EnvoyInternalAddress(
            core::EnvoyInternalAddress {
                address_name_specifier: Some(AddressNameSpecifier::ServerListenerName(
                    listener.to_owned(),
                )),
                endpoint_id: endpoint_id.to_owned(),
            },
        )),
    }
}

pub(super) fn regex(regex: impl Into<String>) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: regex.into(),
        ..matcher::RegexMatcher::default()
    }
}

pub(super) fn string(
    pattern: matcher::string_matcher::MatchPattern,
    ignore_case: bool,
) -> matcher::StringMatcher {
    matcher::StringMatcher {
        match_pattern: Some(pattern),
        ignore_case,
    }
}

pub(super) fn inline(text: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(text.to_owned())),
        ..core::DataSource::default()
    }
}

pub(super) fn format_string(text: &str) -> core::SubstitutionFormatString {
    core::SubstitutionFormatString {
        format: Some(core::substitution_format_string::Format::TextFormatSource(
            inline(text),
        )),
        ..core::SubstitutionFormatString::default()
    }
}

pub(super) fn http_filter(name: &str, config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..hcm::HttpFilter::default()
    }
}

pub(super) fn network_filter(name: &str, config: Any) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(config)),
    }
}

pub(super) fn transport_socket(name: &str, config: Any) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(config)),
    }
}

/// `ip/length` of an address or block; the address as it is written.
pub(super) fn cidr(text: &str) -> Option<core::CidrRange> {
    let net: ipnet::IpNet = text
        .parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(ipnet::IpNet::from))?;
    Some(core::CidrRange {
        address_prefix: net.addr().to_string(),
        prefix_len: number(u32::from(net.prefix_len())),
    })
}
