//! Policies: actions, what each condition looks at, requests and connections, and the evaluator
//! against a plain-spoken one that writes the whole truth table down.

use std::sync::Arc;

use http::{HeaderMap, Method};
use mesh::identity::Identity;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::connection::PeerCertificate;
use crate::model::policy::{Condition, MetadataMatch, ValueMatch};
use crate::model::text::{HeaderKey, HeaderMatch, HeaderTest, Pattern, TextMatch};

const PRODUCTPAGE: &str = "spiffe://cluster.local/ns/bookinfo/sa/productpage";

fn downstream() -> Downstream {
    let peer = PeerCertificate {
        identity: PRODUCTPAGE.parse::<Identity>().ok(),
        uris: vec![PRODUCTPAGE.into()],
        dns: vec!["pp.local".into()],
        subject: "CN=pp".into(),
        hash: "".into(),
    };
    let (remote, local) = ("10.1.0.5:4000", "10.96.0.7:9080");
    Downstream {
        peer: Some(Arc::new(peer)),
        server_name: Some("reviews.local".into()),
        secure: true,
        ..Downstream::between(remote.parse().unwrap(), local.parse().unwrap())
    }
}

fn rules(action: Action, policies: &[(&str, Condition, Condition)]) -> Rules {
    let policy = |(name, permission, principal): &(&str, Condition, Condition)| Policy {
        name: (*name).into(),
        permissions: vec![permission.clone()],
        principals: vec![principal.clone()],
    };
    Rules {
        action,
        policies: policies.iter().map(policy).collect(),
    }
}

fn header(key: HeaderKey, text: TextMatch) -> Condition {
    Condition::Header(HeaderMatch {
        key,
        test: HeaderTest::Text(text),
        invert: false,
        missing_as_empty: false,
    })
}

fn method(name: &str) -> Condition {
    header(HeaderKey::Method, TextMatch::exact(name))
}

fn not(condition: Condition) -> Condition {
    Condition::Not(Box::new(condition))
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::default();
    let claims = json!({"iss": "me", "groups": ["a", "b"], "age": 7, "ok": true, "none": null});
    metadata.set("envoy.filters.http.jwt_authn", "payload", claims);
    metadata
}

/// Whether a condition holds of `GET /reviews/7?x`, and of the connection as such.
fn of_both(condition: &Condition) -> (bool, bool) {
    let (headers, downstream, metadata) = (HeaderMap::new(), downstream(), metadata());
    let head = Head {
        method: &Method::GET,
        scheme: "http",
        authority: "reviews:9080",
        path: "/reviews/7?x",
        headers: &headers,
    };
    let subject = |head| Subject {
        head,
        downstream: &downstream,
        client: "192.0.2.1".parse().unwrap(),
        metadata: &metadata,
    };
    let of = |head| condition::holds(condition, &subject(head));
    (of(Some(&head)), of(None))
}

#[test]
fn conditions() {
    let prefix = |text: &str| TextMatch::prefix(text);
    let net = |text: &str| text.parse().unwrap();
    let (yes, no, request_only, connection_only) =
        ((true, true), (false, false), (true, false), (false, true));
    for (condition, expected) in [
        (Condition::Any, yes),
        (Condition::All(vec![]), yes),
        (Condition::AnyOf(vec![]), no),
        (
            Condition::All(vec![Condition::Any, not(Condition::Any)]),
            no,
        ),
        (method("GET"), request_only),
        (method("POST"), no),
        (not(method("POST")), yes),
        (not(method("GET")), connection_only),
        (
            Condition::Path(TextMatch::exact("/reviews/7")),
            request_only,
        ),
        (Condition::Path(TextMatch::exact("/reviews/7?x")), no),
        (not(Condition::Path(prefix("/reviews"))), connection_only),
        (
            header(
                HeaderKey::Authority,
                TextMatch::new(Pattern::Prefix("REVIEWS".into()), true),
            ),
            request_only,
        ),
        (Condition::DestinationIp(net("10.96.0.0/16")), yes),
        (Condition::DestinationIp(net("10.97.0.0/16")), no),
        (Condition::DestinationPort(9080), yes),
        (Condition::DestinationPort(80), no),
        (Condition::DestinationPorts(9000, 9081), yes),
        (Condition::DestinationPorts(9000, 9080), no),
        (
            Condition::ServerName(TextMatch::exact("reviews.local")),
            yes,
        ),
        (Condition::Peer(TextMatch::exact(PRODUCTPAGE)), yes),
        (Condition::Peer(prefix("spiffe://other")), no),
        (Condition::Authenticated(None), yes),
        (
            Condition::Authenticated(Some(TextMatch::exact("pp.local"))),
            yes,
        ),
        (
            Condition::Authenticated(Some(TextMatch::exact("CN=pp"))),
            yes,
        ),
        (
            Condition::Authenticated(Some(TextMatch::exact("nobody"))),
            no,
        ),
        (Condition::SourceIp(net("10.1.0.5/32")), yes),
        (Condition::SourceIp(net("192.0.2.0/24")), no),
        (Condition::RemoteIp(net("192.0.2.0/24")), yes),
    ] {
        assert_eq!(of_both(&condition), expected, "{condition:?}");
    }
}

#[test]
fn nobody_is_not_somebody() {
    let mut stranger = downstream();
    stranger.peer = None;
    let metadata = Metadata::default();
    let subject = Subject {
        head: None,
        downstream: &stranger,
        client: stranger.remote.ip(),
        metadata: &metadata,
    };
    let anybody = Condition::Peer(TextMatch::regex(".*").unwrap());
    assert!(!condition::holds(&anybody, &subject));
    assert!(!condition::holds(&Condition::Authenticated(None), &subject));
    assert!(condition::holds(&not(anybody), &subject));
}

#[test]
fn claims() {
    let claim = |path: &[&str], value, invert| MetadataMatch {
        filter: "envoy.filters.http.jwt_authn".into(),
        path: path.iter().map(|key| (*key).into()).collect(),
        value,
        invert,
    };
    let text = |text: &str| ValueMatch::Text(TextMatch::exact(text));
    let one_of = |value| ValueMatch::OneOf(Box::new(value));
    for (path, value, expected) in [
        (&["payload", "iss"][..], text("me"), true),
        (&["payload", "iss"], text("you"), false),
        (&["payload", "groups"], one_of(text("b")), true),
        (&["payload", "groups"], one_of(text("c")), false),
        (&["payload", "groups"], text("a"), false),
        (&["payload", "iss"], one_of(text("me")), false),
        (
            &["payload", "iss"],
            ValueMatch::Any(vec![text("x"), text("me")]),
            true,
        ),
        (&["payload", "age"], ValueMatch::Number(7.0), true),
        (
            &["payload", "age"],
            ValueMatch::NumberRange(0.0, 7.0),
            false,
        ),
        (&["payload", "ok"], ValueMatch::Bool(true), true),
        (&["payload", "none"], ValueMatch::Null, true),
        (&["payload", "missing"], ValueMatch::Null, false),
        (&["payload", "missing"], ValueMatch::Present(true), false),
        (&["payload", "missing"], ValueMatch::Present(false), true),
        (&["payload", "iss"], ValueMatch::Present(true), true),
        (&[], ValueMatch::Present(true), false),
    ] {
        let metadata = metadata();
        let test = claim(path, value.clone(), false);
        assert_eq!(metadata_matches(&test, &metadata), expected, "{test:?}");
        let opposite = claim(path, value, true);
        assert_eq!(
            metadata_matches(&opposite, &metadata),
            !expected,
            "{opposite:?}"
        );
    }
}

fn decided(filter: &Rbac) -> (bool, Option<String>, Option<String>, Metadata) {
    let (headers, downstream, metadata) = (HeaderMap::new(), downstream(), metadata());
    let head = Head {
        method: &Method::GET,
        scheme: "http",
        authority: "reviews",
        path: "/",
        headers: &headers,
    };
    let subject = Subject {
        head: Some(&head),
        downstream: &downstream,
        client: downstream.remote.ip(),
        metadata: &metadata,
    };
    let verdict = decide(filter, &subject);
    let mut notes = Metadata::default();
    if let Some(shadow) = verdict.shadow {
        shadow.note(FILTER, &mut notes);
    }
    let details = verdict.decision.as_ref().err().map(Denied::details);
    let matched = verdict.matched.map(str::to_owned);
    (verdict.decision.is_ok(), matched, details, notes)
}

#[test]
fn what_a_match_means() {
    let named = "ns[bookinfo]-policy[get only]-rule[0]";
    let matches = &[
        ("other", not(Condition::Any), Condition::Any),
        (named, method("GET"), Condition::Any),
    ][..];
    let misses = &[("other", method("POST"), Condition::Any)][..];
    let denied = "rbac_access_denied_matched_policy[ns[bookinfo]-policy[get_only]-rule[0]]";
    let nobody = "rbac_access_denied_matched_policy[none]";
    for (action, policies, passes, details) in [
        (Action::Allow, matches, true, None),
        (Action::Allow, misses, false, Some(nobody)),
        (Action::Allow, &[], false, Some(nobody)),
        (Action::Deny, matches, false, Some(denied)),
        (Action::Deny, misses, true, None),
        (Action::Deny, &[], true, None),
        (Action::Log, matches, true, None),
        (Action::Log, misses, true, None),
    ] {
        let filter = Rbac {
            rules: Some(rules(action, policies)),
            ..Rbac::default()
        };
        let (passed, matched, said, _) = decided(&filter);
        assert_eq!((passed, said.as_deref()), (passes, details), "{action:?}");
        assert_eq!(matched.is_some(), policies.len() == 2);
    }
    assert!(
        decided(&Rbac::default()).0,
        "a filter without rules decides nothing"
    );
    assert!(unguarded(0).is_some() && unguarded(1).is_none());
}

#[test]
fn a_trial_is_written_down_and_denies_nobody() {
    let filter = Rbac {
        rules: None,
        shadow: Some(rules(
            Action::Deny,
            &[("p", Condition::Any, Condition::Any)],
        )),
        shadow_prefix: "istio_dry_run_deny_".into(),
    };
    let (passed, _, _, notes) = decided(&filter);
    assert!(passed);
    let note = |key: &str| notes.get(FILTER, &[key]).cloned();
    assert_eq!(
        note("istio_dry_run_deny_shadow_engine_result"),
        Some("denied".into())
    );
    assert_eq!(
        note("istio_dry_run_deny_shadow_effective_policy_id"),
        Some("p".into())
    );
}

/// Conditions over four facts, of which the request has the first two: GET and port 9080.
fn arbitrary() -> impl Strategy<Value = Condition> {
    let facts = [
        method("GET"),
        Condition::DestinationPort(9080),
        method("POST"),
        Condition::DestinationPort(1),
    ];
    proptest::sample::select(facts.to_vec()).prop_recursive(4, 24, 4, |inner| {
        let several = || proptest::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            several().prop_map(Condition::All),
            several().prop_map(Condition::AnyOf),
            inner.clone().prop_map(|one| Condition::Not(Box::new(one))),
        ]
    })
}

fn plainly(condition: &Condition) -> bool {
    match condition {
        Condition::All(all) => !all.iter().any(|one| !plainly(one)),
        Condition::AnyOf(any) => any.iter().filter(|one| plainly(one)).count() > 0,
        Condition::Not(one) => !plainly(one),
        Condition::DestinationPort(port) => *port == 9080,
        Condition::Header(test) => {
            matches!(&test.test, HeaderTest::Text(text) if text.matches("GET"))
        }
        other => unreachable!("{other:?} isn't generated"),
    }
}

proptest! {
    #[test]
    fn any_tree_of_policies_decides_as_the_plain_one(
        policies in proptest::collection::vec((arbitrary(), arbitrary()), 0..5),
        action in proptest::sample::select(vec![Action::Allow, Action::Deny, Action::Log]),
    ) {
        let filter = Rbac {
            rules: Some(Rules {
                action,
                policies: policies.iter().enumerate().map(|(at, (permission, principal))| Policy {
                    name: at.to_string().into(),
                    permissions: vec![permission.clone()],
                    principals: vec![principal.clone()],
                }).collect(),
            }),
            ..Rbac::default()
        };
        let first = policies.iter().position(|(one, other)| plainly(one) && plainly(other));
        let (passed, matched, _, _) = decided(&filter);
        prop_assert_eq!(matched, first.map(|at| at.to_string()));
        let expected = match action {
            Action::Allow => first.is_some(),
            Action::Deny => first.is_none(),
            Action::Log => true,
        };
        prop_assert_eq!(passed, expected);
    }
}
