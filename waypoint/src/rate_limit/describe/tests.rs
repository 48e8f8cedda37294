//! Descriptors as they are made, and which buckets they lead to.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::*;
use crate::model::rate_limit::{Descriptors, HostLimits};
use crate::model::text::{HeaderMatch, HeaderTest};
use crate::rate_limit::{Bucket, Buckets};

const HOUR: Duration = Duration::from_secs(3_600);

fn limit(actions: Vec<Action>) -> Limit {
    Limit { stage: 0, actions }
}

fn header(name: &'static str, optional: bool) -> Action {
    Action::Header {
        header: HeaderKey::Name(HeaderName::from_static(name)),
        key: name.into(),
        optional,
    }
}

fn present(name: &'static str) -> HeaderMatch {
    HeaderMatch {
        key: HeaderKey::Name(HeaderName::from_static(name)),
        test: HeaderTest::Present(true),
        invert: false,
        missing_as_empty: false,
    }
}

/// What these actions say of `GET /p?user=a%20b&user=c` with `x-user: ann` from 10.1.2.3, as text.
fn said(actions: Vec<Action>) -> Vec<String> {
    let user = HeaderName::from_static("x-user");
    let headers = HeaderMap::from_iter([
        (user.clone(), HeaderValue::from_static("ann")),
        (user, HeaderValue::from_static("eve")),
    ]);
    let head = Head {
        method: &Method::GET,
        scheme: "http",
        authority: "shop",
        path: "/p?user=a%20b&user=c",
        headers: &headers,
    };
    let about = About {
        head,
        client: "10.1.2.3".parse().unwrap(),
        cluster: Some("reviews"),
    };
    let limits = [limit(actions)];
    let all = descriptors(limits.iter(), about);
    let entries = all.iter().flatten();
    entries
        .map(|(key, value)| format!("{key}={value}"))
        .collect()
}

#[test]
fn each_action_makes_an_entry_or_none_of_them_does() {
    let words = |expected, headers| Action::HeaderMatch {
        key: "k".into(),
        value: "v".into(),
        expected,
        headers,
    };
    let query = |name: &str, optional| Action::Query {
        name: name.into(),
        key: "q".into(),
        optional,
    };
    let pseudo = |header| Action::Header {
        header,
        key: "p".into(),
        optional: false,
    };
    let masked = Action::MaskedRemoteAddress { v4: 16, v6: 64 };
    for (actions, expected) in [
        (vec![header("x-user", false)], &["x-user=ann"][..]),
        (vec![header("x-none", false)], &[]),
        (vec![header("x-none", true)], &[]),
        (
            vec![header("x-none", true), header("x-user", false)],
            &["x-user=ann"],
        ),
        (vec![header("x-user", false), header("x-none", false)], &[]),
        (vec![pseudo(HeaderKey::Path)], &["p=/p?user=a%20b&user=c"]),
        (vec![pseudo(HeaderKey::Method)], &["p=GET"]),
        (vec![query("user", false)], &["q=a b"]),
        (vec![query("none", false)], &[]),
        (vec![Action::RemoteAddress], &["remote_address=10.1.2.3"]),
        (vec![masked], &["masked_remote_address=10.1.0.0/16"]),
        (
            vec![Action::DestinationCluster],
            &["destination_cluster=reviews"],
        ),
        (vec![words(true, vec![present("x-user")])], &["k=v"]),
        (vec![words(true, vec![present("x-none")])], &[]),
        (vec![words(false, vec![present("x-none")])], &["k=v"]),
        (vec![words(false, vec![present("x-user")])], &[]),
    ] {
        assert_eq!(said(actions.clone()), expected, "{actions:?}");
    }
}

fn described(entries: &[(&str, Option<&str>)], most: u32) -> Described {
    let bucket = Bucket::new(most, 1, HOUR).unwrap();
    let open = entries.iter().any(|(_, value)| value.is_none());
    Described {
        entries: entries
            .iter()
            .map(|(key, value)| ((*key).into(), value.map(Into::into)))
            .collect(),
        buckets: match open {
            true => Buckets::each(&bucket, 20),
            false => Buckets::One(bucket),
        },
    }
}

fn limited(buckets: Vec<Described>, common: Option<u32>, always_common: bool) -> RateLimit {
    RateLimit {
        bucket: common.map(|most| Bucket::new(most, 1, HOUR).unwrap()),
        descriptors: Some(Box::new(Descriptors {
            own: Vec::new(),
            stage: 0,
            host: HostLimits::Otherwise,
            buckets,
            always_common,
        })),
        status: StatusCode::TOO_MANY_REQUESTS,
        ..RateLimit::off()
    }
}

/// How many of nine requests with these descriptors of one entry pass.
fn passing(limit: &RateLimit, said: &[(&'static str, &'static str)]) -> usize {
    let said: Vec<Descriptor<'_>> = said
        .iter()
        .map(|(key, value)| vec![(*key, Cow::Borrowed(*value))])
        .collect();
    let tries = 0..9;
    tries
        .filter(|_| take(limit, &said, Duration::from_secs(1)))
        .count()
}

#[test]
fn a_described_request_takes_of_its_own_and_of_the_common_bucket() {
    let two = || vec![described(&[("a", Some("1"))], 2)];
    let always = limited(two(), Some(5), true);
    assert_eq!(passing(&always, &[("a", "1")]), 2);
    assert_eq!(passing(&always, &[("a", "2")]), 3);
    let apart = limited(two(), Some(5), false);
    assert_eq!(passing(&apart, &[("a", "1")]), 2);
    assert_eq!(passing(&apart, &[]), 5);
    let alone = limited(two(), None, true);
    assert_eq!(passing(&alone, &[("a", "1"), ("b", "1")]), 2);
    assert_eq!(passing(&alone, &[("b", "1")]), 9);
}

#[test]
fn who_is_denied_by_the_slowest_takes_nothing_of_the_others() {
    let buckets = vec![
        described(&[("a", Some("1"))], 1),
        described(&[("b", Some("1"))], 3),
    ];
    let limit = limited(buckets, None, true);
    assert_eq!(passing(&limit, &[("b", "1"), ("a", "1")]), 1);
    assert_eq!(passing(&limit, &[("b", "1")]), 2);
}

#[test]
fn a_value_that_is_named_has_other_tokens_than_those_that_are_not() {
    let buckets = vec![
        described(&[("a", None)], 1),
        described(&[("a", Some("vip"))], 4),
    ];
    let limit = limited(buckets, None, true);
    assert_eq!(passing(&limit, &[("a", "x")]), 1);
    assert_eq!(passing(&limit, &[("a", "y")]), 1);
    assert_eq!(passing(&limit, &[("a", "vip")]), 4);
    assert_eq!(passing(&limit, &[("a", "x"), ("a", "z")]), 0);
}
