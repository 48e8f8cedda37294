//! CORS: preflight requests are answered here, answers to other requests say what the origin may
//! see. As Envoy's CORS filter.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use rand::Rng;

use crate::head::Head;
use crate::model::http::Cors;

const PRIVATE_REQUEST: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const PRIVATE_ALLOW: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// What is done with a request.
#[derive(Debug)]
pub enum Answer {
    /// It goes on, and its answer stays as it is.
    Pass,
    /// It goes on, and [`decorate`] is applied to its answer with this origin.
    Decorate(HeaderValue),
    /// It is a preflight: 200 with these headers, no body, details empty.
    Preflight(HeaderMap),
}

/// What is done with a request on a route with CORS.
pub fn decide(cors: &Cors, head: &Head<'_>, rng: &mut impl Rng) -> Answer {
    let Some(origin) = head
        .headers
        .get(header::ORIGIN)
        .filter(|origin| !origin.is_empty())
    else {
        return Answer::Pass;
    };
    if !cors.enabled.holds(rng) {
        return Answer::Pass;
    }
    let text = String::from_utf8_lossy(origin.as_bytes());
    let allowed = cors.origins.iter().any(|test| {
        test.matches(&text)
            || matches!(&test.pattern, crate::model::text::Pattern::Exact(any) if **any == *"*")
    });
    match (head.is_preflight(), allowed) {
        (true, true) => Answer::Preflight(preflight(cors, head, origin)),
        (true, false) if !cors.forward_unmatched => Answer::Preflight(HeaderMap::new()),
        (_, false) => Answer::Pass,
        (false, true) => Answer::Decorate(origin.clone()),
    }
}

/// Adds to an answer what an allowed origin may see.
pub fn decorate(cors: &Cors, origin: &HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if cors.credentials {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    put(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, &cors.expose);
}

fn preflight(cors: &Cors, head: &Head<'_>, origin: &HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if cors.credentials {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    put(
        &mut headers,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        &cors.methods,
    );
    put(
        &mut headers,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        &cors.headers,
    );
    put(&mut headers, header::ACCESS_CONTROL_MAX_AGE, &cors.max_age);
    let asks_private = head
        .headers
        .get(PRIVATE_REQUEST)
        .is_some_and(|value| value == "true");
    if cors.private_network && asks_private {
        headers.insert(PRIVATE_ALLOW, HeaderValue::from_static("true"));
    }
    headers
}

/// Sets a header to a configured text, which may be empty: then it isn't set.
fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let (false, Ok(value)) = (text.is_empty(), HeaderValue::from_str(text)) {
        headers.insert(name, value);
    }
}
