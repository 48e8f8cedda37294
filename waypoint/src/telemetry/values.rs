//! The values of command operators, from the record of a request or connection: what access logs,
//! tags of spans and labels are written from. A value that isn't known is said to be missing, so
//! that whoever asks decides how that looks.

mod clock;

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use http::{HeaderName, Version};
use serde_json::Value;

use super::exchange::{Connection, Exchange, Kept, Marks, Upstream};
use super::flags::Flags;
use crate::connection::Downstream;
use crate::expression;
use crate::grpc;
use crate::head::{decode, parameters, split_path};
use crate::model::format::{GrpcForm, Operator, WhichPath};
use crate::model::text::HeaderKey;
use crate::route::headers::Values;

/// The name of this host, for `%HOSTNAME%`.
static HOSTNAME: LazyLock<String> = LazyLock::new(|| {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    kernel.trim().to_owned()
});

/// What both kinds of records have.
struct Common<'r> {
    downstream: &'r Downstream,
    upstream: &'r Upstream,
    flags: Flags,
    client: SocketAddr,
    start: Instant,
    started: SystemTime,
    end: Option<Instant>,
    received: u64,
    sent: u64,
}

impl Values for Exchange {
    fn write(&self, operator: &Operator, out: &mut String) -> bool {
        let marks = &self.marks;
        match operator {
            Operator::Request { key, otherwise } => {
                self.request(key, out)
                    || otherwise.as_ref().is_some_and(|key| self.request(key, out))
            }
            Operator::Response { key, otherwise } => kept(&self.response, key, otherwise, out),
            Operator::Trailer { key, otherwise } => kept(&self.trailers, key, otherwise, out),
            Operator::Protocol => text(protocol(self.protocol), out),
            Operator::UpstreamProtocol => self
                .upstream_protocol
                .is_some_and(|version| text(protocol(version), out)),
            Operator::ResponseCode => number(self.status.map_or(0, |status| status.as_u16()), out),
            Operator::ResponseCodeDetails => text(&self.details, out),
            Operator::RequestDuration => since(marks, marks.request_end, out),
            Operator::RequestTxDuration => since(marks, marks.upstream_end, out),
            Operator::ResponseDuration => since(marks, marks.response_start, out),
            Operator::ResponseTxDuration => match (marks.response_start, marks.end) {
                (Some(from), Some(to)) => millis(from, to, out),
                _ => false,
            },
            Operator::RouteName => {
                let route = self.route.as_ref();
                route.is_some_and(|route| text(&route.name, out))
            }
            Operator::GrpcStatus { form } => {
                self.call_status()
                    .is_some_and(|status| match (form, grpc::names(status)) {
                        (GrpcForm::Camel, Some((camel, _))) => text(camel, out),
                        (GrpcForm::Snake, Some((_, snake))) => text(snake, out),
                        _ => number(status, out),
                    })
            }
            Operator::TraceId => {
                let span = self.span.as_ref();
                span.is_some_and(|span| write!(out, "{:032x}", span.trace).is_ok())
            }
            Operator::SpanId => {
                let span = self.span.as_ref();
                span.is_some_and(|span| write!(out, "{:016x}", span.id).is_ok())
            }
            Operator::DynamicMetadata { path } => match path.split_first() {
                Some((filter, [])) => self
                    .metadata
                    .of(filter)
                    .and_then(|values| serde_json::to_string(values).ok())
                    .is_some_and(|json| text(&json, out)),
                Some((filter, keys)) => self
                    .metadata
                    .get(filter, keys)
                    .is_some_and(|value| plain_json(value, out)),
                None => false,
            },
            Operator::Path { query, which } => {
                let path = match (&self.original_path, which) {
                    (Some(path), WhichPath::Original | WhichPath::OriginalOrNow) => path.as_str(),
                    (None, WhichPath::Original) => return false,
                    _ => self.path.as_str(),
                };
                text(if *query { path } else { split_path(path).0 }, out)
            }
            Operator::QueryParameter(name) => {
                let mut all = parameters(self.path.as_str());
                let found = all.find(|(other, _)| *decode(other) == **name);
                // An empty value is a value.
                found
                    .inspect(|(_, value)| out.push_str(&decode(value)))
                    .is_some()
            }
            Operator::Expression(expression) => expression::write(expression, self, out),
            operator => self.common().write(operator, out),
        }
    }
}

impl Values for Connection {
    fn write(&self, operator: &Operator, out: &mut String) -> bool {
        match operator {
            Operator::ConnectionTerminationDetails => text(&self.details, out),
            Operator::ResponseCodeDetails => text(self.verdict, out),
            Operator::ResponseCode => number(0_u32, out),
            Operator::Expression(expression) => expression::write(expression, self, out),
            operator => Common {
                downstream: &self.downstream,
                upstream: &self.upstream,
                flags: self.flags,
                client: self.downstream.remote,
                start: self.start,
                started: self.started,
                end: self.end,
                received: self.received,
                sent: self.sent,
            }
            .write(operator, out),
        }
    }
}

impl Exchange {
    fn common(&self) -> Common<'_> {
        Common {
            downstream: &self.downstream,
            upstream: &self.upstream,
            flags: self.flags,
            client: self.client,
            start: self.marks.start,
            started: self.marks.started,
            end: self.marks.end,
            received: self.received,
            sent: self.sent,
        }
    }

    fn request(&self, key: &HeaderKey, out: &mut String) -> bool {
        match key {
            HeaderKey::Method => text(self.method.as_str(), out),
            HeaderKey::Path => text(self.path.as_str(), out),
            HeaderKey::Authority => text(self.authority.as_str(), out),
            HeaderKey::Scheme => text(self.scheme, out),
            HeaderKey::Name(name) if *name == ORIGINAL_PATH => self
                .original_path
                .as_ref()
                .is_some_and(|path| text(path.as_str(), out)),
            HeaderKey::Name(name) => kept(&self.request, name, &None, out),
        }
    }
}

const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

impl Common<'_> {
    #[expect(
        clippy::too_many_lines,
        reason = "one arm an operator, each on its own; splitting would only hide some"
    )]
    fn write(&self, operator: &Operator, out: &mut String) -> bool {
        let (downstream, upstream) = (self.downstream, self.upstream);
        let peer = downstream.peer.as_deref();
        match operator {
            Operator::StartTime { format } => clock::write(self.started, format.as_deref(), out),
            Operator::EmitTime { format } => {
                clock::write(SystemTime::now(), format.as_deref(), out)
            }
            Operator::ResponseFlags => {
                self.flags.write(out);
                true
            }
            Operator::ResponseFlagsLong => {
                self.flags.write_long(out);
                true
            }
            Operator::BytesReceived => number(self.received, out),
            Operator::BytesSent => number(self.sent, out),
            Operator::Duration => self.end.is_some_and(|end| millis(self.start, end, out)),
            Operator::UpstreamHost => address(upstream.host(), true, out),
            Operator::UpstreamRemoteAddress { port } => address(upstream.remote, *port, out),
            Operator::UpstreamLocalAddress { port } => address(upstream.local, *port, out),
            Operator::UpstreamHostName { port } => {
                upstream
                    .endpoint
                    .as_ref()
                    .is_some_and(|endpoint| text(&endpoint.hostname, out))
                    || address(upstream.host(), *port, out)
            }
            Operator::UpstreamCluster => upstream
                .cluster
                .as_ref()
                .is_some_and(|cluster| text(&cluster.stat_name, out) || text(&cluster.name, out)),
            Operator::UpstreamClusterRaw => upstream
                .cluster
                .as_ref()
                .is_some_and(|cluster| text(&cluster.name, out)),
            Operator::UpstreamTransportFailureReason => {
                let failure = upstream.failure.as_deref().unwrap_or_default();
                text(&failure.replace(' ', "_"), out)
            }
            Operator::UpstreamFailure => text(upstream.failure.as_deref().unwrap_or_default(), out),
            Operator::UpstreamRequestAttemptCount => number(upstream.attempts, out),
            Operator::DownstreamLocalAddress { port } => {
                address(Some(downstream.local), *port, out)
            }
            Operator::DownstreamLocalPort => number(downstream.local.port(), out),
            Operator::DownstreamRemoteAddress { port } => address(Some(self.client), *port, out),
            Operator::DownstreamDirectRemoteAddress { port } => {
                address(Some(downstream.remote), *port, out)
            }
            Operator::DownstreamPeerUriSan => {
                peer.is_some_and(|peer| text(&peer.uris.join(","), out))
            }
            Operator::DownstreamCertificate => peer.is_some(),
            Operator::DownstreamPeerSubject => peer.is_some_and(|peer| text(&peer.subject, out)),
            Operator::DownstreamLocalUriSan => {
                let own = downstream.own.as_ref();
                own.is_some_and(|own| text(own.as_str(), out))
            }
            Operator::RequestedServerName => {
                text(downstream.server_name.as_deref().unwrap_or_default(), out)
            }
            Operator::Hostname => text(&HOSTNAME, out),
            Operator::ConnectionId => number(downstream.id, out),
            Operator::Environment(value) => text(value, out),
            Operator::FilterState { key, .. } => match &**key {
                "io.istio.peer_principal" => text(downstream.principal().unwrap_or_default(), out),
                "io.istio.local_principal" => {
                    let own = downstream.own.as_ref();
                    own.is_some_and(|own| text(own.as_str(), out))
                }
                _ => false,
            },
            Operator::UpstreamMetadata { path } => match path.as_slice() {
                [filter, key] if **filter == *"istio" && **key == *"workload" => {
                    let endpoint = upstream.endpoint.as_ref();
                    let workload = endpoint.and_then(|endpoint| endpoint.workload.as_ref());
                    workload.is_some_and(|of| {
                        let (name, namespace) = (&of.name, &of.namespace);
                        let (canonical, revision) = (&of.canonical_name, &of.canonical_revision);
                        let cluster = &of.cluster;
                        write!(out, "{name};{namespace};{canonical};{revision};{cluster}").is_ok()
                    })
                }
                [filter, key] if **filter == *"envoy.lb" => {
                    let endpoint = upstream.endpoint.as_ref();
                    let mut pairs = endpoint.into_iter().flat_map(|endpoint| &*endpoint.lb);
                    let value = pairs.find(|(name, _)| name == key);
                    value.is_some_and(|(_, value)| text(value, out))
                }
                _ => false,
            },
            // What only a request has, and what is not known here: wire bytes are the sockets'
            // business, TLS ends in front of the waypoint or in it with one version, and stream
            // numbers are shown as the request's id.
            Operator::Request { .. }
            | Operator::Response { .. }
            | Operator::Trailer { .. }
            | Operator::Protocol
            | Operator::ResponseCode
            | Operator::ResponseCodeDetails
            | Operator::ConnectionTerminationDetails
            | Operator::DownstreamTransportFailureReason
            | Operator::UpstreamWireBytesSent
            | Operator::UpstreamWireBytesReceived
            | Operator::DownstreamWireBytesSent
            | Operator::DownstreamWireBytesReceived
            | Operator::RequestDuration
            | Operator::ResponseDuration
            | Operator::ResponseTxDuration
            | Operator::RequestTxDuration
            | Operator::UpstreamProtocol
            | Operator::DownstreamTlsVersion
            | Operator::DownstreamTlsCipher
            | Operator::RouteName
            | Operator::VirtualClusterName
            | Operator::StreamId
            | Operator::TraceId
            | Operator::SpanId
            | Operator::GrpcStatus { .. }
            | Operator::DynamicMetadata { .. }
            | Operator::ClusterMetadata { .. }
            | Operator::Expression(_)
            | Operator::Path { .. }
            | Operator::QueryParameter(_) => false,
        }
    }
}

/// Whether the value of an operator is a number, which JSON keeps as one.
pub(super) fn is_number(operator: &Operator) -> bool {
    matches!(
        operator,
        Operator::ResponseCode
            | Operator::BytesReceived
            | Operator::BytesSent
            | Operator::Duration
            | Operator::RequestDuration
            | Operator::RequestTxDuration
            | Operator::ResponseDuration
            | Operator::ResponseTxDuration
            | Operator::UpstreamRequestAttemptCount
            | Operator::ConnectionId
            | Operator::DownstreamLocalPort
            | Operator::GrpcStatus {
                form: GrpcForm::Number
            }
    )
}

/// A protocol's name, as Envoy writes it.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn kept(kept: &Kept, key: &HeaderName, otherwise: &Option<HeaderName>, out: &mut String) -> bool {
    let value = kept.get(key).or_else(|| kept.get(otherwise.as_ref()?));
    value.is_some_and(|value| {
        // An empty value is a value, unlike a missing header.
        out.push_str(&String::from_utf8_lossy(value.as_bytes()));
        true
    })
}

fn text(value: &str, out: &mut String) -> bool {
    out.push_str(value);
    !value.is_empty()
}

fn number(value: impl Into<u64>, out: &mut String) -> bool {
    write!(out, "{}", value.into()).is_ok()
}

fn plain_json(value: &Value, out: &mut String) -> bool {
    match value {
        Value::String(value) => text(value, out),
        value => write!(out, "{value}").is_ok(),
    }
}

fn since(marks: &Marks, mark: Option<Instant>, out: &mut String) -> bool {
    mark.is_some_and(|mark| millis(marks.start, mark, out))
}

fn millis(from: Instant, to: Instant, out: &mut String) -> bool {
    write!(out, "{}", to.saturating_duration_since(from).as_millis()).is_ok()
}

fn address(address: Option<SocketAddr>, port: bool, out: &mut String) -> bool {
    address.is_some_and(|address| {
        match port {
            true => write!(out, "{address}"),
            false => write!(out, "{}", address.ip()),
        }
        .is_ok()
    })
}

#[cfg(test)]
mod tests;
