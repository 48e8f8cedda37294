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
    /// It is a preflight: 200 with these headers, no body, details `cors_response`.
    Preflight(HeaderMap),
}

/// What is done with a request on a route with CORS.
pub fn decide(cors: &Cors, head: &Head<'_>, rng: &mut impl Rng) -> Answer {
    // Several origins are one list, as in Envoy, and no origin that a policy names.
    let text = head.header(&header::ORIGIN).unwrap_or_default();
    let origin = match HeaderValue::from_bytes(text.as_bytes()) {
        Ok(origin) if !origin.is_empty() => origin,
        _ => return Answer::Pass,
    };
    if !cors.enabled.holds(rng) {
        return Answer::Pass;
    }
    // A test that the text "*" passes is for every origin.
    let mut origins = cors.origins.iter();
    let allowed = origins.any(|test| test.matches("*") || test.matches(&text));
    match (head.is_preflight(), allowed) {
        (true, true) => Answer::Preflight(preflight(cors, head, Some(&origin))),
        (true, false) if !cors.forward_unmatched => Answer::Preflight(preflight(cors, head, None)),
        (_, false) => Answer::Pass,
        (false, true) => Answer::Decorate(origin),
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

/// The answer to a preflight. What is said of methods and headers is said to any origin: without
/// the one header that names it, a browser believes none of it.
fn preflight(cors: &Cors, head: &Head<'_>, origin: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(6);
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    if cors.credentials {
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    let mut allow = |name: HeaderName, configured: &str, asked: HeaderName| match configured {
        "*" => {
            let asked = head.headers.get(asked).cloned();
            headers.insert(name, asked.unwrap_or_else(|| HeaderValue::from_static("")));
        }
        configured => put(&mut headers, name, configured),
    };
    allow(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        &cors.methods,
        header::ACCESS_CONTROL_REQUEST_METHOD,
    );
    allow(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        &cors.headers,
        header::ACCESS_CONTROL_REQUEST_HEADERS,
    );
    put(
        &mut headers,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        &cors.expose,
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

#[cfg(test)]
mod tests;
