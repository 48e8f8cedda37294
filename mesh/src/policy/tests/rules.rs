//! What a rule matches: each field and its negation, how they combine, and what is empty.

use super::*;

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
