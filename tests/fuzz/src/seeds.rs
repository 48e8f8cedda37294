//! Inputs to begin with: what istiod really sent, its JSON, and what clients say.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType::TypedConfig;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use hcm::HttpConnectionManager;
use hcm::http_connection_manager::RouteSpecifier::RouteConfig;
use prost::Message as _;
use serde_json::Value;
use waypoint::source::kind::Kind;

use crate::edge::{HTTP2, PROXY_PROTOCOL};

/// The longest input of which changing single bytes is worth while.
const LONGEST: usize = 64 << 10;
/// The first byte of a table of routes.
const ROUTES: u8 = 3;

/// Recorded files of this ending.
fn recorded(ending: &str) -> Vec<(PathBuf, String)> {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../waypoint/tests/fixtures/istiod"
    );
    let entries = fs::read_dir(folder).expect("the recorded scenarios");
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(ending));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a recorded scenario");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Each recorded resource in its own bytes, after the byte that tells its kind.
pub fn messages() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (path, text) in recorded(".pb.json") {
        let dump: Value = serde_json::from_str(&text).expect("JSON");
        let resources = dump.get("resources").unwrap_or(&dump).as_array();
        for resource in resources.unwrap_or_else(|| panic!("{}: no list", path.display())) {
            let field = |name: &str| resource[name].as_str().unwrap_or_default();
            let kind = Kind::ALL.into_iter().zip(0..);
            let kind = kind
                .into_iter()
                .find_map(|(kind, at)| (Kind::of(field("type_url")) == Some(kind)).then_some(at));
            let Some(kind) = kind else {
                continue; // nothing that a waypoint asks for
            };
            let message = STANDARD.decode(field("value")).expect("base64");
            if Kind::ALL[usize::from(kind)] == Kind::Listener {
                seeds.extend(
                    tables(&message)
                        .into_iter()
                        .map(|table| [vec![ROUTES], table].concat()),
                );
            }
            if message.len() <= LONGEST {
                seeds.push([vec![kind], message].concat());
            }
        }
    }
    seeds
}

/// The tables of routes that stand in a listener: most of what people write is there.
fn tables(listener: &[u8]) -> Vec<Vec<u8>> {
    let listener = Listener::decode(listener).expect("a recorded listener");
    let filters = listener
        .filter_chains
        .into_iter()
        .flat_map(|chain| chain.filters);
    let tables = filters.filter_map(|filter| {
        let Some(TypedConfig(config)) = filter.config_type else {
            return None;
        };
        if !config.type_url.ends_with("HttpConnectionManager") {
            return None;
        }
        let manager = HttpConnectionManager::decode(config.value.as_slice()).ok()?;
        match manager.route_specifier {
            Some(RouteConfig(table)) => Some(table.encode_to_vec()),
            _ => None,
        }
    });
    tables.collect()
}

/// Single resources in JSON, and one in YAML.
pub fn documents() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        b"resources:\n- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\n  name: a\n  \
          type: STATIC\n"
            .to_vec(),
    ];
    for (_, text) in recorded("bookinfo.json") {
        let dump: Value = serde_json::from_str(&text).expect("JSON");
        let resources = dump["resources"].as_array().into_iter().flatten();
        let texts = resources.map(|resource| resource.to_string().into_bytes());
        seeds.extend(texts.filter(|text| text.len() <= LONGEST));
    }
    seeds
}

/// One of each small language.
pub fn texts() -> Vec<Vec<u8>> {
    [
        "[%START_TIME%] \"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH):10%\" %RESPONSE_FLAGS%",
        "%CEL(response.code / 2 in [1, -3 + 0x7] ? 'a' + request.headers['x'] : string(size('b') * 9))%",
        "%CEL(!has(request.headers.x) || request.path.matches('^/a+$') && request.duration > duration('1.5s'))%",
        "/{a}/b/{rest=**}",
        "/a//b/../%2e%2e/%2F;x=1?y#z",
        r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256","kid":"a"}]}"#,
        "spiffe://cluster.local/ns/default/sa/bookinfo-productpage",
        "[fd00::1]:9080",
        "reviews.default.svc.cluster.local:9080",
        ":authority",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// What clients say, good and bad.
pub fn streams() -> Vec<Vec<u8>> {
    let plain: [&[u8]; 12] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /here HTTP/1.1\r\nhost: a\r\n\r\nGET /there HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx",
        b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\nbytes",
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nbytes",
        b"GET http://b/ HTTP/1.1\r\nhost: a\r\nx:\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\nhost: a\n\n",
    ];
    let mut seeds: Vec<_> = plain.iter().map(|said| [&[0], *said].concat()).collect();
    let proxied = b"PROXY TCP4 127.0.0.1 127.0.0.2 1 2\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
    seeds.push([&[PROXY_PROTOCOL], &proxied[..]].concat());
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x02\0\x01\0\x02GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    seeds.push([&[PROXY_PROTOCOL], &binary[..]].concat());
    // HEADERS of `GET /` for "a" by HPACK's static table; then CONTINUATION, PING, RST_STREAM and
    // WINDOW_UPDATE as they come.
    let get = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";
    let frames: [&[u8]; 5] = [
        get,
        b"\0\0\x03\x01\x01\0\0\0\x01\x82\x86\x84\0\0\x03\x09\x04\0\0\0\x01\x41\x01a",
        b"\0\0\x08\x06\0\0\0\0\0culvert!",
        b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
        b"\0\0\x06\x01\x04\0\0\0\x01\x83\x86\x84\x41\x01a\0\0\x05\0\x01\0\0\0\x01hello",
    ];
    seeds.extend(frames.iter().map(|said| [&[HTTP2], *said].concat()));
    seeds
}

/// Bodies of gRPC-Web as text, whole, cut and wrong, and of gRPC, after the lengths of their pieces.
pub fn bodies() -> Vec<Vec<u8>> {
    let bodies: [&[u8]; 8] = [
        b"AAAAAAVoZWxsbw==",
        b"AAAAAAVoZWxsbw==AAAAAAJhYg==",
        b"AAAAAAVoZWxsbwAAAAACYWI=",
        b"AAAA*AAA",
        b"AAAAAA",
        b"\0\0\0\0\x05hello",
        b"\0\0\0\0\x02ab\x80\0\0\0\x0fgrpc-status:0\r\n",
        b"\0\xff\xff\xff\xffendless",
    ];
    let cuts: [&[u8]; 3] = [&[0, 0, 0, 0], &[1, 2, 3, 4], &[5, 1, 7, 200]];
    let all = bodies
        .iter()
        .flat_map(|body| cuts.map(|cut| [cut, *body].concat()));
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_seed() {
        assert_eq!(Kind::ALL[usize::from(ROUTES)], Kind::Routes);
        let mut kinds: Vec<_> = messages()
            .iter()
            .map(|seed| Kind::ALL[usize::from(seed[0])])
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut sent = Kind::ALL.to_vec();
        sent.retain(|kind| *kind != Kind::Secret);
        assert_eq!(kinds, sent, "istiod sends a waypoint all but secrets");
    }
}
