//! Header changes as Envoy 1.40 makes them: the first table is its own answer.

use super::*;
use crate::model::route::{RouteAction, RouteMatch};

/// Knows `REQ` of nothing and one other operator.
struct Known;

impl Values for Known {
    fn write(&self, operator: &Operator, out: &mut String) -> bool {
        match operator {
            Operator::Protocol => out.push_str("HTTP/1.1"),
            Operator::Request {
                key: HeaderKey::Path,
                ..
            } => out.push_str("/path"),
            _ => return false,
        }
        true
    }
}

fn value(operator: Operator, limit: Option<usize>) -> Part {
    Part::Value { operator, limit }
}

fn text(text: &str) -> Part {
    Part::Literal(text.into())
}

fn request(name: &'static str, otherwise: Option<&'static str>) -> Operator {
    let key = |name| HeaderKey::Name(HeaderName::from_static(name));
    Operator::Request {
        key: key(name),
        otherwise: otherwise.map(key),
    }
}

fn set(name: &'static str, parts: Vec<Part>, action: SetAction) -> HeaderSet {
    HeaderSet {
        name: HeaderName::from_static(name),
        value: Format { parts },
        action,
        keep_empty: false,
    }
}

fn changes(remove: &[&'static str], set: Vec<HeaderSet>) -> HeaderChanges {
    HeaderChanges {
        request_remove: remove
            .iter()
            .map(|name| HeaderName::from_static(name))
            .collect(),
        request_set: set,
        ..HeaderChanges::default()
    }
}

fn route(headers: HeaderChanges) -> Route {
    Route {
        name: "".into(),
        matches: RouteMatch::default(),
        action: RouteAction::Direct {
            status: http::StatusCode::OK,
            body: bytes::Bytes::new(),
        },
        headers: headers.into(),
        filters: Default::default(),
        operation: None,
        tracing: None,
    }
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_is_set_on_a_route_and_its_host() {
    use SetAction::{AddIfAbsent, Append, Overwrite, OverwriteIfExists};
    let keep = HeaderSet {
        keep_empty: true,
        ..set("x-3", vec![], Append)
    };
    let of_route = changes(
        &["x-1"],
        vec![
            set("x-1", vec![text("a")], Append),
            set("x-1", vec![text("b")], Append),
            set("x-2", vec![value(request("x-none", None), None)], Append),
            keep,
            set("x-4", vec![], Append),
            set("x-5", vec![text("n")], AddIfAbsent),
            set("x-5", vec![text("m")], AddIfAbsent),
            set("x-6", vec![text("n")], OverwriteIfExists),
            set("x-7", vec![text("a")], Overwrite),
            set("x-7", vec![text("b")], Overwrite),
            set(
                "x-8",
                vec![
                    text("100% "),
                    value(request("x-in", None), Some(2)),
                    text("."),
                ],
                Append,
            ),
            set(
                "x-9",
                vec![value(request("x-none", Some("x-in")), None)],
                Append,
            ),
            set(
                "x-10",
                vec![text("["), value(request("x-none", None), None), text("]")],
                Append,
            ),
            set("x-11", vec![value(Operator::Protocol, None)], Append),
            set("x-in", vec![text("late")], Overwrite),
        ],
    );
    let of_host = changes(
        &[],
        vec![
            set("x-1", vec![text("host")], Append),
            set("x-7", vec![text("host")], Overwrite),
        ],
    );
    let (table, route) = (RouteTable::default(), route(of_route));
    let host = VirtualHost {
        headers: of_host.into(),
        ..VirtualHost::default()
    };
    let layers = |table| Layers {
        table,
        host: &host,
        route: &route,
        weighted: None,
    };
    let mut headers = HeaderMap::new();
    headers.append("x-in", "hello".parse().unwrap());
    headers.append("x-in", "again".parse().unwrap());
    headers.append("x-1", "old".parse().unwrap());
    let before = headers.clone();
    layers(&table).request(&mut headers, &Known);
    for (name, expected) in [
        ("x-1", &["a", "b", "host"][..]),
        ("x-2", &[]),
        ("x-3", &[""]),
        ("x-4", &[]),
        ("x-5", &["n", "m"]),
        ("x-6", &[]),
        ("x-7", &["host"]),
        ("x-8", &["100% he."]),
        ("x-9", &["hello"]),
        ("x-10", &["[]"]),
        ("x-11", &["HTTP/1.1"]),
        ("x-in", &["late"]),
    ] {
        assert_eq!(all(&headers, name), expected, "{name}");
    }
    let specific = RouteTable {
        most_specific_wins: true,
        ..RouteTable::default()
    };
    let mut headers = before;
    layers(&specific).request(&mut headers, &Known);
    assert_eq!(all(&headers, "x-7"), ["b"]);
    assert_eq!(
        all(&headers, "x-1"),
        ["a", "b"],
        "the route removes what the host set"
    );
}

#[test]
fn an_answer_can_say_something_of_its_request() {
    let mut of_route = route(HeaderChanges::default());
    let path = Operator::Request {
        key: HeaderKey::Path,
        otherwise: None,
    };
    let asks = set("x-path", vec![value(path, None)], SetAction::Append);
    let (table, host) = (RouteTable::default(), VirtualHost::default());
    let mut headers = HeaderMap::new();
    headers.insert("server", "upstream".parse().unwrap());
    of_route.headers.response_remove = vec![HeaderName::from_static("server")];
    let was = set(
        "x-was",
        vec![value(request("x-in", None), None)],
        SetAction::Append,
    );
    of_route.headers.response_set = vec![asks, was];
    let layers = Layers {
        table: &table,
        host: &host,
        route: &of_route,
        weighted: None,
    };
    let wanted: Vec<_> = layers.response_wants().collect();
    assert_eq!(wanted, ["x-in"]);
    layers.response(&mut headers, &Known);
    assert_eq!(all(&headers, "x-path"), ["/path"]);
    assert!(!headers.contains_key("server"));
}

#[test]
fn a_limit_cuts_between_characters() {
    let format = Format {
        parts: vec![text("é"), value(request("x-in", None), Some(2))],
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-in", HeaderValue::from_bytes("aé".as_bytes()).unwrap());
    let near = Near {
        headers: &headers,
        side: Side::Request,
        values: &Known,
    };
    let mut out = String::new();
    render(&format, &near, "-", &mut out);
    assert_eq!(out, "éa");
    let missing = Format {
        parts: vec![value(Operator::Duration, None)],
    };
    render(&missing, &near, "-", &mut out);
    assert_eq!(out, "éa-");
}
