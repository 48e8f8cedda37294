//! What is known of a request when headers are set from it: the values of command operators, as far
//! as they are known before the answer's end. What isn't known sets nothing.

use std::fmt::Write;
use std::net::SocketAddr;

use http::header::HeaderValue;

use crate::model::format::Operator;
use crate::model::text::HeaderKey;
use crate::route::headers::Values;
use crate::telemetry::Exchange;

/// What is known of a request so far.
pub(super) struct Known<'e>(pub(super) &'e Exchange);

impl Values for Known<'_> {
    fn write(&self, operator: &Operator, out: &mut String) -> bool {
        let (exchange, down) = (self.0, &*self.0.downstream);
        match operator {
            Operator::Request { key, otherwise } => {
                self.request(key, out)
                    || otherwise.as_ref().is_some_and(|key| self.request(key, out))
            }
            Operator::Protocol => text(out, protocol(exchange.protocol)),
            Operator::ResponseCode => {
                let status = exchange.status.map_or(0, |status| status.as_u16());
                write!(out, "{status}").is_ok()
            }
            Operator::ResponseCodeDetails => text(out, &exchange.details),
            Operator::ResponseFlags => {
                exchange.flags.write(out);
                true
            }
            Operator::UpstreamCluster | Operator::UpstreamClusterRaw => {
                let cluster = exchange.upstream.cluster.as_ref();
                cluster.is_some_and(|cluster| text(out, &cluster.name))
            }
            Operator::UpstreamHost | Operator::UpstreamRemoteAddress { port: true } => {
                address(out, exchange.upstream.remote, true)
            }
            Operator::UpstreamRemoteAddress { port: false } => {
                address(out, exchange.upstream.remote, false)
            }
            Operator::UpstreamLocalAddress { port } => address(out, exchange.upstream.local, *port),
            Operator::UpstreamRequestAttemptCount => {
                write!(out, "{}", exchange.upstream.attempts).is_ok()
            }
            Operator::DownstreamLocalAddress { port } => address(out, Some(down.local), *port),
            Operator::DownstreamLocalPort => write!(out, "{}", down.local.port()).is_ok(),
            Operator::DownstreamRemoteAddress { port } => {
                address(out, Some(exchange.client), *port)
            }
            Operator::DownstreamDirectRemoteAddress { port } => {
                address(out, Some(down.remote), *port)
            }
            Operator::DownstreamPeerUriSan => down.principal().is_some_and(|name| text(out, name)),
            Operator::DownstreamLocalUriSan => {
                let own = down.own.as_ref();
                own.is_some_and(|own| text(out, own.as_str()))
            }
            Operator::DownstreamPeerSubject => {
                let peer = down.peer.as_ref();
                peer.is_some_and(|peer| text(out, &peer.subject))
            }
            Operator::RequestedServerName => {
                let name = down.server_name.as_deref();
                name.is_some_and(|name| text(out, name))
            }
            Operator::RouteName => {
                let route = exchange.route.as_ref();
                route.is_some_and(|route| text(out, &route.name))
            }
            Operator::ConnectionId => write!(out, "{}", down.id).is_ok(),
            Operator::Environment(value) => text(out, value),
            Operator::Path { query, original } => {
                let path = match (&exchange.original_path, original) {
                    (Some(path), true) => path.as_str(),
                    _ => exchange.path.as_str(),
                };
                match query {
                    true => text(out, path),
                    false => text(out, crate::head::split_path(path).0),
                }
            }
            Operator::FilterState { key, .. } if &**key == "io.istio.peer_principal" => {
                down.principal().is_some_and(|name| text(out, name))
            }
            Operator::DynamicMetadata { path } => match path.split_first() {
                Some((filter, keys)) => {
                    let value = exchange.metadata.get(filter, keys);
                    value.is_some_and(|value| match value.as_str() {
                        Some(value) => text(out, value),
                        None => write!(out, "{value}").is_ok(),
                    })
                }
                None => false,
            },
            Operator::StartTime { .. }
            | Operator::Response { .. }
            | Operator::Trailer { .. }
            | Operator::ConnectionTerminationDetails
            | Operator::UpstreamTransportFailureReason
            | Operator::DownstreamTransportFailureReason
            | Operator::BytesReceived
            | Operator::BytesSent
            | Operator::UpstreamWireBytesSent
            | Operator::UpstreamWireBytesReceived
            | Operator::DownstreamWireBytesSent
            | Operator::DownstreamWireBytesReceived
            | Operator::Duration
            | Operator::RequestDuration
            | Operator::ResponseDuration
            | Operator::ResponseTxDuration
            | Operator::RequestTxDuration
            | Operator::UpstreamHostName
            | Operator::UpstreamProtocol
            | Operator::DownstreamTlsVersion
            | Operator::DownstreamTlsCipher
            | Operator::VirtualClusterName
            | Operator::Hostname
            | Operator::StreamId
            | Operator::TraceId
            | Operator::SpanId
            | Operator::GrpcStatus { .. }
            | Operator::FilterState { .. }
            | Operator::ClusterMetadata { .. }
            | Operator::UpstreamMetadata { .. } => false,
        }
    }
}

impl Known<'_> {
    fn request(&self, key: &HeaderKey, out: &mut String) -> bool {
        let exchange = self.0;
        match key {
            HeaderKey::Method => text(out, exchange.method.as_str()),
            HeaderKey::Path => text(out, exchange.path.as_str()),
            HeaderKey::Authority => text(out, exchange.authority.as_str()),
            HeaderKey::Scheme => text(out, exchange.scheme),
            HeaderKey::Name(name) => {
                let value = exchange.request.get(name).map(HeaderValue::as_bytes);
                value.is_some_and(|value| text(out, &String::from_utf8_lossy(value)))
            }
        }
    }
}

fn text(out: &mut String, value: &str) -> bool {
    out.push_str(value);
    !value.is_empty()
}

fn address(out: &mut String, address: Option<SocketAddr>, port: bool) -> bool {
    match (address, port) {
        (None, _) => false,
        (Some(address), true) => write!(out, "{address}").is_ok(),
        (Some(address), false) => write!(out, "{}", address.ip()).is_ok(),
    }
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
