//! The decision against a model that is written down as one would say it aloud, over messages as
//! they come from the wire. The two share no code but the generated types.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::proto::security as proto;
use crate::proto::security::string_match::MatchType;

/// Who knocks, in plain words.
#[derive(Debug, Clone)]
struct Knock {
    /// Namespace and service account, if proven; the trust domain is always `td`.
    who: Option<(String, String)>,
    source: [u8; 4],
    destination: [u8; 4],
    port: u16,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Allowed,
    Denied,
    Waiting,
}

fn text_matches(m: &proto::StringMatch, text: Option<&str>) -> bool {
    match (text, m.match_type.as_ref().unwrap()) {
        (None, _) => false,
        (Some(_), MatchType::Presence(())) => true,
        (Some(text), MatchType::Exact(e)) => text == e,
        (Some(text), MatchType::Prefix(p)) => text.len() >= p.len() && text[..p.len()] == **p,
        (Some(text), MatchType::Suffix(s)) => {
            text.len() >= s.len() && text[text.len() - s.len()..] == **s
        }
    }
}

fn in_block(block: &proto::Address, ip: [u8; 4]) -> bool {
    let (a, b) = (
        u32::from_be_bytes(block.address[..].try_into().unwrap()),
        u32::from_be_bytes(ip),
    );
    (0..block.length).all(|bit| (a >> (31 - bit)) & 1 == (b >> (31 - bit)) & 1)
}

fn match_holds(m: &proto::Match, knock: &Knock) -> bool {
    let namespace = knock.who.as_ref().map(|(ns, _)| ns.as_str());
    let principal = knock
        .who
        .as_ref()
        .map(|(ns, sa)| format!("td/ns/{ns}/sa/{sa}"));
    let mut any_field = false;
    let mut all_hold = true;
    let mut field = |values: Vec<bool>, negated: bool| {
        if !values.is_empty() {
            any_field = true;
            all_hold &= values.contains(&true) != negated;
        }
    };
    let texts = |list: &[proto::StringMatch], text: Option<&str>| {
        list.iter()
            .map(|m| text_matches(m, text))
            .collect::<Vec<_>>()
    };
    let accounts = |list: &[proto::ServiceAccountMatch]| {
        list.iter()
            .map(|a| knock.who == Some((a.namespace.clone(), a.service_account.clone())))
            .collect::<Vec<_>>()
    };
    let blocks =
        |list: &[proto::Address], ip| list.iter().map(|b| in_block(b, ip)).collect::<Vec<_>>();
    let ports = |list: &[u32]| {
        list.iter()
            .map(|p| *p == u32::from(knock.port))
            .collect::<Vec<_>>()
    };
    field(texts(&m.namespaces, namespace), false);
    field(texts(&m.not_namespaces, namespace), true);
    field(texts(&m.principals, principal.as_deref()), false);
    field(texts(&m.not_principals, principal.as_deref()), true);
    field(accounts(&m.service_accounts), false);
    field(accounts(&m.not_service_accounts), true);
    field(blocks(&m.source_ips, knock.source), false);
    field(blocks(&m.not_source_ips, knock.source), true);
    field(blocks(&m.destination_ips, knock.destination), false);
    field(blocks(&m.not_destination_ips, knock.destination), true);
    field(ports(&m.destination_ports), false);
    field(ports(&m.not_destination_ports), true);
    any_field && all_hold
}

fn policy_matches(policy: &proto::Authorization, knock: &Knock) -> bool {
    policy.rules.iter().any(|rule| {
        rule.clauses.iter().all(|clause| {
            clause.matches.is_empty() || clause.matches.iter().any(|m| match_holds(m, knock))
        })
    })
}

/// What should happen to a connection to a workload in `home` that names `selected`.
fn verdict(
    policies: &[proto::Authorization],
    home: &str,
    selected: &[String],
    knock: &Knock,
) -> Verdict {
    let name = |p: &proto::Authorization| format!("{}/{}", p.namespace, p.name);
    let in_scope: Vec<_> = policies
        .iter()
        .filter(|p| {
            // A policy that the workload names is for it, whatever its scope.
            selected.contains(&name(p))
                || match proto::Scope::try_from(p.scope).unwrap() {
                    proto::Scope::Global => true,
                    proto::Scope::Namespace => p.namespace == home,
                    proto::Scope::WorkloadSelector => false,
                }
        })
        .filter(|p| !p.dry_run)
        .collect();
    let is = |p: &&&proto::Authorization, action: proto::Action| p.action == i32::from(action);
    let denies = in_scope.iter().filter(|p| is(p, proto::Action::Deny));
    let allows: Vec<_> = in_scope
        .iter()
        .filter(|p| is(p, proto::Action::Allow))
        .collect();
    if denies.into_iter().any(|p| policy_matches(p, knock)) {
        Verdict::Denied
    } else if !selected
        .iter()
        .all(|s| policies.iter().any(|p| name(p) == *s))
    {
        Verdict::Waiting
    } else if allows.is_empty() || allows.iter().any(|p| policy_matches(p, knock)) {
        Verdict::Allowed
    } else {
        Verdict::Denied
    }
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab"]).prop_map(str::to_owned)
}

fn string_match() -> impl Strategy<Value = proto::StringMatch> {
    let texts = prop::sample::select(vec![
        "a",
        "b",
        "ab",
        "td/ns/a/sa/b",
        "td/ns/ab/sa/a",
        "td/ns/a",
        "/sa/b",
        "td",
        "x",
    ]);
    (texts, 0..4).prop_map(|(text, kind)| proto::StringMatch {
        match_type: Some(match kind {
            0 => MatchType::Exact(text.to_owned()),
            1 => MatchType::Prefix(text.to_owned()),
            2 => MatchType::Suffix(text.to_owned()),
            _ => MatchType::Presence(()),
        }),
    })
}

fn service_account() -> impl Strategy<Value = proto::ServiceAccountMatch> {
    (word(), word()).prop_map(|(namespace, service_account)| proto::ServiceAccountMatch {
        namespace,
        service_account,
    })
}

fn ip() -> impl Strategy<Value = [u8; 4]> {
    prop::sample::select(vec![
        [10, 0, 0, 1],
        [10, 0, 0, 2],
        [10, 1, 0, 1],
        [192, 168, 0, 1],
    ])
}

fn block() -> impl Strategy<Value = proto::Address> {
    (ip(), 0..=32_u32).prop_map(|(ip, length)| proto::Address {
        address: ip.to_vec(),
        length,
    })
}

/// Mostly empty, as fields are.
fn few<S: Strategy>(value: S) -> impl Strategy<Value = Vec<S::Value>>
where
    S::Value: Clone,
{
    prop_oneof![
        5 => Just(0_usize),
        1 => 1..3_usize,
    ]
    .prop_flat_map({
        let value = std::sync::Arc::new(value);
        move |n| prop::collection::vec(value.clone(), n..=n)
    })
}

fn any_match() -> impl Strategy<Value = proto::Match> {
    let port = || prop::sample::select(vec![80_u32, 443, 8080]);
    let texts = || (few(string_match()), few(string_match()));
    (
        texts(),
        texts(),
        (few(service_account()), few(service_account())),
        (few(block()), few(block())),
        (few(block()), few(block())),
        (few(port()), few(port())),
    )
        .prop_map(
            |(namespaces, principals, accounts, sources, destinations, ports)| proto::Match {
                namespaces: namespaces.0,
                not_namespaces: namespaces.1,
                principals: principals.0,
                not_principals: principals.1,
                service_accounts: accounts.0,
                not_service_accounts: accounts.1,
                source_ips: sources.0,
                not_source_ips: sources.1,
                destination_ips: destinations.0,
                not_destination_ips: destinations.1,
                destination_ports: ports.0,
                not_destination_ports: ports.1,
                extensions: Vec::new(),
            },
        )
}

fn rule() -> impl Strategy<Value = proto::Rule> {
    let clause = prop::collection::vec(any_match(), 0..3);
    let clause = clause.prop_map(|matches| proto::Clause { matches });
    prop::collection::vec(clause, 0..3).prop_map(|clauses| proto::Rule { clauses })
}

fn policies() -> impl Strategy<Value = Vec<proto::Authorization>> {
    let policy = (
        word(),
        0..3,
        0..2,
        prop::collection::vec(rule(), 0..3),
        prop::bool::weighted(0.1),
    );
    prop::collection::vec(policy, 0..6).prop_map(|list| {
        let numbered = list.into_iter().enumerate();
        numbered
            .map(
                |(i, (namespace, scope, action, rules, dry_run))| proto::Authorization {
                    name: i.to_string(),
                    namespace,
                    scope,
                    action,
                    rules,
                    dry_run,
                    extensions: Vec::new(),
                },
            )
            .collect()
    })
}

fn knock() -> impl Strategy<Value = Knock> {
    let who = prop::option::weighted(0.8, (word(), word()));
    (who, ip(), ip(), prop::sample::select(vec![80_u16, 443, 9])).prop_map(
        |(who, source, destination, port)| Knock {
            who,
            source,
            destination,
            port,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn decides_as_one_would_say_it(
        policies in policies(),
        gone in policies(),
        selected in prop::collection::vec((word(), 0..6), 0..4),
        home in word(),
        knock in knock(),
    ) {
        let selected: Vec<String> = selected.iter().map(|(ns, i)| format!("{ns}/{i}")).collect();
        let expected = verdict(&policies, &home, &selected, &knock);

        let mut store = Policies::default();
        let gone = gone.into_iter().map(|policy| Authorization::try_from(policy).unwrap());
        let gone: Vec<_> = gone.collect();
        for policy in &gone {
            store.insert(policy.clone());
        }
        // Some take the place of those, of whatever scope and action.
        for policy in policies.clone() {
            store.insert(Authorization::try_from(policy).unwrap());
        }
        let stays = |name: &PolicyName| {
            policies.iter().any(|p| format!("{}/{}", p.namespace, p.name) == name.as_str())
        };
        for policy in gone.iter().filter(|policy| !stays(&policy.name)) {
            prop_assert!(store.remove(&policy.name));
        }
        prop_assert_eq!(store.len(), policies.len());
        let names: Vec<PolicyName> = selected.iter().map(|name| name.parse().unwrap()).collect();
        let identity = knock.who.as_ref().map(|(ns, sa)| {
            format!("spiffe://td/ns/{ns}/sa/{sa}").parse().unwrap()
        });
        let connection = Inbound {
            source: Source { ip: IpAddr::from(knock.source), identity },
            destination: (IpAddr::from(knock.destination), knock.port).into(),
        };
        let found = match store.decide(&home, &names, &connection) {
            Ok(_) => Verdict::Allowed,
            Err(denied) if denied.is_pending() => Verdict::Waiting,
            Err(_) => Verdict::Denied,
        };
        prop_assert_eq!(found, expected);
    }
}
