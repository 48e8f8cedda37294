//! Which headers a service hands on when it calls the next one, so that a request keeps its
//! identifier, its trace and its user through the whole application.

use http::HeaderMap;

/// Headers that belong to the request as a whole, not to one hop. Names of the W3C trace context,
/// of B3 and of the tracers that meshes are used with, and what routing by user looks at.
const PROPAGATED: [&str; 21] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "sw8",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
];

/// Headers of one hop only (RFC 9110, 7.6.1): a forwarder drops them.
const ONE_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What of `incoming` goes on to the next service.
pub(crate) fn propagate(incoming: &HeaderMap) -> HeaderMap {
    let mut onward = HeaderMap::new();
    for (name, value) in incoming {
        if PROPAGATED.contains(&name.as_str()) {
            onward.append(name, value.clone());
        }
    }
    onward
}

/// Everything but what belongs to this hop, for a forwarder.
pub(crate) fn forward(incoming: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = incoming
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut onward = HeaderMap::new();
    for (name, value) in incoming {
        let of_this_hop =
            ONE_HOP.contains(&name.as_str()) || named.iter().any(|other| other == name.as_str());
        if !of_this_hop {
            onward.append(name, value.clone());
        }
    }
    onward
}

/// The user who signed in, from the `user` cookie.
pub(crate) fn user(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == "user" && !value.is_empty())
        .map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn a_request_keeps_its_trace_and_its_user_and_nothing_of_the_hop() {
        let onward = propagate(&headers(&[
            ("x-request-id", "abc"),
            ("traceparent", "00-1-2-01"),
            ("b3", "1-2-1"),
            ("end-user", "jason"),
            ("cookie", "user=jason"),
            ("host", "productpage:9080"),
            ("content-length", "3"),
        ]));
        for name in ["x-request-id", "traceparent", "b3", "end-user", "cookie"] {
            assert!(onward.contains_key(name), "{name} was lost");
        }
        assert!(!onward.contains_key("host"));
        assert!(!onward.contains_key("content-length"));
    }

    #[test]
    fn a_forwarder_drops_what_the_connection_header_names() {
        let onward = forward(&headers(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("x-yours", "2"),
        ]));
        assert_eq!(onward.len(), 1);
        assert!(onward.contains_key("x-yours"));
    }

    #[test]
    fn the_user_is_read_from_among_other_cookies() {
        assert_eq!(
            user(&headers(&[("cookie", "a=b; user=jason; c=d")])).as_deref(),
            Some("jason")
        );
        assert_eq!(user(&headers(&[("cookie", "xuser=jason; user=")])), None);
    }
}
