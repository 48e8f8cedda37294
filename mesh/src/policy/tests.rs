//! Istio's authorisation semantics, one table or story each.

use super::*;
use crate::identity::TrustDomain;
use crate::proto::security as proto;
use crate::proto::security::string_match::MatchType;

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

/// Each field, positive and negated: which values hold for which connection.
#[test]
fn every_field_and_its_negation() {
    type Set = fn(&mut Match, bool);
    macro_rules! field {
        ($positive:ident, $negative:ident, $($value:expr),+) => {
            (|m: &mut Match, negated: bool| {
                let field = if negated { &mut m.$negative } else { &mut m.$positive };
                *field = vec![$($value),+];
            }) as Set
        };
    }
    macro_rules! blocks {
        ($positive:ident, $negative:ident, $($value:expr),+) => {
            field!($positive, $negative, $($value.parse().unwrap()),+)
        };
    }
    let principal = "cluster.local/ns/default/sa/sleep";
    assert_eq!(identity(principal).unwrap().principal(), principal);
    let table: &[(&str, Set, Inbound, bool)] = &[
        (
            "namespace",
            field!(namespaces, not_namespaces, exact("default")),
            sleep(),
            true,
        ),
        (
            "namespace, other",
            field!(namespaces, not_namespaces, exact("defaul")),
            sleep(),
            false,
        ),
        (
            "namespace, any value",
            field!(namespaces, not_namespaces, exact("x"), exact("default")),
            sleep(),
            true,
        ),
        (
            "namespace prefix",
            field!(namespaces, not_namespaces, prefix("def")),
            sleep(),
            true,
        ),
        (
            "namespace suffix",
            field!(namespaces, not_namespaces, suffix("fault")),
            sleep(),
            true,
        ),
        (
            "namespace presence",
            field!(namespaces, not_namespaces, StringMatch::Presence),
            sleep(),
            true,
        ),
        (
            "namespace of plaintext",
            field!(namespaces, not_namespaces, StringMatch::Presence),
            plaintext(),
            false,
        ),
        (
            "principal",
            field!(
                principals,
                not_principals,
                exact("cluster.local/ns/default/sa/sleep")
            ),
            sleep(),
            true,
        ),
        (
            "principal with scheme",
            field!(
                principals,
                not_principals,
                exact("spiffe://cluster.local/ns/default/sa/sleep")
            ),
            sleep(),
            false,
        ),
        (
            "principal of another domain",
            field!(principals, not_principals, exact("td/ns/default/sa/sleep")),
            sleep(),
            false,
        ),
        (
            "principal prefix",
            field!(
                principals,
                not_principals,
                prefix("cluster.local/ns/default/")
            ),
            sleep(),
            true,
        ),
        (
            "principal prefix, other",
            field!(
                principals,
                not_principals,
                prefix("cluster.local/ns/other/")
            ),
            sleep(),
            false,
        ),
        (
            "principal suffix",
            field!(principals, not_principals, suffix("/sa/sleep")),
            sleep(),
            true,
        ),
        (
            "principal suffix, other",
            field!(principals, not_principals, suffix("/sa/notsleep")),
            sleep(),
            false,
        ),
        (
            "principal presence",
            field!(principals, not_principals, StringMatch::Presence),
            sleep(),
            true,
        ),
        (
            "principal of plaintext",
            field!(principals, not_principals, StringMatch::Presence),
            plaintext(),
            false,
        ),
        (
            "service account",
            field!(
                service_accounts,
                not_service_accounts,
                account("default", "sleep")
            ),
            sleep(),
            true,
        ),
        (
            "service account, other namespace",
            field!(
                service_accounts,
                not_service_accounts,
                account("other", "sleep")
            ),
            sleep(),
            false,
        ),
        (
            "service account, other name",
            field!(
                service_accounts,
                not_service_accounts,
                account("default", "s")
            ),
            sleep(),
            false,
        ),
        (
            "service account of plaintext",
            field!(
                service_accounts,
                not_service_accounts,
                account("default", "sleep")
            ),
            plaintext(),
            false,
        ),
        (
            "source block",
            blocks!(source_ips, not_source_ips, "10.0.0.0/8"),
            from("10.255.0.1"),
            true,
        ),
        (
            "source block, outside",
            blocks!(source_ips, not_source_ips, "10.0.0.0/8"),
            from("11.0.0.1"),
            false,
        ),
        (
            "source, single",
            blocks!(source_ips, not_source_ips, "10.0.0.1/32"),
            from("10.0.0.1"),
            true,
        ),
        (
            "source, single, other",
            blocks!(source_ips, not_source_ips, "10.0.0.1/32"),
            from("10.0.0.2"),
            false,
        ),
        (
            "source, everything IPv4",
            blocks!(source_ips, not_source_ips, "0.0.0.0/0"),
            from("1.2.3.4"),
            true,
        ),
        (
            "source IPv6",
            blocks!(source_ips, not_source_ips, "fd00::/8"),
            from("fd12::1"),
            true,
        ),
        (
            "source IPv6 in an IPv4 block",
            blocks!(source_ips, not_source_ips, "0.0.0.0/0"),
            from("fd12::1"),
            false,
        ),
        (
            "source IPv4 in an IPv6 block",
            blocks!(source_ips, not_source_ips, "::/0"),
            from("10.0.0.1"),
            false,
        ),
        (
            "source, mapped",
            blocks!(source_ips, not_source_ips, "10.0.0.0/8"),
            from("::ffff:10.0.0.1"),
            true,
        ),
        (
            "source of plaintext",
            blocks!(source_ips, not_source_ips, "10.0.0.0/8"),
            plaintext(),
            true,
        ),
        (
            "destination block",
            blocks!(destination_ips, not_destination_ips, "10.0.0.8/30"),
            to("10.0.0.9:1"),
            true,
        ),
        (
            "destination block, outside",
            blocks!(destination_ips, not_destination_ips, "10.0.0.8/30"),
            to("10.0.0.12:1"),
            false,
        ),
        (
            "destination, mapped",
            blocks!(destination_ips, not_destination_ips, "10.0.0.9/32"),
            to("[::ffff:10.0.0.9]:1"),
            true,
        ),
        (
            "destination IPv6",
            blocks!(destination_ips, not_destination_ips, "fd00::9/128"),
            to("[fd00::9]:1"),
            true,
        ),
        (
            "port",
            field!(destination_ports, not_destination_ports, 8080),
            sleep(),
            true,
        ),
        (
            "port, any value",
            field!(destination_ports, not_destination_ports, 80, 8080),
            sleep(),
            true,
        ),
        (
            "port, other",
            field!(destination_ports, not_destination_ports, 80),
            sleep(),
            false,
        ),
    ];
    for (case, set, connection, holds) in table {
        let policy_of = |negated| {
            let policy = policy(
                "default/p",
                Action::Allow,
                [rule([one(|m| set(m, negated))])],
            );
            policy.matches(connection)
        };
        assert_eq!(policy_of(false), *holds, "{case}");
        assert_eq!(policy_of(true), !holds, "{case}, negated");
    }
}

#[test]
fn rules_or_clauses_and_matches_or_fields_and() {
    let yes = || one(|m| m.destination_ports = vec![8080]);
    let no = || one(|m| m.destination_ports = vec![9]);
    let clause = |matches: Vec<Match>| Clause { matches };
    let matches = |rules: Vec<Rule>| policy("default/p", Action::Allow, rules).matches(&sleep());
    assert!(
        matches(vec![rule([no()]), rule([yes()])]),
        "one rule is enough"
    );
    assert!(!matches(vec![rule([no()]), rule([no()])]));
    assert!(matches(vec![rule([no(), yes()])]), "one match is enough");
    let both = |a, b| Rule {
        clauses: vec![clause(vec![a]), clause(vec![b])],
    };
    assert!(matches(vec![both(yes(), yes())]));
    assert!(!matches(vec![both(yes(), no())]), "every clause must hold");
    let fields = |port, namespace: &str| {
        rule([one(|m| {
            m.destination_ports = vec![port];
            m.namespaces = vec![exact(namespace)];
        })])
    };
    assert!(matches(vec![fields(8080, "default")]));
    assert!(
        !matches(vec![fields(8080, "other")]),
        "every field must hold"
    );
    assert!(
        !matches(vec![fields(9, "default")]),
        "every field must hold"
    );
    let positive_and_negative = rule([one(|m| {
        m.namespaces = vec![prefix("def")];
        m.not_namespaces = vec![exact("default")];
    })]);
    assert!(!matches(vec![positive_and_negative]));
}

/// As in Istio's ztunnel (`src/rbac.rs`, `Authorization::matches`).
#[test]
fn what_is_empty() {
    let matches = |rules: Vec<Rule>| policy("default/p", Action::Allow, rules).matches(&sleep());
    assert!(!matches(vec![]), "no rules never match");
    assert!(
        matches(vec![Rule::default()]),
        "a rule without clauses does"
    );
    assert!(matches(vec![rule([])]), "a clause without matches does");
    assert!(
        !matches(vec![rule([Match::default()])]),
        "a match without fields doesn't"
    );
    let yes = one(|m| m.destination_ports = vec![8080]);
    assert!(
        matches(vec![rule([Match::default(), yes])]),
        "beside one that does, it is ignored"
    );
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

/// A message with one match, to be spoilt.
fn message(spoil: impl FnOnce(&mut proto::Match)) -> proto::Authorization {
    let mut m = proto::Match::default();
    spoil(&mut m);
    proto::Authorization {
        name: "p".to_owned(),
        namespace: "default".to_owned(),
        scope: proto::Scope::Namespace.into(),
        rules: vec![proto::Rule {
            clauses: vec![proto::Clause { matches: vec![m] }],
        }],
        ..proto::Authorization::default()
    }
}

fn text(kind: Option<MatchType>) -> proto::StringMatch {
    proto::StringMatch { match_type: kind }
}

#[test]
fn wrong_values_are_refused_by_name() {
    let address = |address: &[u8], length| proto::Address {
        address: address.to_vec(),
        length,
    };
    let of_match = "rules[0].clauses[0].matches[0]";
    let table = [
        (
            message(|m| m.principals = vec![text(None)]),
            format!("{of_match}.principals[0]: neither exact, prefix, suffix nor presence"),
        ),
        (
            message(|m| m.not_principals = vec![text(Some(MatchType::Presence(()))), text(None)]),
            format!("{of_match}.not_principals[1]: neither"),
        ),
        (
            message(|m| m.namespaces = vec![text(Some(MatchType::Exact(String::new())))]),
            format!("{of_match}.namespaces[0]: an empty exact"),
        ),
        (
            message(|m| m.not_namespaces = vec![text(Some(MatchType::Suffix(String::new())))]),
            format!("{of_match}.not_namespaces[0]: an empty suffix"),
        ),
        (
            message(|m| m.source_ips = vec![address(b"10.0.0.1", 32)]),
            format!("{of_match}.source_ips[0]: an address of 8 bytes"),
        ),
        (
            message(|m| m.not_source_ips = vec![address(&[10, 0, 0, 1], 33)]),
            format!("{of_match}.not_source_ips[0]: a prefix of 33 bits"),
        ),
        (
            message(|m| m.destination_ips = vec![address(&[0; 16], 129)]),
            format!("{of_match}.destination_ips[0]: a prefix of 129 bits"),
        ),
        (
            message(|m| m.not_destination_ips = vec![address(&[], 0)]),
            format!("{of_match}.not_destination_ips[0]: an address of 0 bytes"),
        ),
        (
            message(|m| m.destination_ports = vec![80, 65_616]),
            format!("{of_match}.destination_ports[1]: 65616 is no port"),
        ),
        (
            message(|m| m.not_destination_ports = vec![u32::MAX]),
            format!("{of_match}.not_destination_ports[0]: 4294967295 is no port"),
        ),
        (
            message(|m| m.service_accounts = vec![proto::ServiceAccountMatch::default()]),
            format!("{of_match}.service_accounts[0]: needs both"),
        ),
        (
            message(|m| m.not_service_accounts = vec![proto::ServiceAccountMatch::default()]),
            format!("{of_match}.not_service_accounts[0]: needs both"),
        ),
        (
            proto::Authorization {
                action: 7,
                ..message(|_| {})
            },
            "action: unknown value 7".to_owned(),
        ),
        (
            proto::Authorization {
                scope: -1,
                ..message(|_| {})
            },
            "scope: unknown value -1".to_owned(),
        ),
    ];
    for (message, expected) in table {
        let error = Authorization::try_from(message).unwrap_err().to_string();
        assert!(error.starts_with("policy default/p: "), "{error}");
        assert!(
            error.contains(&expected),
            "{error:?} doesn't say {expected:?}"
        );
    }
    let nameless = proto::Authorization {
        name: String::new(),
        ..message(|_| {})
    };
    assert!(
        Authorization::try_from(nameless)
            .unwrap_err()
            .to_string()
            .contains("name: empty")
    );
    let nowhere = proto::Authorization {
        namespace: String::new(),
        ..message(|_| {})
    };
    assert!(
        Authorization::try_from(nowhere)
            .unwrap_err()
            .to_string()
            .contains("namespace: empty")
    );
}

#[test]
fn blocks_of_mapped_addresses_are_ipv4_blocks() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 77];
    let parsed = Authorization::try_from(message(|m| {
        m.source_ips = vec![proto::Address {
            address: mapped.to_vec(),
            length: 104,
        }];
    }))
    .unwrap();
    let blocks = &parsed.rules[0].clauses[0].matches[0].source_ips;
    assert_eq!(blocks, &["10.0.0.0/8".parse::<ipnet::IpNet>().unwrap()]);
}
