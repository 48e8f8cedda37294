//! Preflights and what is added to answers.

use http::Method;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::model::text::{Fraction, TextMatch};

fn cors() -> Cors {
    Cors {
        origins: vec![
            TextMatch::exact("http://a.com"),
            TextMatch::regex("https://.*\\.b").unwrap(),
        ],
        methods: "GET,POST".into(),
        headers: "x-h".into(),
        expose: "x-e".into(),
        max_age: "60".into(),
        credentials: true,
        private_network: true,
        enabled: Fraction::ALWAYS,
        forward_unmatched: false,
    }
}

fn ask(cors: &Cors, method: &Method, lines: &[(&'static str, &'static str)]) -> Answer {
    let pairs = lines.iter().map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    let head = Head {
        method,
        scheme: "http",
        authority: "a",
        path: "/",
        headers: &pairs.collect(),
    };
    decide(cors, &head, &mut StdRng::seed_from_u64(1))
}

fn preflight_of(cors: &Cors, lines: &[(&'static str, &'static str)]) -> Option<HeaderMap> {
    match ask(cors, &Method::OPTIONS, lines) {
        Answer::Preflight(headers) => Some(headers),
        Answer::Pass | Answer::Decorate(_) => None,
    }
}

const ORIGIN: (&str, &str) = ("origin", "http://a.com");
const ASKS: (&str, &str) = ("access-control-request-method", "PUT");

#[test]
fn a_preflight_is_answered_here() {
    let headers = preflight_of(&cors(), &[ORIGIN, ASKS]).unwrap();
    for (name, value) in [
        ("access-control-allow-origin", "http://a.com"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET,POST"),
        ("access-control-allow-headers", "x-h"),
        ("access-control-expose-headers", "x-e"),
        ("access-control-max-age", "60"),
    ] {
        assert_eq!(headers[name], value);
    }
    assert_eq!(headers.len(), 6);
    let private = ("access-control-request-private-network", "true");
    let headers = preflight_of(&cors(), &[ORIGIN, ASKS, private]).unwrap();
    assert_eq!(headers["access-control-allow-private-network"], "true");
}

#[test]
fn stars_say_back_what_was_asked() {
    let any = Cors {
        methods: "*".into(),
        headers: "*".into(),
        ..cors()
    };
    let asks = ("access-control-request-headers", "x-1,x-2");
    let headers = preflight_of(&any, &[ORIGIN, ASKS, asks]).unwrap();
    assert_eq!(headers["access-control-allow-methods"], "PUT");
    assert_eq!(headers["access-control-allow-headers"], "x-1,x-2");
}

#[test]
fn another_origin_is_named_to_nobody() {
    let stranger = ("origin", "http://c.com");
    let headers = preflight_of(&cors(), &[stranger, ASKS]).unwrap();
    assert!(!headers.contains_key("access-control-allow-origin"));
    assert_eq!(headers["access-control-allow-methods"], "GET,POST");
    let forwards = Cors {
        forward_unmatched: true,
        ..cors()
    };
    assert!(matches!(
        ask(&forwards, &Method::OPTIONS, &[stranger, ASKS]),
        Answer::Pass
    ));
    assert!(matches!(
        ask(&cors(), &Method::GET, &[stranger]),
        Answer::Pass
    ));
}

#[test]
fn what_is_no_preflight_goes_on_and_its_answer_is_decorated() {
    for (method, lines) in [
        (Method::OPTIONS, &[ORIGIN][..]),
        (Method::GET, &[ORIGIN, ASKS]),
        (Method::GET, &[("origin", "https://x.b")]),
    ] {
        let Answer::Decorate(origin) = ask(&cors(), &method, lines) else {
            panic!("{method} {lines:?} isn't decorated");
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            "access-control-allow-origin",
            HeaderValue::from_static("upstream"),
        );
        decorate(&cors(), &origin, &mut headers);
        assert_eq!(headers["access-control-allow-origin"], lines[0].1);
        assert_eq!(headers["access-control-expose-headers"], "x-e");
        assert_eq!(headers["access-control-allow-credentials"], "true");
    }
    assert!(matches!(ask(&cors(), &Method::GET, &[]), Answer::Pass));
    let off = Cors {
        enabled: Fraction::NEVER,
        ..cors()
    };
    assert!(matches!(
        ask(&off, &Method::OPTIONS, &[ORIGIN, ASKS]),
        Answer::Pass
    ));
    let star = Cors {
        origins: vec![TextMatch::exact("*")],
        ..cors()
    };
    assert!(matches!(
        ask(&star, &Method::GET, &[ORIGIN]),
        Answer::Decorate(_)
    ));
}
