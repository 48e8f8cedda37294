//! The small protocols that the Envoy crate does not have, as generated code. Only `intake` and
//! `source` touch these types.
#![allow(missing_docs, clippy::all, unreachable_pub)]

pub mod structs;

/// Istio's metrics filter.
pub mod stats {
    tonic::include_proto!("stats");
}

/// `udpa.type.v1`: configuration of extensions without their protobuf.
pub mod udpa {
    tonic::include_proto!("udpa.r#type.v1");
}

/// `xds.type.v3`: the same under its newer name.
pub mod xds {
    tonic::include_proto!("xds.r#type.v3");
}

/// `xds.type.matcher.v3`: a tree of addresses.
pub mod matcher {
    tonic::include_proto!("xds.r#type.matcher.v3");
}

/// The descriptors of all of these and of Envoy's messages, a serialised `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/proto.descriptors"));

impl prost::Name for stats::PluginConfig {
    const NAME: &'static str = "PluginConfig";
    const PACKAGE: &'static str = "stats";
}

impl prost::Name for udpa::TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "udpa.type.v1";
}

impl prost::Name for xds::TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "xds.type.v3";
}

impl prost::Name for matcher::IpMatcher {
    const NAME: &'static str = "IPMatcher";
    const PACKAGE: &'static str = "xds.type.matcher.v3";
}
