//! What expressions come to. Envoy says the same of them: tests/oracle/cases/expressions.yaml.

use super::*;
use crate::intake::expression::parse;

/// `POST /a/b?c=d` with the header `x-user: alice`, answered with 404.
struct Request;

impl Values for Request {
    fn write(&self, operator: &Operator, out: &mut String) -> bool {
        let value = match operator {
            Operator::Request { key, .. } => match key {
                HeaderKey::Method => "POST",
                HeaderKey::Path => "/a/b?c=d",
                HeaderKey::Name(name) if name == "x-user" => "alice",
                _ => return false,
            },
            Operator::Path { .. } => "/a/b",
            Operator::ResponseCode => "404",
            Operator::ResponseFlags => "URX,UF",
            Operator::Duration => "1500",
            Operator::BytesReceived => "5",
            Operator::UpstreamHost => "[::1]:8080",
            Operator::DownstreamCertificate => "",
            _ => return false,
        };
        out.push_str(value);
        true
    }
}

/// Nothing is known of it, and nobody answered.
struct Nobody;

impl Values for Nobody {
    fn write(&self, operator: &Operator, out: &mut String) -> bool {
        let is_code = *operator == Operator::ResponseCode;
        out.push_str(if is_code { "0" } else { "" });
        is_code
    }
}

fn text(source: &str, of: &dyn Values) -> String {
    let expression = parse(source).unwrap_or_else(|problem| panic!("{source}: {problem:?}"));
    let mut out = String::new();
    match write(&expression, of, &mut out) {
        true => out,
        false => "error".to_owned(),
    }
}

#[test]
fn values() {
    for (source, value) in [
        ("response.code >= 400", "true"),
        ("response.code == 404.0", "true"),
        ("response.code in [403, 404]", "true"),
        ("response.code == '404'", "false"),
        ("string(response.code) == '404'", "true"),
        (
            "response.code / 100 == 4 && response.code % 100 == 4",
            "true",
        ),
        ("response.code / 0 == 1", "error"),
        ("9223372036854775807 + 1", "error"),
        ("-response.code", "-404"),
        ("2.5 * 2.0", "5"),
        ("1 + 1.5", "error"),
        ("int('12') + int(1.9)", "13"),
        ("double('0.5')", "0.5"),
        ("request.method + ' ' + request.url_path", "POST /a/b"),
        ("request.path", "/a/b?c=d"),
        ("request.query", "c=d"),
        ("request.method < 'PUT'", "true"),
        ("request.headers['X-User'].startsWith('al')", "true"),
        ("request.headers['x-user'].endsWith('x')", "false"),
        ("request.headers['x-user'].contains('lic')", "true"),
        ("request.headers['x-user'].matches('^a.*e$')", "true"),
        ("size(request.headers['x-user']) + [1, 2].size()", "7"),
        ("'x-user' in request.headers", "true"),
        ("'x-none' in request.headers", "false"),
        ("has(request.headers.none)", "false"),
        ("request.headers['x-none'] == 'a'", "error"),
        ("request.headers['x-none'] == 'a' || true", "true"),
        ("true || request.headers['x-none'] == 'a'", "true"),
        ("request.headers['x-none'] == 'a' || false", "error"),
        ("request.headers['x-none'] == 'a' && false", "false"),
        ("!(request.headers['x-none'] == 'a')", "error"),
        ("request.duration > duration('1.4s')", "true"),
        (
            "request.duration + duration('500ms') == duration('2s')",
            "true",
        ),
        ("request.size > 4 ? 'large' : 'small'", "large"),
        ("1 ? 2 : 3", "error"),
        ("upstream.port", "8080"),
        ("connection.mtls", "true"),
        ("connection.mtls == false", "false"),
        ("response.flags", "32800"),
        ("null == null", "true"),
        ("0x1F == 31 && 3u == 3", "true"),
        ("'a\\n' == \"a\\n\"", "true"),
    ] {
        assert_eq!(text(source, &Request), value, "{source}");
    }
}

#[test]
fn of_nobody_hardly_anything_is_known() {
    for (source, value) in [
        ("response.code >= 0", "error"),
        ("response.code >= 400 || connection.mtls == false", "true"),
        ("has(response.code)", "false"),
        ("request.method == 'GET'", "error"),
    ] {
        assert_eq!(text(source, &Nobody), value, "{source}");
    }
    let passes = |source| holds(&parse(source).unwrap(), &Nobody);
    assert!(passes("1 < 2") && !passes("response.code < 2") && !passes("'true'"));
}
