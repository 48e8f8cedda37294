//! Istio's authorisation semantics, one table or story each.

mod malformed;
mod rules;

use super::*;
use crate::identity::TrustDomain;

fn identity(text: &str) -> Option<Identity> {
    Some(format!("spiffe://{text}").parse().unwrap())
}

/// A connection from sleep to 10.0.0.9:8080.
fn sleep() -> Inbound {
    Inbound {
        source: Source {
            ip: "10.0.0.1".parse().unwrap(),
            identity: identity("cluster.local/ns/default/sa/sleep"),
        },
        destination: "10.0.0.9:8080".parse().unwrap(),
    }
}

fn plaintext() -> Inbound {
    let mut connection = sleep();
    connection.source.identity = None;
    connection
}

fn from(ip: &str) -> Inbound {
    let mut connection = sleep();
    connection.source.ip = ip.parse().unwrap();
    connection
}

fn to(address: &str) -> Inbound {
    let mut connection = sleep();
    connection.destination = address.parse().unwrap();
    connection
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn suffix(text: &str) -> StringMatch {
    StringMatch::Suffix(text.into())
}

fn account(namespace: &str, name: &str) -> ServiceAccount {
    ServiceAccount {
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn one(set: impl FnOnce(&mut Match)) -> Match {
    let mut m = Match::default();
    set(&mut m);
    m
}

fn rule(matches: impl Into<Vec<Match>>) -> Rule {
    let matches = matches.into();
    Rule {
        clauses: vec![Clause { matches }],
    }
}

fn policy(name: &str, action: Action, rules: impl Into<Vec<Rule>>) -> Authorization {
    Authorization {
        name: name.parse().unwrap(),
        scope: Scope::Namespace,
        action,
        rules: rules.into(),
        dry_run: false,
    }
}

fn any_identity() -> Rule {
    rule([one(|m| m.principals = vec![StringMatch::Presence])])
}

/// A rule that holds for sleep's connection.
fn for_sleep() -> Rule {
    rule([one(|m| m.namespaces = vec![exact("default")])])
}

/// A rule that doesn't.
fn for_others() -> Rule {
    rule([one(|m| m.namespaces = vec![exact("other")])])
}

fn decide(policies: impl IntoIterator<Item = Authorization>) -> Result<DecidedBy, Reason> {
    decide_over(policies, &[], &sleep())
}

fn decide_over(
    policies: impl IntoIterator<Item = Authorization>,
    selected: &[&str],
    connection: &Inbound,
) -> Result<DecidedBy, Reason> {
    let mut store = Policies::default();
    for policy in policies {
        store.insert(policy);
    }
    let selected: Vec<PolicyName> = selected.iter().map(|name| name.parse().unwrap()).collect();
    let decision = store.decide("default", &selected, connection);
    decision
        .map(|permit| permit.by().clone())
        .map_err(|denied| denied.reason)
}

fn by(name: &str) -> DecidedBy {
    DecidedBy::Policy(name.parse().unwrap())
}

fn denied_by(name: &str) -> Reason {
    Reason::Policy(name.parse().unwrap())
}

#[test]
fn nothing_in_scope_allows() {
    assert_eq!(decide([]), Ok(DecidedBy::Default));
}

#[test]
fn an_allow_policy_makes_the_rest_denied() {
    let allow = || policy("default/a", Action::Allow, [for_sleep()]);
    let others = || policy("default/o", Action::Allow, [for_others()]);
    assert_eq!(decide([allow()]), Ok(by("default/a")));
    assert_eq!(decide([others()]), Err(Reason::NotAllowed));
    assert_eq!(decide([others(), allow()]), Ok(by("default/a")));
}

#[test]
fn an_allow_policy_without_rules_denies_everything() {
    assert_eq!(
        decide([policy("default/none", Action::Allow, [])]),
        Err(Reason::NotAllowed)
    );
}

#[test]
fn a_deny_policy_without_rules_denies_nothing() {
    assert_eq!(
        decide([policy("default/none", Action::Deny, [])]),
        Ok(DecidedBy::Default)
    );
}

#[test]
fn deny_comes_before_allow() {
    let allow = || policy("default/a", Action::Allow, [for_sleep()]);
    let deny = policy("default/z", Action::Deny, [for_sleep()]);
    assert_eq!(decide([allow(), deny]), Err(denied_by("default/z")));
    let other = policy("default/z", Action::Deny, [for_others()]);
    assert_eq!(decide([allow(), other.clone()]), Ok(by("default/a")));
    assert_eq!(
        decide([other]),
        Ok(DecidedBy::Default),
        "a DENY alone leaves the rest allowed"
    );
}

#[test]
fn a_policy_is_for_its_scope() {
    let deny = |name: &str, scope| Authorization {
        scope,
        ..policy(name, Action::Deny, [any_identity()])
    };
    let global = deny("istio-system/g", Scope::Global);
    assert_eq!(decide([global]), Err(denied_by("istio-system/g")));
    let here = deny("default/n", Scope::Namespace);
    assert_eq!(decide([here]), Err(denied_by("default/n")));
    let elsewhere = deny("other/n", Scope::Namespace);
    assert_eq!(decide([elsewhere]), Ok(DecidedBy::Default));
    let selector = || deny("default/s", Scope::Selector);
    assert_eq!(decide([selector()]), Ok(DecidedBy::Default), "not selected");
    let selected = decide_over([selector()], &["default/s"], &sleep());
    assert_eq!(selected, Err(denied_by("default/s")));
}

/// What istiod makes of `PeerAuthentication` STRICT, with a port left out of it.
#[test]
fn strict_mutual_tls_denies_plaintext() {
    let strict = policy(
        "istio-system/istio_converted_static_strict",
        Action::Deny,
        [rule([one(|m| {
            m.not_principals = vec![StringMatch::Presence]
        })])],
    );
    let strict = Authorization {
        scope: Scope::Global,
        ..strict
    };
    let name = denied_by("istio-system/istio_converted_static_strict");
    assert_eq!(decide_over([strict.clone()], &[], &plaintext()), Err(name));
    assert_eq!(
        decide_over([strict.clone()], &[], &sleep()),
        Ok(DecidedBy::Default)
    );
    let mut but_port = strict;
    but_port.rules[0].clauses.push(Clause {
        matches: vec![one(|m| m.not_destination_ports = vec![8080])],
    });
    assert_eq!(
        decide_over([but_port], &[], &plaintext()),
        Ok(DecidedBy::Default)
    );
}

#[test]
fn a_dry_run_is_reported_and_not_enforced() {
    let mut store = Policies::default();
    let tried = |name: &str, action, rule| Authorization {
        dry_run: true,
        ..policy(name, action, [rule])
    };
    store.insert(tried("default/deny", Action::Deny, for_sleep()));
    store.insert(tried("default/allow", Action::Allow, for_others()));
    let permit = store.decide("default", &[], &sleep()).unwrap();
    assert_eq!(
        permit.by(),
        &DecidedBy::Default,
        "a tried-out ALLOW doesn't deny the rest"
    );
    let report = |name: &str, action, matched| DryRun {
        policy: name.parse().unwrap(),
        action,
        matched,
    };
    let expected = [
        report("default/allow", Action::Allow, false),
        report("default/deny", Action::Deny, true),
    ];
    let mut found = permit.dry_run().to_vec();
    found.sort_by(|a, b| a.policy.cmp(&b.policy));
    assert_eq!(found, expected);
    assert_eq!(store.dry_run_matches(), 1);

    store.insert(policy("default/real", Action::Deny, [for_sleep()]));
    let denied = store.decide("default", &[], &sleep()).unwrap_err();
    assert_eq!(denied.policy().unwrap().as_str(), "default/real");
    assert_eq!(denied.dry_run.len(), 2, "{denied:?}");
}

/// The index must never hide a policy: each way to be found, added and removed.
#[test]
fn the_index_finds_each_policy_and_forgets_it() {
    let rules = [
        (
            "principal",
            rule([one(|m| {
                m.principals = vec![exact("cluster.local/ns/default/sa/sleep")]
            })]),
        ),
        (
            "account",
            rule([one(|m| {
                m.service_accounts = vec![account("default", "sleep")]
            })]),
        ),
        (
            "namespace",
            rule([one(|m| m.namespaces = vec![exact("default")])]),
        ),
        (
            "prefix",
            rule([one(|m| m.principals = vec![prefix("cluster.local/")])]),
        ),
        ("port", rule([one(|m| m.destination_ports = vec![8080])])),
        ("empty", Rule::default()),
    ];
    for (case, rule) in rules {
        let mut store = Policies::default();
        store.insert(policy("default/p", Action::Deny, [for_others(), rule]));
        assert!(store.decide("default", &[], &sleep()).is_err(), "{case}");
        store.remove(&"default/p".parse().unwrap());
        assert!(
            store.decide("default", &[], &sleep()).is_ok(),
            "{case}, removed"
        );
    }
}

#[test]
fn a_policy_that_is_not_here_yet_is_waited_for() {
    let allow = policy("default/a", Action::Allow, [for_sleep()]);
    let decision = decide_over([allow], &["default/late"], &sleep());
    assert_eq!(
        decision,
        Err(Reason::Missing("default/late".parse().unwrap()))
    );
    assert!(Denied::because(decision.unwrap_err()).is_pending());
    let deny = policy("default/d", Action::Deny, [for_sleep()]);
    let decision = decide_over([deny], &["default/late"], &sleep());
    assert_eq!(decision, Err(denied_by("default/d")), "nothing to wait for");
}

#[test]
fn a_policy_that_moves_to_another_scope_leaves_the_first() {
    let mut store = Policies::default();
    let deny = policy("default/p", Action::Deny, [for_sleep()]);
    store.insert(deny.clone());
    assert!(store.decide("default", &[], &sleep()).is_err());
    store.insert(Authorization {
        scope: Scope::Selector,
        ..deny
    });
    assert!(store.decide("default", &[], &sleep()).is_ok());
    assert!(store.remove(&"default/p".parse().unwrap()));
    assert!(!store.remove(&"default/p".parse().unwrap()));
    assert!(store.is_empty());
}

#[test]
fn an_identity_of_another_trust_domain_is_another_principal() {
    let domain = TrustDomain::new("evil").unwrap();
    let mut connection = sleep();
    connection.source.identity = Some(Identity::new(&domain, "default", "sleep").unwrap());
    let only_ours = rule([one(|m| {
        m.principals = vec![exact("cluster.local/ns/default/sa/sleep")]
    })]);
    let allow = policy("default/a", Action::Allow, [only_ours]);
    assert_eq!(
        decide_over([allow], &[], &connection),
        Err(Reason::NotAllowed)
    );
}
