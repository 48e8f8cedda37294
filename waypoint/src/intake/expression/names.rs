//! Envoy's attributes by name, as far as something here has their value.

use http::HeaderName;
use http::header::{REFERER, USER_AGENT};

use crate::model::expression::Attribute;
use crate::model::format::{GrpcForm, Operator, WhichPath};
use crate::model::text::HeaderKey;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The attribute of this name, one of [`mesh::expression::ATTRIBUTES`].
pub(crate) fn attribute(name: &str) -> Option<Attribute> {
    use Attribute::{Flags, Number, Port, Query, Span, Text, Truth};

    let request = |key| {
        let otherwise = None;
        Text(Operator::Request { key, otherwise })
    };
    let path = Operator::Path {
        query: false,
        which: WhichPath::Now,
    };
    Some(match name {
        "request.method" => request(HeaderKey::Method),
        "request.host" => request(HeaderKey::Authority),
        "request.path" => request(HeaderKey::Path),
        "request.scheme" => request(HeaderKey::Scheme),
        "request.url_path" => Text(path),
        "request.query" => Query,
        "request.referer" => request(HeaderKey::Name(REFERER)),
        "request.useragent" => request(HeaderKey::Name(USER_AGENT)),
        "request.id" => request(HeaderKey::Name(REQUEST_ID)),
        "request.protocol" => Text(Operator::Protocol),
        "request.duration" => Span(Operator::Duration),
        "request.size" => Number(Operator::BytesReceived),
        "response.size" => Number(Operator::BytesSent),
        "response.code" => Number(Operator::ResponseCode),
        "response.code_details" => Text(Operator::ResponseCodeDetails),
        "response.grpc_status" => Number(Operator::GrpcStatus {
            form: GrpcForm::Number,
        }),
        "response.flags" => Flags,
        "source.address" => Text(Operator::DownstreamRemoteAddress { port: true }),
        "source.port" => Port(Operator::DownstreamRemoteAddress { port: true }),
        "destination.address" => Text(Operator::DownstreamLocalAddress { port: true }),
        "destination.port" => Number(Operator::DownstreamLocalPort),
        "connection.mtls" => Truth(Operator::DownstreamCertificate),
        "connection.id" => Number(Operator::ConnectionId),
        "connection.requested_server_name" => Text(Operator::RequestedServerName),
        "connection.uri_san_peer_certificate" => Text(Operator::DownstreamPeerUriSan),
        "connection.uri_san_local_certificate" => Text(Operator::DownstreamLocalUriSan),
        "connection.subject_peer_certificate" => Text(Operator::DownstreamPeerSubject),
        "connection.tls_version" => Text(Operator::DownstreamTlsVersion),
        "connection.termination_details" => Text(Operator::ConnectionTerminationDetails),
        "upstream.address" => Text(Operator::UpstreamHost),
        "upstream.port" => Port(Operator::UpstreamHost),
        "upstream.local_address" => Text(Operator::UpstreamLocalAddress { port: true }),
        "upstream.transport_failure_reason" => Text(Operator::UpstreamFailure),
        "upstream.request_attempt_count" => Number(Operator::UpstreamRequestAttemptCount),
        "xds.route_name" => Text(Operator::RouteName),
        "xds.cluster_name" => Text(Operator::UpstreamClusterRaw),
        _ => return None,
    })
}
