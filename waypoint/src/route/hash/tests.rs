//! Hashes: fixed values of XXH64, how several policies combine, and cookies that are made.

use http::{HeaderMap, HeaderName, Method};

use super::*;

fn hash(policies: &[HashPolicy], path: &str, lines: &[(&'static str, &str)]) -> Hash {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    let head = Head {
        method: &Method::GET,
        scheme: "http",
        authority: "a",
        path,
        headers: &headers,
    };
    let client = "10.0.0.1:4000".parse().unwrap();
    compute(policies, &head, client, "10.0.0.2:80".parse().unwrap())
}

fn policy(of: HashOf) -> HashPolicy {
    HashPolicy {
        of,
        terminal: false,
    }
}

fn header(name: &'static str) -> HashPolicy {
    policy(HashOf::Header(
        HeaderKey::Name(HeaderName::from_static(name)),
        None,
    ))
}

fn cookie(ttl: Option<u64>) -> HashPolicy {
    policy(HashOf::Cookie {
        name: "user".into(),
        ttl: ttl.map(Duration::from_secs),
        path: "/p".into(),
        attributes: vec![
            ("SameSite".into(), "Strict".into()),
            ("Secure".into(), "".into()),
        ],
    })
}

#[test]
fn values_are_hashed_by_xxh64() {
    // Published values of XXH64 with seed 0.
    assert_eq!(of(b""), 0xef46_db37_51d8_e999);
    assert_eq!(of(b"a"), 0xd24e_c4f1_a98c_6e5b);
    assert_eq!(of(b"abc"), 0x44bc_2cf5_ad77_0999);
    let address = policy(HashOf::SourceIp);
    let query = policy(HashOf::Query("q".into()));
    assert_eq!(
        hash(&[header("x-a")], "/", &[("x-a", "abc")]).value,
        Some(of(b"abc"))
    );
    assert_eq!(hash(&[address], "/", &[]).value, Some(of(b"10.0.0.1")));
    assert_eq!(hash(&[query], "/?q=abc&q=d", &[]).value, Some(of(b"abc")));
    assert_eq!(hash(&[header("x-a")], "/", &[]), Hash::default());
}

#[test]
fn several_values_in_any_order_are_the_same() {
    let one = hash(&[header("x-a")], "/", &[("x-a", "1"), ("x-a", "2")]);
    let other = hash(&[header("x-a")], "/", &[("x-a", "2"), ("x-a", "1")]);
    assert_eq!(one, other);
    assert_eq!(one.value, Some(xxh64(b"2", of(b"1"))));
}

#[test]
fn a_header_can_be_changed_before_it_is_hashed() {
    let change = (Box::new(Regex::new("^(.).*$").unwrap()), r"\1".into());
    let first = policy(HashOf::Header(
        HeaderKey::Name(HeaderName::from_static("x-a")),
        Some(change),
    ));
    assert_eq!(hash(&[first], "/", &[("x-a", "abc")]).value, Some(of(b"a")));
}

#[test]
fn policies_combine_until_a_terminal_one_has_a_value() {
    let both = [header("x-a"), header("x-b")];
    let lines = [("x-a", "a"), ("x-b", "b")];
    assert_eq!(
        hash(&both, "/", &lines).value,
        Some(of(b"a").rotate_left(1) ^ of(b"b"))
    );
    let twice = [header("x-a"), header("x-a")];
    assert_ne!(hash(&twice, "/", &lines).value, Some(0));
    let mut terminal = both;
    terminal[0].terminal = true;
    assert_eq!(hash(&terminal, "/", &lines).value, Some(of(b"a")));
    assert_eq!(hash(&terminal, "/", &lines[1..]).value, Some(of(b"b")));
}

#[test]
fn a_missing_cookie_is_made_if_it_has_a_lifetime() {
    let there = hash(&[cookie(Some(60))], "/", &[("cookie", "user=jason")]);
    assert_eq!((there.value, there.cookies.len()), (Some(of(b"jason")), 0));
    assert_eq!(hash(&[cookie(None)], "/", &[]), Hash::default());
    let made = hash(&[cookie(Some(60))], "/", &[]);
    let value = format!("{:x}", of(b"10.0.0.1:400010.0.0.2:80"));
    assert_eq!(made.value, Some(of(value.as_bytes())));
    let line = format!("user=\"{value}\"; Max-Age=60; Path=/p; SameSite=Strict; Secure; HttpOnly");
    assert_eq!(made.cookies, [line.as_str()]);
    let session = hash(&[cookie(Some(0))], "/", &[]);
    assert!(!session.cookies[0].to_str().unwrap().contains("Max-Age"));
}
