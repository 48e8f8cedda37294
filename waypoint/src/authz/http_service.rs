//! A service of HTTP: it is sent the request's head, and its status decides. What of its answer's
//! headers goes where is the filter's lists' to say.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header, response};
use serde_json::{Map, Value};

use super::{Changes, Denial, Question, Verdict, any, method, passable, told};
use crate::model::authz::{ExtAuthz, HttpService};
use crate::model::route::SetAction;
use crate::model::text::TextMatch;

/// Names of headers that are to be taken out of the request.
const REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

pub(super) fn request(
    filter: &ExtAuthz,
    service: &HttpService,
    question: &Question<'_>,
) -> Option<Request<Bytes>> {
    let body = question
        .body
        .map_or_else(Bytes::new, |(body, _)| Bytes::copy_from_slice(body));
    let mut request = Request::new(Bytes::new());
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    for (name, value) in told(filter, question) {
        match name.as_str() {
            ":method" => *request.method_mut() = method(&value)?,
            ":path" => *request.uri_mut() = path(&service.path_prefix, &value)?,
            ":authority" => drop(headers.insert(header::HOST, HeaderValue::try_from(value).ok()?)),
            name if name.starts_with(':') => {}
            // It is of the body that is sent along.
            "content-length" => {}
            name => {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                // Bytes that are no text were replaced; what is left is always a value.
                headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
            }
        }
    }
    for (name, value) in &service.add {
        headers.append(name, value.clone());
    }
    *request.headers_mut() = headers;
    *request.body_mut() = body;
    Some(request)
}

fn path(prefix: &str, path: &str) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(format!("{prefix}{path}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

pub(super) fn verdict(service: &HttpService, answer: &response::Parts, body: Bytes) -> Verdict {
    if answer.status.is_server_error() {
        return Verdict::Failed;
    }
    let taken = |wanted: &dyn Fn(&str) -> bool| {
        let headers = answer.headers.iter();
        headers
            .filter(|(name, _)| passable(name) && wanted(name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Vec<_>>()
    };
    let noted = taken(&|name| any(&service.metadata, name)).into_iter();
    let metadata: Map<String, Value> = noted
        .map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), Value::String(text))
        })
        .collect();
    if answer.status != StatusCode::OK {
        // A list says which; these come along with any list.
        let always = ["www-authenticate", "location"];
        let headers = taken(&|name| {
            name != "content-length"
                && (service.client.is_empty()
                    || any(&service.client, name)
                    || always.contains(&name))
        });
        return Verdict::Deny(Box::new(Denial {
            status: answer.status,
            headers,
            body,
            metadata,
        }));
    }
    // A length is of the service's own body, whatever a list says.
    let passed = |list: &[TextMatch]| taken(&|name| name != "content-length" && any(list, name));
    let to_client = passed(&service.client_on_success).into_iter();
    Verdict::Allow(Box::new(Changes {
        set: passed(&service.upstream),
        append: passed(&service.upstream_append),
        remove: removed(&answer.headers),
        answer: to_client
            .map(|(name, value)| (name, value, SetAction::Append))
            .collect(),
        append_present: Vec::new(),
        metadata,
    }))
}

fn removed(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(REMOVE).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let names = lines.flat_map(|line| line.split(','));
    names
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != header::HOST)
        .collect()
}
