//! Tables of what comes in and what the upstream is told.

use std::sync::Arc;

use http::Request;

use super::*;
use crate::http::testing;
use crate::model::http::RequestId;

fn down(remote: &str) -> Downstream {
    Downstream {
        remote: remote.parse().unwrap(),
        ..testing::downstream()
    }
}

/// The headers after, and who the client is taken for.
fn told(
    headers: &[(&str, &str)],
    rules: Forwarded,
    down: &Downstream,
) -> (HeaderMap, SocketAddr, &'static str) {
    let mut request = Request::get("/").header("host", "a");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let mut asked = Asked::new(parts, false);
    let chain = HttpChain {
        forwarded: rules,
        ..testing::chain(Vec::new())
    };
    let client = apply(&mut asked, &chain, &RouteTable::default(), down);
    (asked.headers, client, asked.scheme)
}

#[test]
fn an_edge_trusts_nobody_and_says_who_connects() {
    let rules = Forwarded {
        use_remote_address: true,
        ..Forwarded::default()
    };
    let sent = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-envoy-max-retries", "9"),
    ];
    let (headers, client, scheme) = told(&sent, rules, &down("9.9.9.9:1"));
    assert_eq!(headers["x-forwarded-for"], "1.1.1.1,9.9.9.9");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-envoy-external-address"], "9.9.9.9");
    assert!(!headers.contains_key("x-envoy-max-retries"));
    assert_eq!((client.to_string().as_str(), scheme), ("9.9.9.9:1", "http"));
}

#[test]
fn an_edge_behind_trusted_proxies_believes_the_last_of_them() {
    let rules = Forwarded {
        use_remote_address: true,
        trusted_hops: 1,
        ..Forwarded::default()
    };
    let sent = [("x-forwarded-for", "8.8.8.8, 1.1.1.1")];
    let (headers, client, _) = told(&sent, rules, &down("9.9.9.9:1"));
    assert_eq!(headers["x-forwarded-for"], "8.8.8.8, 1.1.1.1,9.9.9.9");
    assert_eq!(client.ip().to_string(), "1.1.1.1");
}

#[test]
fn every_line_of_a_header_counts() {
    let rules = Forwarded {
        use_remote_address: true,
        trusted_hops: 1,
        client_cert: ClientCert::AppendForward,
        ..Forwarded::default()
    };
    let mut edge = down("9.9.9.9:1");
    edge.peer = Some(Arc::new(PeerCertificate {
        hash: "ab12".into(),
        ..PeerCertificate::default()
    }));
    // The client makes up a line, and the proxy that it came by adds one of its own.
    let sent = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-client-cert", "Hash=66"),
        ("x-forwarded-client-cert", "Hash=11"),
    ];
    let (headers, client, _) = told(&sent, rules, &edge);
    assert_eq!(client.ip().to_string(), "1.1.1.1");
    for (name, value) in [
        ("x-forwarded-for", "6.6.6.6,1.1.1.1,9.9.9.9"),
        ("x-forwarded-client-cert", "Hash=66,Hash=11,Hash=ab12"),
    ] {
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(lines, [value]);
    }
}

#[test]
fn nobody_outside_has_requests_retried() {
    let sent = [
        "x-envoy-retry-on",
        "x-envoy-retriable-status-codes",
        "x-envoy-retriable-header-names",
    ];
    let (headers, ..) = told(
        &sent.map(|name| (name, "200")),
        Forwarded::default(),
        &down("9.9.9.9:1"),
    );
    for name in sent {
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[test]
fn a_waypoint_believes_the_header_and_leaves_it_alone() {
    let sent = [
        ("x-forwarded-for", "1.1.1.1, [2001:db8::1]:99"),
        ("x-forwarded-proto", "https"),
        ("x-envoy-max-retries", "9"),
    ];
    let (headers, client, scheme) = told(&sent, Forwarded::default(), &down("9.9.9.9:1"));
    assert_eq!(headers["x-forwarded-for"], sent[0].1);
    assert!(!headers.contains_key("x-envoy-max-retries"));
    assert_eq!(
        (client.ip().to_string().as_str(), scheme),
        ("2001:db8::1", "https")
    );
    let (headers, client, _) = told(&[], Forwarded::default(), &down("9.9.9.9:1"));
    assert!(!headers.contains_key("x-forwarded-for"));
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(client.to_string(), "9.9.9.9:1");
}

#[test]
fn a_certificate_is_told_only_where_it_was_verified() {
    let mut peer = down("9.9.9.9:1");
    peer.peer = Some(Arc::new(PeerCertificate {
        uris: vec!["spiffe://td/ns/a/sa/b".into()],
        hash: "ab12".into(),
        subject: "CN=\"x\"".into(),
        ..PeerCertificate::default()
    }));
    peer.own = Some("spiffe://td/ns/w/sa/w".parse().unwrap());
    let sent = [("x-forwarded-client-cert", "URI=spiffe://evil")];
    let details = ClientCertDetails {
        subject: true,
        uri: true,
        ..ClientCertDetails::default()
    };
    let own =
        "By=spiffe://td/ns/w/sa/w;Hash=ab12;Subject=\"CN=\\\"x\\\"\";URI=spiffe://td/ns/a/sa/b";
    let appended = format!("URI=spiffe://evil,{own}");
    let rows = [
        (ClientCert::Sanitize, None, None),
        (ClientCert::ForwardOnly, Some(sent[0].1), None),
        (ClientCert::AppendForward, Some(&*appended), None),
        (ClientCert::SanitizeSet, Some(own), None),
        (
            ClientCert::AlwaysForwardOnly,
            Some(sent[0].1),
            Some(sent[0].1),
        ),
    ];
    for (client_cert, verified, unknown) in rows {
        let rules = Forwarded {
            client_cert,
            client_cert_details: details,
            ..Forwarded::default()
        };
        for (down, expected) in [(&peer, verified), (&down("9.9.9.9:1"), unknown)] {
            let (headers, ..) = told(&sent, rules.clone(), down);
            let value = headers.get("x-forwarded-client-cert");
            let value = value.map(|value| value.to_str().unwrap());
            assert_eq!(value, expected, "{client_cert:?}");
        }
    }
}

#[test]
fn a_request_id_is_made_where_there_is_none() {
    let (headers, ..) = told(&[], Forwarded::default(), &down("9.9.9.9:1"));
    let made = headers["x-request-id"].to_str().unwrap();
    let shape: String = made
        .chars()
        .map(|c| if c == '-' { '-' } else { 'x' })
        .collect();
    assert_eq!(shape, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
    assert_eq!(&made[14..15], "4");
    assert!("89ab".contains(&made[19..20]), "{made}");
    let (headers, ..) = told(
        &[("x-request-id", "mine")],
        Forwarded::default(),
        &down("9.9.9.9:1"),
    );
    assert_eq!(headers["x-request-id"], "mine");
    let mut chain = testing::chain(Vec::new());
    chain.request_id = RequestId {
        generate: false,
        ..chain.request_id
    };
    let mut headers = HeaderMap::new();
    request_id(&mut headers, &chain, true, false);
    assert!(headers.is_empty());
}
