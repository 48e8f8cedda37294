//! Which chain of `main_internal` a tunnelled connection gets: by address, port, and protocol.

use std::net::IpAddr;

use envoy_types::pb::envoy::extensions::matching::common_inputs::network::v3 as inputs;
use envoy_types::pb::google::protobuf::StringValue;
use prost::{Message, Name};

use super::api::{Any, any, xds_core, xds_matcher};

use xds_matcher::matcher::{MatcherTree, MatcherType, OnMatch, matcher_tree, on_match};

/// Addresses and where they lead.
#[derive(Default)]
pub(super) struct ByAddress(Vec<RangeMatcher>);

/// Left out of envoy-types. (cncf/xds, `xds/type/matcher/v3/ip.proto`)
#[derive(Clone, PartialEq, Message)]
struct IpMatcher {
    #[prost(message, repeated, tag = "1")]
    range_matchers: Vec<RangeMatcher>,
}

/// One entry of it.
#[derive(Clone, PartialEq, Message)]
struct RangeMatcher {
    #[prost(message, repeated, tag = "1")]
    ranges: Vec<xds_core::CidrRange>,
    #[prost(message, optional, tag = "2")]
    on_match: Option<OnMatch>,
}

/// A chain, or a further question.
pub(super) type Then = OnMatch;

/// The chain of this name.
pub(super) fn chain(name: &str) -> Then {
    OnMatch {
        on_match: Some(on_match::OnMatch::Action(extension(
            name,
            &StringValue {
                value: name.to_owned(),
            },
        ))),
        ..OnMatch::default()
    }
}

/// HTTP where the first bytes are, else TCP.
pub(super) fn by_protocol(http: &str, tcp: &str) -> Then {
    // The keys carry quotes: they are compared with Envoy's own list of protocols.
    let map = ["'http/1.1'", "'h2c'"].map(|name| (name.to_owned(), chain(http)));
    further(
        extension("application-protocol", &inputs::ApplicationProtocolInput {}),
        matcher_tree::TreeType::ExactMatchMap(matcher_tree::MatchMap { map: map.into() }),
        Some(chain(tcp)),
    )
}

/// By the port of the destination.
pub(super) fn by_port(ports: Vec<(u16, Then)>) -> Then {
    let map = ports
        .into_iter()
        .map(|(port, then)| (port.to_string(), then))
        .collect();
    further(
        extension("port", &inputs::DestinationPortInput {}),
        matcher_tree::TreeType::ExactMatchMap(matcher_tree::MatchMap { map }),
        None,
    )
}

impl ByAddress {
    /// These addresses lead there. Envoy refuses a list without any.
    pub(super) fn add(&mut self, addresses: impl IntoIterator<Item = IpAddr>, then: Then) {
        let ranges: Vec<_> = addresses
            .into_iter()
            .map(|address| xds_core::CidrRange {
                address_prefix: address.to_string(),
                prefix_len: Some(envoy_types::pb::google::protobuf::UInt32Value {
                    value: if address.is_ipv4() { 32 } else { 128 },
                }),
            })
            .collect();
        if !ranges.is_empty() {
            self.0.push(RangeMatcher {
                ranges,
                on_match: Some(then),
            });
        }
    }

    /// The whole question.
    pub(super) fn finish(self) -> xds_matcher::Matcher {
        let matcher = IpMatcher {
            range_matchers: self.0,
        };
        let matcher = xds_core::TypedExtensionConfig {
            name: "ip".to_owned(),
            typed_config: Some(Any {
                type_url: "type.googleapis.com/xds.type.matcher.v3.IPMatcher".to_owned(),
                value: matcher.encode_to_vec(),
            }),
        };
        tree(
            extension("ip", &inputs::DestinationIpInput {}),
            matcher_tree::TreeType::CustomMatch(matcher),
            None,
        )
    }
}

fn further(
    input: xds_core::TypedExtensionConfig,
    by: matcher_tree::TreeType,
    otherwise: Option<Then>,
) -> Then {
    OnMatch {
        on_match: Some(on_match::OnMatch::Matcher(Box::new(tree(
            input, by, otherwise,
        )))),
        ..OnMatch::default()
    }
}

fn tree(
    input: xds_core::TypedExtensionConfig,
    by: matcher_tree::TreeType,
    otherwise: Option<Then>,
) -> xds_matcher::Matcher {
    xds_matcher::Matcher {
        matcher_type: Some(MatcherType::MatcherTree(MatcherTree {
            input: Some(input),
            tree_type: Some(by),
        })),
        on_no_match: otherwise.map(Box::new),
    }
}

fn extension<M: Message + Name>(name: &str, message: &M) -> xds_core::TypedExtensionConfig {
    xds_core::TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(any(message)),
    }
}
