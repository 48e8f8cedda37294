//! What services are told, and what becomes of what they say.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as auth;
use envoy_types::pb::google::rpc;
use http::{HeaderMap, Response};
use prost::Message as _;

use super::*;
use crate::http::testing::downstream;
use crate::model::authz::HttpService;
use crate::model::text::Fraction;

fn filter(service: Service) -> ExtAuthz {
    ExtAuthz {
        service,
        cluster: "authz".into(),
        authority: "authz.local".into(),
        timeout: std::time::Duration::from_secs(1),
        fail_open: false,
        fail_open_header: false,
        status_on_error: StatusCode::FORBIDDEN,
        body: None,
        clear_route_cache: false,
        enabled: Fraction::ALWAYS,
        enabled_metadata: None,
        allowed: None,
        disallowed: Vec::new(),
        metadata_of: Vec::new(),
        tls_session: false,
    }
}

fn http_service() -> HttpService {
    HttpService {
        path_prefix: "/check".into(),
        upstream: vec![TextMatch::exact("x-user")],
        upstream_append: vec![TextMatch::exact("x-more")],
        client: vec![TextMatch::exact("x-why")],
        client_on_success: vec![TextMatch::exact("set-cookie")],
        ..HttpService::default()
    }
}

fn asked(filter: &ExtAuthz, body: Option<(&[u8], bool)>) -> Request<Bytes> {
    let headers: HeaderMap = [
        ("host", "a"),
        ("authorization", "me"),
        ("cookie", "c"),
        ("x-a", "1"),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
    .collect();
    let head = Head {
        method: &Method::POST,
        scheme: "http",
        authority: "a:80",
        path: "/b?c",
        headers: &headers,
    };
    let route = AuthzOverride {
        context: vec![("of".into(), "route".into())],
        body: None,
    };
    let question = Question {
        head: &head,
        protocol: "HTTP/1.1",
        downstream: &downstream(),
        client: "10.0.0.1:5".parse().unwrap(),
        metadata: &Metadata::default(),
        body,
        route: Some(&route),
        id: 7,
        time: std::time::Duration::from_secs(3),
    };
    request(filter, &question).unwrap()
}

fn names(request: &Request<Bytes>) -> Vec<&str> {
    let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_service_of_http_hears_of_little_unasked() {
    let mut filter = filter(Service::Http(Box::new(http_service())));
    let request = asked(&filter, None);
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri(), "/check/b?c");
    assert_eq!(request.headers()["host"], "a:80");
    assert_eq!(names(&request), ["authorization", "content-length", "host"]);
    filter.allowed = Some(vec![TextMatch::exact("cookie"), TextMatch::prefix("x-")]);
    filter.disallowed = vec![TextMatch::exact("cookie")];
    let request = asked(&filter, Some((b"body", true)));
    assert_eq!(request.headers()["x-envoy-auth-partial-body"], "true");
    assert_eq!(request.headers()["content-length"], "4");
    assert_eq!(request.body(), "body");
    assert!(!request.headers().contains_key("cookie") && request.headers().contains_key("x-a"));
}

fn check(request: &Request<Bytes>) -> auth::AttributeContext {
    let message = auth::CheckRequest::decode(&request.body()[5..]).unwrap();
    message.attributes.unwrap()
}

#[test]
fn a_service_of_grpc_hears_of_everything_but_what_is_kept_from_it() {
    let mut filter = filter(Service::Grpc(Vec::new()));
    let request = asked(&filter, Some((b"body", false)));
    assert_eq!(
        request.uri().path(),
        "/envoy.service.auth.v3.Authorization/Check"
    );
    assert_eq!(request.headers()["grpc-timeout"], "1000m");
    let attributes = check(&request);
    assert_eq!(attributes.context_extensions["of"], "route");
    let http = attributes.request.unwrap().http.unwrap();
    assert_eq!(
        (&*http.method, &*http.path, &*http.host),
        ("POST", "/b?c", "a:80")
    );
    assert_eq!((&*http.body, http.size), ("body", 4));
    assert_eq!(http.headers[":path"], "/b?c");
    assert_eq!(
        (&*http.headers["cookie"], &*http.headers["x-a"]),
        ("c", "1")
    );
    filter.allowed = Some(vec![TextMatch::exact("x-a")]);
    let http = check(&asked(&filter, None)).request.unwrap().http.unwrap();
    let told: Vec<_> = http.headers.keys().collect();
    assert_eq!(told, ["x-a"]);
}

fn answered(status: u16, headers: &[(&str, &str)]) -> Verdict {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let (head, ()) = response.body(()).unwrap().into_parts();
    let filter = filter(Service::Http(Box::new(http_service())));
    verdict(&filter, &head, "no".into(), None)
}

#[test]
fn the_length_of_a_services_answer_is_never_passed_on() {
    let all = || vec![TextMatch::prefix("")];
    let service = HttpService {
        upstream: all(),
        upstream_append: all(),
        client_on_success: all(),
        ..http_service()
    };
    let response = Response::builder().header("content-length", "2");
    let (head, ()) = response.header("x-a", "b").body(()).unwrap().into_parts();
    let filter = filter(Service::Http(Box::new(service)));
    let Verdict::Allow(changes) = verdict(&filter, &head, "ok".into(), None) else {
        panic!("was denied");
    };
    let only = [("x-a".parse().unwrap(), "b".parse().unwrap())];
    assert_eq!(
        (&changes.set[..], &changes.append[..]),
        (&only[..], &only[..])
    );
    assert_eq!(changes.answer.len(), 1);
}

#[test]
fn the_status_of_a_service_of_http_decides() {
    let headers = [
        ("x-user", "alice"),
        ("x-more", "b"),
        ("x-why", "w"),
        ("set-cookie", "c"),
        ("x-other", "o"),
        ("content-length", "2"),
        ("location", "/login"),
        ("x-envoy-auth-headers-to-remove", "x-a, host, x-b"),
    ];
    let Verdict::Allow(changes) = answered(200, &headers) else {
        panic!("was denied");
    };
    assert_eq!(
        changes.set,
        [("x-user".parse().unwrap(), "alice".parse().unwrap())]
    );
    assert_eq!(
        changes.append,
        [("x-more".parse().unwrap(), "b".parse().unwrap())]
    );
    assert_eq!(changes.remove, ["x-a", "x-b"]);
    assert_eq!(changes.answer.len(), 1);
    let Verdict::Deny(denial) = answered(302, &headers) else {
        panic!("passed");
    };
    assert_eq!(
        (denial.status, denial.body),
        (StatusCode::FOUND, "no".into())
    );
    let told: Vec<_> = denial
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(told, ["x-why", "location"]);
    for failed in [500, 503] {
        assert_eq!(answered(failed, &headers), Verdict::Failed);
    }
}

fn said(message: &auth::CheckResponse, grpc: Option<u32>) -> Verdict {
    let (head, ()) = Response::new(()).into_parts();
    let encoded = message.encode_to_vec();
    let mut body = vec![0, 0, 0, 0, u8::try_from(encoded.len()).unwrap()];
    body.extend(encoded);
    verdict(&filter(Service::Grpc(Vec::new())), &head, body.into(), grpc)
}

#[test]
fn only_a_whole_answer_of_grpc_lets_a_request_pass() {
    let ok = auth::CheckResponse::default();
    assert!(matches!(said(&ok, Some(0)), Verdict::Allow(_)));
    assert_eq!(said(&ok, Some(14)), Verdict::Failed);
    assert_eq!(said(&ok, None), Verdict::Failed);
    let denied = auth::CheckResponse {
        status: Some(rpc::Status {
            code: 7,
            ..Default::default()
        }),
        ..Default::default()
    };
    assert!(matches!(said(&denied, Some(0)), Verdict::Deny(denial) if denial.status == 403));
    let (head, ()) = Response::new(()).into_parts();
    for broken in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x09x", b"\x01\0\0\0\0"] {
        let filter = filter(Service::Grpc(Vec::new()));
        let verdict = verdict(&filter, &head, Bytes::copy_from_slice(broken), Some(0));
        assert_eq!(verdict, Verdict::Failed);
    }
}

#[test]
fn a_change_that_is_not_served_lets_nobody_pass() {
    let asks = auth::CheckResponse {
        http_response: Some(auth::check_response::HttpResponse::OkResponse(
            auth::OkHttpResponse {
                query_parameters_to_set: vec![core::QueryParameter {
                    key: "a".into(),
                    value: "b".into(),
                }],
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    assert_eq!(said(&asks, Some(0)), Verdict::Failed);
}
