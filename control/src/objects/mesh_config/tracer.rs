//! Services that spans are told to: `opentelemetry` and `zipkin` among the mesh configuration's
//! providers.

use serde::Deserialize;

use super::super::duration::Duration;

/// A collector of spans.
#[derive(Clone, Debug, PartialEq)]
pub enum Tracer {
    /// `opentelemetry`.
    OpenTelemetry(OpenTelemetry),
    /// `zipkin`.
    Zipkin(Zipkin),
}

/// `opentelemetry`, as far as a waypoint serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OpenTelemetry {
    /// Its host name, after `NAMESPACE/` or alone.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// How much of a path a span says, in bytes.
    pub max_tag_length: u32,
    /// Over HTTP rather than gRPC.
    pub http: Option<OverHttp>,
    /// Over gRPC.
    pub grpc: Option<OverGrpc>,
}

/// `opentelemetry.http`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverHttp {
    /// The path.
    pub path: String,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// `opentelemetry.grpc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverGrpc {
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// `zipkin`, as far as a waypoint serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Zipkin {
    /// Its host name, after `NAMESPACE/` or alone.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// How much of a path a span says, in bytes.
    pub max_tag_length: u32,
    /// The path; none: that of Zipkin's second version.
    pub path: String,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

impl Tracer {
    /// The service's host name and port.
    #[must_use]
    pub fn place(&self) -> (&str, u16) {
        let (service, port) = match self {
            Self::OpenTelemetry(one) => (one.service.as_str(), one.port),
            Self::Zipkin(one) => (one.service.as_str(), one.port),
        };
        let host = service.split_once('/').map_or(service, |(_, host)| host);
        (host, port)
    }

    /// Says what is wrong, by its field.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.place() {
            ("", _) => Err("service: none is named".to_owned()),
            (_, 0) => Err("port: none is named".to_owned()),
            _ => Ok(()),
        }
    }
}
