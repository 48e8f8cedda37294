//! A service of gRPC (`envoy.service.auth.v3.Authorization/Check`): it is told of the request and its
//! connection, and says what becomes of it. One message each way, framed by hand: a whole client for
//! one call would be more code than the frame.

use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as auth;
use envoy_types::pb::google::protobuf as google;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use prost::Message as _;
use serde_json::{Map, Value};

use super::{Changes, Denial, Question, Verdict, passable, told};
use crate::connection::Downstream;
use crate::grpc;
use crate::head::Metadata;
use crate::model::authz::ExtAuthz;
use crate::model::route::SetAction;
use crate::proto::structs;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

pub(super) fn request(
    filter: &ExtAuthz,
    metadata: &[(HeaderName, HeaderValue)],
    question: &Question<'_>,
) -> Option<Request<Bytes>> {
    framed(filter, metadata, attributes(filter, question))
}

pub(super) fn request_of(
    filter: &ExtAuthz,
    metadata: &[(HeaderName, HeaderValue)],
    down: &Downstream,
    noted: &Metadata,
) -> Option<Request<Bytes>> {
    framed(
        filter,
        metadata,
        connection(filter, down, down.remote, noted),
    )
}

fn framed(
    filter: &ExtAuthz,
    metadata: &[(HeaderName, HeaderValue)],
    attributes: auth::AttributeContext,
) -> Option<Request<Bytes>> {
    let message = auth::CheckRequest {
        attributes: Some(attributes),
    };
    let mut request = Request::new(grpc::framed(&message.encode_to_vec())?);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(CHECK);
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_str(&filter.authority).ok()?);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let millis = u64::try_from(filter.timeout.as_millis()).unwrap_or(u64::MAX);
    // No more than eight digits (gRPC over HTTP/2).
    if let Ok(timeout) = HeaderValue::try_from(format!("{}m", millis.min(99_999_999))) {
        headers.insert("grpc-timeout", timeout);
    }
    for (name, value) in metadata {
        headers.append(name, value.clone());
    }
    Some(request)
}

/// What is told of a connection.
fn connection(
    filter: &ExtAuthz,
    down: &Downstream,
    client: SocketAddr,
    noted: &Metadata,
) -> auth::AttributeContext {
    let own = down.own.as_ref().map(|own| own.as_str().to_owned());
    let server_name = down.server_name.as_deref().filter(|_| filter.tls_session);
    let noted = filter.metadata_of.iter().filter_map(|name| {
        let noted = noted.of(name)?;
        Some((name.to_string(), structs::structure(noted)))
    });
    auth::AttributeContext {
        source: Some(peer(client, down.principal().unwrap_or_default())),
        destination: Some(peer(down.local, own.as_deref().unwrap_or_default())),
        tls_session: server_name.map(|name| auth::attribute_context::TlsSession {
            sni: name.to_owned(),
        }),
        metadata_context: Some(core::Metadata {
            filter_metadata: noted.collect(),
            ..Default::default()
        }),
        route_metadata_context: Some(core::Metadata::default()),
        ..Default::default()
    }
}

fn attributes(filter: &ExtAuthz, question: &Question<'_>) -> auth::AttributeContext {
    let route = question.route.into_iter().flat_map(|route| &route.context);
    let (down, noted) = (question.downstream, question.metadata);
    auth::AttributeContext {
        request: Some(auth::attribute_context::Request {
            time: Some(google::Timestamp {
                seconds: i64::try_from(question.time.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(question.time.subsec_nanos()).unwrap_or_default(),
            }),
            http: Some(asked(filter, question)),
        }),
        context_extensions: route
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        ..connection(filter, down, question.client, noted)
    }
}

fn asked(filter: &ExtAuthz, question: &Question<'_>) -> auth::attribute_context::HttpRequest {
    let head = question.head;
    let (body, _) = question.body.unwrap_or_default();
    let as_bytes = super::buffer(filter, question.route).is_some_and(|buffer| buffer.as_bytes);
    auth::attribute_context::HttpRequest {
        id: question.id.to_string(),
        method: head.method.to_string(),
        headers: told(filter, question).into_iter().collect(),
        header_map: None,
        path: head.path.to_owned(),
        host: head.authority.to_owned(),
        scheme: head.scheme.to_owned(),
        query: String::new(),
        fragment: String::new(),
        size: i64::try_from(body.len()).unwrap_or(i64::MAX),
        protocol: question.protocol.to_owned(),
        body: match as_bytes {
            true => String::new(),
            false => String::from_utf8_lossy(body).into_owned(),
        },
        raw_body: match as_bytes {
            true => body.to_vec(),
            false => Vec::new(),
        },
    }
}

fn peer(address: SocketAddr, principal: &str) -> auth::attribute_context::Peer {
    use core::socket_address::PortSpecifier;

    auth::attribute_context::Peer {
        address: Some(core::Address {
            address: Some(core::address::Address::SocketAddress(core::SocketAddress {
                address: address.ip().to_string(),
                port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
                ..Default::default()
            })),
        }),
        principal: principal.to_owned(),
        ..Default::default()
    }
}

/// What the message in an answer's body says.
pub(super) fn verdict(body: &[u8]) -> Verdict {
    use auth::check_response::HttpResponse;

    let mut rest = body;
    if rest.len() < 5 || rest.get_u8() != 0 {
        return Verdict::Failed;
    }
    let size = rest.get_u32() as usize;
    let message = rest.get(..size).map(auth::CheckResponse::decode);
    let Some(Ok(auth::CheckResponse {
        status,
        dynamic_metadata,
        http_response,
    })) = message
    else {
        return Verdict::Failed;
    };
    let metadata = dynamic_metadata.map(structs::object).unwrap_or_default();
    // A response without a status is one of gRPC's OK.
    let allowed = status.is_none_or(|status| status.code == 0);
    match (allowed, http_response) {
        (_, Some(HttpResponse::ErrorResponse(_))) => Verdict::Failed,
        (true, Some(HttpResponse::OkResponse(ok))) => match passed(ok, metadata) {
            Some(changes) => Verdict::Allow(Box::new(changes)),
            None => Verdict::Failed,
        },
        (true, _) => Verdict::Allow(Box::new(Changes {
            metadata,
            ..Changes::default()
        })),
        (false, Some(HttpResponse::DeniedResponse(denied))) => {
            let status = denied.status.map_or(0, |status| status.code);
            let status = u16::try_from(status).ok().filter(|status| *status >= 200);
            let headers = headers(denied.headers).into_iter();
            let headers = headers.filter(|(name, ..)| *name != header::CONTENT_LENGTH);
            Verdict::Deny(Box::new(Denial {
                status: status
                    .and_then(|status| StatusCode::from_u16(status).ok())
                    .unwrap_or(StatusCode::FORBIDDEN),
                headers: headers.map(|(name, value, _)| (name, value)).collect(),
                body: denied.body.into(),
                metadata,
            }))
        }
        (false, _) => Verdict::Deny(Box::new(Denial {
            status: StatusCode::FORBIDDEN,
            headers: Vec::new(),
            body: Bytes::new(),
            metadata,
        })),
    }
}

/// None where it asks for something that isn't done: a request that should have been changed doesn't
/// pass as it is.
fn passed(ok: auth::OkHttpResponse, metadata: Map<String, Value>) -> Option<Changes> {
    #[expect(deprecated, reason = "every field is decided about")]
    let auth::OkHttpResponse {
        headers: of_request,
        headers_to_remove,
        dynamic_metadata: _,
        response_headers_to_add,
        query_parameters_to_set,
        query_parameters_to_remove,
    } = ok;
    if !query_parameters_to_set.is_empty() || !query_parameters_to_remove.is_empty() {
        tracing::warn!("an authorisation service changes query parameters, which isn't served");
        return None;
    }
    let mut changes = Changes {
        metadata,
        ..Changes::default()
    };
    for (name, value, how) in headers(of_request) {
        match how {
            (Some(true), _) => changes.append_present.push((name, value)),
            _ => changes.set.push((name, value)),
        }
    }
    let names = headers_to_remove.iter();
    changes.remove = names
        .filter_map(|name| name.parse().ok())
        .filter(|name| *name != header::HOST)
        .collect();
    let answer = headers(response_headers_to_add).into_iter();
    changes.answer = answer
        .map(|(name, value, (append, action))| {
            let action = match append {
                Some(true) => SetAction::Append,
                Some(false) => SetAction::Overwrite,
                None => action,
            };
            (name, value, action)
        })
        .collect();
    Some(changes)
}

/// How a header is set: as the old field says, if it does, and as the newer one does.
type How = (Option<bool>, SetAction);

/// Headers and how they are set. What is no header, or may not be changed so, is left out.
fn headers(options: Vec<core::HeaderValueOption>) -> Vec<(HeaderName, HeaderValue, How)> {
    let one = |option: core::HeaderValueOption| {
        #[expect(deprecated, reason = "services say it so")]
        let append = option.append.map(|append| append.value);
        let action = match option.append_action {
            1 => SetAction::AddIfAbsent,
            2 => SetAction::Overwrite,
            3 => SetAction::OverwriteIfExists,
            _ => SetAction::Append,
        };
        let header = option.header?;
        let name: HeaderName = header.key.parse().ok()?;
        let bytes = match header.raw_value.is_empty() {
            true => header.value.into_bytes(),
            false => header.raw_value,
        };
        passable(&name).then_some(())?;
        let value = HeaderValue::from_bytes(&bytes).ok()?;
        Some((name, value, (append, action)))
    };
    options.into_iter().filter_map(one).collect()
}
