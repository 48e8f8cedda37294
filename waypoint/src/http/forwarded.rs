//! What the upstream is told of the client, and what of the client's own word about it is believed:
//! `x-forwarded-for`, `x-forwarded-proto`, `x-forwarded-client-cert`, `x-request-id`, `via`. As
//! Envoy's `ConnectionManagerUtility::mutateRequestHeaders`.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderValue};
use http::{HeaderMap, HeaderName};

use super::request::Asked;
use crate::connection::{Downstream, PeerCertificate};
use crate::head::joined;
use crate::model::http::{ClientCert, ClientCertDetails, Forwarded, HttpChain};
use crate::model::route::RouteTable;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers of Envoy's own that a client outside of the mesh may not set.
const INTERNAL_ONLY: [HeaderName; 15] = [
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-original-url"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-decorator-operation"),
];

/// Tells the upstream of the client, and returns who the client is: after trusted proxies, where
/// their word is believed.
pub(super) fn apply(
    asked: &mut Asked,
    chain: &HttpChain,
    table: &RouteTable,
    down: &Downstream,
) -> SocketAddr {
    let rules = &chain.forwarded;
    asked.remove_hop_by_hop();
    asked.join_cookies();
    let headers = &mut asked.headers;
    let came = Came::with(headers);
    if came.expect && !chain.proxy_100_continue {
        // It is answered here, once the body is wanted.
        headers.remove(header::EXPECT);
    }
    if came.envoys {
        headers.remove(INTERNAL);
    }
    let edge = rules.use_remote_address;
    let hops = match edge {
        true => rules.trusted_hops.checked_sub(1),
        false => Some(rules.trusted_hops),
    };
    let client = hops
        .filter(|_| came.forwarded_for)
        .and_then(|hops| last(headers, hops));
    if edge && !rules.skip_append {
        append_for(headers, rules, down);
    }
    if !came.proto || (edge && rules.trusted_hops == 0) {
        headers.insert(PROTO, HeaderValue::from_static(scheme(down)));
    }
    let client = client.map_or(down.remote, |ip| SocketAddr::new(ip, 0));
    // Nobody here is known to be a proxy of our own, whose word on retries and limits would count.
    if came.envoys {
        for name in &INTERNAL_ONLY {
            headers.remove(name);
        }
    }
    for name in &table.internal_only {
        headers.remove(name);
    }
    let came = match table.internal_only.is_empty() {
        true => came,
        false => Came::with(headers),
    };
    if edge && let Ok(value) = HeaderValue::try_from(client.ip().to_string()) {
        headers.insert(EXTERNAL_ADDRESS, value);
    }
    // What the client says of the scheme is the request's scheme, once it is believed.
    asked.scheme = match (&rules.scheme, headers.get(PROTO).map(HeaderValue::as_bytes)) {
        (Some(scheme), _) if &**scheme == "https" => "https",
        (Some(_), _) => "http",
        (None, Some(b"https")) => "https",
        (None, Some(b"http")) => "http",
        (None, _) => asked.scheme,
    };
    request_id(headers, chain, edge, came.request_id);
    if let Some(via) = &chain.via
        && let Ok(via) = HeaderValue::from_str(via)
    {
        headers.append(header::VIA, via);
    }
    if came.client_cert || down.peer.is_some() {
        client_cert(headers, rules, down);
    }
    client
}

/// Which of the headers that count here a request came with. To look through the names once costs
/// less than to look for each: most requests have none of them.
#[derive(Debug, Default)]
struct Came {
    client_cert: bool,
    envoys: bool,
    expect: bool,
    forwarded_for: bool,
    proto: bool,
    request_id: bool,
}

impl Came {
    fn with(headers: &HeaderMap) -> Self {
        let mut came = Self::default();
        for name in headers.keys().map(HeaderName::as_str) {
            match name.strip_prefix("x-") {
                None => came.expect |= name == "expect",
                Some("forwarded-client-cert") => came.client_cert = true,
                Some("forwarded-for") => came.forwarded_for = true,
                Some("forwarded-proto") => came.proto = true,
                Some("request-id") => came.request_id = true,
                Some(rest) => came.envoys |= rest.starts_with("envoy-"),
            }
        }
        came
    }
}

fn scheme(down: &Downstream) -> &'static str {
    // A tunnel's own TLS says nothing of what is inside.
    match down.secure && down.authority.is_none() {
        true => "https",
        false => "http",
    }
}

/// The address so many hops from the end of `x-forwarded-for`.
fn last(headers: &HeaderMap, hops: u32) -> Option<IpAddr> {
    let mut lines = headers.get_all(FOR).iter();
    let mut from_end = Vec::new();
    while let Some(line) = lines.next_back() {
        from_end.extend(line.to_str().ok()?.rsplit(','));
        if from_end.len() > hops as usize {
            break;
        }
    }
    let text = from_end.get(hops as usize)?.trim();
    let bare = text.parse::<IpAddr>().ok();
    bare.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

fn append_for(headers: &mut HeaderMap, rules: &Forwarded, down: &Downstream) {
    let own = match rules.append_port {
        true => down.remote.to_string(),
        false => down.remote.ip().to_string(),
    };
    // All lines: a proxy in front may have added its own to those that its client made up.
    let value = match joined(headers, &FOR) {
        None => own,
        Some(before) => format!("{before},{own}"),
    };
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(FOR, value);
    }
}

fn request_id(headers: &mut HeaderMap, chain: &HttpChain, edge: bool, came: bool) {
    let rules = chain.request_id;
    let anew = edge && !rules.keep_external;
    if rules.generate && (anew || !came) {
        headers.insert(REQUEST_ID, uuid());
    }
}

/// A random UUID (version 4), as text.
fn uuid() -> HeaderValue {
    let random: u128 = rand::random();
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut text = [0; 36];
    let mut at = 0;
    for digit in 0..32 {
        if matches!(digit, 8 | 12 | 16 | 20) {
            text[at] = b'-';
            at += 1;
        }
        let nibble = (bits >> (124 - digit * 4)) & 0xf;
        text[at] = b"0123456789abcdef"[nibble as usize];
        at += 1;
    }
    let text = HeaderValue::from_bytes(&text);
    let mut id = text.unwrap_or_else(|_| HeaderValue::from_static(""));
    // No other request has it: HTTP/2's table of headers need not remember it in another's place.
    id.set_sensitive(true);
    id
}

fn client_cert(headers: &mut HeaderMap, rules: &Forwarded, down: &Downstream) {
    match rules.client_cert {
        ClientCert::AlwaysForwardOnly => {}
        // Only a verified client's word about the clients before it is worth something.
        ClientCert::ForwardOnly if down.peer.is_some() => {}
        ClientCert::Sanitize | ClientCert::ForwardOnly => {
            headers.remove(CLIENT_CERT);
        }
        ClientCert::AppendForward | ClientCert::SanitizeSet => {
            let Some(peer) = down.peer.as_deref() else {
                headers.remove(CLIENT_CERT);
                return;
            };
            let own = element(peer, down, rules.client_cert_details);
            let before = match rules.client_cert {
                ClientCert::AppendForward => joined(headers, &CLIENT_CERT),
                _ => None,
            };
            let value = match before {
                None => own,
                Some(before) => format!("{before},{own}"),
            };
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(CLIENT_CERT, value);
            }
        }
    }
}

/// What is said of one client.
fn element(peer: &PeerCertificate, down: &Downstream, details: ClientCertDetails) -> String {
    let mut parts = Vec::new();
    if let Some(own) = &down.own {
        parts.push(format!("By={own}"));
    }
    if !peer.hash.is_empty() {
        parts.push(format!("Hash={}", peer.hash));
    }
    if details.subject {
        let escaped = peer.subject.replace('\\', "\\\\").replace('"', "\\\"");
        parts.push(format!("Subject=\"{escaped}\""));
    }
    if details.uri {
        match peer.uris.as_slice() {
            [] => parts.push("URI=".to_owned()),
            uris => parts.extend(uris.iter().map(|uri| format!("URI={uri}"))),
        }
    }
    if details.dns {
        parts.extend(peer.dns.iter().map(|name| format!("DNS={name}")));
    }
    parts.join(";")
}

#[cfg(test)]
mod tests;
