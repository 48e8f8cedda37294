//! Envoy's command operators by name → [`model::format::Operator`](crate::model::format::Operator).

use std::sync::Arc;

use crate::intake::error::Refused;
use crate::intake::expression::{self, Problem};
use crate::intake::served::Notes;
use crate::intake::{plain, text};
use crate::model::format::{GrpcForm, Operator, WhichPath};

/// Operators that Envoy has and that have no value here.
pub(super) const VALUELESS: &[&str] = &[
    "ACCESS_LOG_TYPE",
    "BYTES_RETRANSMITTED",
    "COALESCE",
    "COMMON_DURATION",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_LOCAL_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_REMOTE_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DYNAMIC_MODULES_FILTER_STATE",
    "EMIT_TIME_LOCAL",
    "FILTER_CHAIN_NAME",
    "HOST_METADATA",
    "LISTENER_METADATA",
    "LOCAL_REPLY_BODY",
    "NEW_DOWNSTREAM_CONNECTION",
    "PROTOCOL_STRING",
    "QUERY_PARAMS",
    "REQUEST_HEADERS_BYTES",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "ROUTE_METADATA",
    "ROUNDTRIP_DURATION",
    "START_TIME_LOCAL",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "UNIQUE_ID",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_DETECTED_CLOSE_TYPE",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_HANDSHAKE_DURATION",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOSTS_ATTEMPTED",
    "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_HOST_NAMES_ATTEMPTED",
    "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_CONNECTION_IDS_ATTEMPTED",
    "UPSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
    "UPSTREAM_LOCAL_CLOSE_REASON",
    "UPSTREAM_LOCAL_DNS_SAN",
    "UPSTREAM_LOCAL_IP_SAN",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_LOCAL_SUBJECT",
    "UPSTREAM_LOCAL_URI_SAN",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_CERT_V_END",
    "UPSTREAM_PEER_CERT_V_START",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_IP_SAN",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_TLS_VERSION",
];

/// The operator of this name, with what stands in its brackets.
///
/// # Errors
/// Envoy has no such operator, or its argument is none.
pub(super) fn operator(
    name: &str,
    argument: Option<&str>,
    notes: &mut Notes,
) -> Result<Operator, Refused> {
    if let Some(operator) = plain_operator(name) {
        return Ok(operator);
    }
    let argument = argument.unwrap_or("");
    Ok(match name {
        "START_TIME" => Operator::StartTime {
            format: (!argument.is_empty()).then(|| argument.into()),
        },
        "EMIT_TIME" => Operator::EmitTime {
            format: (!argument.is_empty()).then(|| argument.into()),
        },
        "QUERY_PARAM" if argument.is_empty() => return Err(Refused::new("needs a name")),
        "QUERY_PARAM" => Operator::QueryParameter(argument.into()),
        "REQ" => request(argument)?,
        "CEL" => match expression::parse(argument) {
            Ok(expression) => Operator::Expression(Arc::new(expression)),
            Err(Problem::Wrong(why)) => return Err(Refused::new(why)),
            Err(Problem::Unserved(what)) => {
                let reason = format!("{what} isn't served, and it has no value");
                notes.count(format!("%CEL({argument})%"), &reason);
                Operator::VirtualClusterName
            }
        },
        "REQ_WITHOUT_QUERY" => without_query(argument, notes)?,
        "RESP" => response(argument)?,
        "TRAILER" => {
            let (key, otherwise) = response_keys(argument)?;
            Operator::Trailer { key, otherwise }
        }
        "PATH" => path(argument)?,
        "GRPC_STATUS" => {
            let form = match argument {
                "" | "CAMEL_STRING" => GrpcForm::Camel,
                "SNAKE_STRING" => GrpcForm::Snake,
                "NUMBER" => GrpcForm::Number,
                _ => return Err(Refused::new(format!("{argument:?} is no form of it"))),
            };
            Operator::GrpcStatus { form }
        }
        "FILTER_STATE" => filter_state(argument)?,
        "DYNAMIC_METADATA" => Operator::DynamicMetadata {
            path: keys(argument)?,
        },
        "CLUSTER_METADATA" => Operator::ClusterMetadata {
            path: keys(argument)?,
        },
        "UPSTREAM_METADATA" => Operator::UpstreamMetadata {
            path: keys(argument)?,
        },
        "METADATA" => metadata(argument, notes)?,
        // Envoy's value for a variable that isn't there.
        "ENVIRONMENT" => {
            Operator::Environment(std::env::var(argument).unwrap_or("-".to_owned()).into())
        }
        _ if VALUELESS.contains(&name) => valueless(name, notes),
        _ => return Err(Refused::new("Envoy has no such operator")),
    })
}

/// An operator without an argument.
fn plain_operator(name: &str) -> Option<Operator> {
    Some(match name {
        "PROTOCOL" => Operator::Protocol,
        "RESPONSE_CODE" => Operator::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Operator::ResponseCodeDetails,
        "RESPONSE_FLAGS" => Operator::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Operator::ResponseFlagsLong,
        "CONNECTION_TERMINATION_DETAILS" => Operator::ConnectionTerminationDetails,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamTransportFailureReason,
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => Operator::DownstreamTransportFailureReason,
        "BYTES_RECEIVED" => Operator::BytesReceived,
        "BYTES_SENT" => Operator::BytesSent,
        "UPSTREAM_WIRE_BYTES_SENT" => Operator::UpstreamWireBytesSent,
        "UPSTREAM_WIRE_BYTES_RECEIVED" => Operator::UpstreamWireBytesReceived,
        "DOWNSTREAM_WIRE_BYTES_SENT" => Operator::DownstreamWireBytesSent,
        "DOWNSTREAM_WIRE_BYTES_RECEIVED" => Operator::DownstreamWireBytesReceived,
        "DURATION" => Operator::Duration,
        "REQUEST_DURATION" => Operator::RequestDuration,
        "RESPONSE_DURATION" => Operator::ResponseDuration,
        "RESPONSE_TX_DURATION" => Operator::ResponseTxDuration,
        "REQUEST_TX_DURATION" => Operator::RequestTxDuration,
        "UPSTREAM_HOST" => Operator::UpstreamHost,
        "UPSTREAM_HOST_NAME" => Operator::UpstreamHostName { port: true },
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Operator::UpstreamHostName { port: false },
        "UPSTREAM_CLUSTER" => Operator::UpstreamCluster,
        "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamClusterRaw,
        "UPSTREAM_LOCAL_ADDRESS" => Operator::UpstreamLocalAddress { port: true },
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::UpstreamLocalAddress { port: false },
        "UPSTREAM_REMOTE_ADDRESS" => Operator::UpstreamRemoteAddress { port: true },
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::UpstreamRemoteAddress { port: false },
        "UPSTREAM_PROTOCOL" => Operator::UpstreamProtocol,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::UpstreamRequestAttemptCount,
        "DOWNSTREAM_LOCAL_ADDRESS" => Operator::DownstreamLocalAddress { port: true },
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::DownstreamLocalAddress { port: false },
        "DOWNSTREAM_LOCAL_PORT" => Operator::DownstreamLocalPort,
        "DOWNSTREAM_REMOTE_ADDRESS" => Operator::DownstreamRemoteAddress { port: true },
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Operator::DownstreamRemoteAddress { port: false }
        }
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => {
            Operator::DownstreamDirectRemoteAddress { port: true }
        }
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Operator::DownstreamDirectRemoteAddress { port: false }
        }
        "DOWNSTREAM_PEER_URI_SAN" => Operator::DownstreamPeerUriSan,
        "DOWNSTREAM_LOCAL_URI_SAN" => Operator::DownstreamLocalUriSan,
        "DOWNSTREAM_PEER_SUBJECT" => Operator::DownstreamPeerSubject,
        "DOWNSTREAM_TLS_VERSION" => Operator::DownstreamTlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => Operator::DownstreamTlsCipher,
        "REQUESTED_SERVER_NAME" => Operator::RequestedServerName,
        "ROUTE_NAME" => Operator::RouteName,
        "VIRTUAL_CLUSTER_NAME" => Operator::VirtualClusterName,
        "HOSTNAME" => Operator::Hostname,
        "CONNECTION_ID" => Operator::ConnectionId,
        "STREAM_ID" => Operator::StreamId,
        "TRACE_ID" => Operator::TraceId,
        "SPAN_ID" => Operator::SpanId,
        "GRPC_STATUS_NUMBER" => Operator::GrpcStatus {
            form: GrpcForm::Number,
        },
        _ => return None,
    })
}

fn valueless(name: &str, notes: &mut Notes) -> Operator {
    notes.count(format!("%{name}%"), "its value is never there");
    // A key that nobody writes.
    Operator::FilterState {
        key: format!("%{name}%").into(),
        field: None,
    }
}

fn alternatives(argument: &str) -> (&str, Option<&str>) {
    match argument.split_once('?') {
        Some((first, second)) => (first, Some(second)),
        None => (argument, None),
    }
}

fn request(argument: &str) -> Result<Operator, Refused> {
    let (first, second) = alternatives(argument);
    Ok(Operator::Request {
        key: text::header_key(first)?,
        otherwise: second.map(text::header_key).transpose()?,
    })
}

fn without_query(argument: &str, notes: &mut Notes) -> Result<Operator, Refused> {
    let (first, second) = alternatives(argument);
    let is = |name: &str, wanted: &str| name.eq_ignore_ascii_case(wanted);
    Ok(match (first, second) {
        (path, None) if is(path, ":path") => Operator::Path {
            query: false,
            which: WhichPath::Now,
        },
        (path, None | Some(_)) if is(path, "x-envoy-original-path") => Operator::Path {
            query: false,
            which: WhichPath::OriginalOrNow,
        },
        _ => {
            notes.count("%REQ_WITHOUT_QUERY%", "other headers keep their query");
            request(argument)?
        }
    })
}

fn response(argument: &str) -> Result<Operator, Refused> {
    if argument.eq_ignore_ascii_case(":status") {
        return Ok(Operator::ResponseCode);
    }
    let (key, otherwise) = response_keys(argument)?;
    Ok(Operator::Response { key, otherwise })
}

fn response_keys(argument: &str) -> Result<(http::HeaderName, Option<http::HeaderName>), Refused> {
    let (first, second) = alternatives(argument);
    let otherwise = second.map(plain::header_name).transpose()?;
    Ok((plain::header_name(first)?, otherwise))
}

fn path(argument: &str) -> Result<Operator, Refused> {
    let (query, which) = argument.split_once(':').unwrap_or((argument, ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        _ => return Err(Refused::new(format!("{query:?} is neither WQ nor NQ"))),
    };
    let which = match which {
        "" | "ORIG_OR_PATH" => WhichPath::OriginalOrNow,
        "ORIG" => WhichPath::Original,
        "PATH" => WhichPath::Now,
        _ => return Err(Refused::new(format!("{which:?} is none of its paths"))),
    };
    Ok(Operator::Path { query, which })
}

fn filter_state(argument: &str) -> Result<Operator, Refused> {
    let mut parts = argument.splitn(3, ':');
    let key = parts.next().unwrap_or("");
    if key.is_empty() {
        return Err(Refused::new("needs a key"));
    }
    let field = match (parts.next(), parts.next()) {
        (None | Some("PLAIN" | "TYPED"), None) => None,
        (Some("FIELD"), Some(field)) if !field.is_empty() => Some(field.into()),
        _ => {
            return Err(Refused::new(
                "is KEY, KEY:PLAIN, KEY:TYPED or KEY:FIELD:NAME",
            ));
        }
    };
    Ok(Operator::FilterState {
        key: key.into(),
        field,
    })
}

fn keys(argument: &str) -> Result<Vec<Box<str>>, Refused> {
    match argument {
        "" => Err(Refused::new("needs the name of a filter")),
        keys => Ok(keys.split(':').map(Into::into).collect()),
    }
}

fn metadata(argument: &str, notes: &mut Notes) -> Result<Operator, Refused> {
    let (kind, rest) = argument.split_once(':').unwrap_or((argument, ""));
    Ok(match kind {
        "DYNAMIC" => Operator::DynamicMetadata { path: keys(rest)? },
        "CLUSTER" => Operator::ClusterMetadata { path: keys(rest)? },
        "UPSTREAM_HOST" => Operator::UpstreamMetadata { path: keys(rest)? },
        "ROUTE" => valueless("ROUTE_METADATA", notes),
        "LISTENER" | "LISTENER_FILTER_CHAIN" => valueless("LISTENER_METADATA", notes),
        "VIRTUAL_HOST" => valueless("ROUTE_METADATA", notes),
        _ => return Err(Refused::new(format!("{kind:?} has no metadata"))),
    })
}
