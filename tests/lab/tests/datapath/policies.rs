//! Authorisation with Istio's semantics, through real tunnels: what each kind of rule lets pass,
//! in which order, and what a change does to connections that are open. Long because its tables
//! belong together.

use lab::document::{allow, deny, policy, rule};
use lab::{End, Lab, Pod, Verdict, patience};
use mesh::file::format::{Action, Match, Policy, PolicyScope, ServiceAccount};

use crate::story::{PORT, SOON, counted, logged};

/// `sleep` and `notsleep` of `default`, `far` of namespace `other`, `plain` outside the mesh, and
/// the `server` they call.
struct Cast {
    lab: Lab,
    sleep: Pod,
    notsleep: Pod,
    far: Pod,
    plain: Pod,
    server: Pod,
}

/// Whose requests are answered: sleep, notsleep, far, plain.
type Answered = [bool; 4];
const EVERYBODY: Answered = [true; 4];
const NOBODY: Answered = [false; 4];

impl Cast {
    async fn start() -> Self {
        let lab = Lab::start().await.unwrap();
        let (sleep, notsleep, far, plain, server) = tokio::try_join!(
            lab.pod("sleep").start(),
            lab.pod("notsleep").start(),
            lab.pod("far").identity("other", "sleep").start(),
            lab.pod("plain").outside_the_mesh().start(),
            lab.pod("server")
                .on(lab.node(2))
                .serving(PORT)
                .serving(9090)
                .start(),
        )
        .unwrap();
        Self {
            lab,
            sleep,
            notsleep,
            far,
            plain,
            server,
        }
    }

    async fn answered(&self) -> Answered {
        let to = self.server.at(PORT);
        let (sleep, notsleep, far, plain) = tokio::join!(
            self.sleep.get(to),
            self.notsleep.get(to),
            self.far.get(to),
            self.plain.get(to)
        );
        [sleep, notsleep, far, plain].map(|verdict| match verdict {
            Verdict::Answered(_) => true,
            // Denied is a reset, at once; never a hang.
            Verdict::Reset => false,
            other => panic!("{other}"),
        })
    }

    /// Has a selector policy apply to the server.
    async fn select(&self, policy: &str) {
        let change = self.lab.change(|document| {
            let server = document.workloads.get_mut(self.server.uid()).unwrap();
            server.authorization_policies = vec![policy.to_owned()];
        });
        change.await.unwrap();
    }

    /// Puts exactly these policies into force and asks everybody.
    async fn under(&self, policies: Vec<Policy>) -> Answered {
        let replace = |document: &mut lab::document::Document| {
            document.policies = policies
                .into_iter()
                .map(|one| (format!("{}/{}", one.namespace, one.name), one))
                .collect();
        };
        self.lab.change(replace).await.unwrap();
        self.answered().await
    }
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn account(namespace: &str, service_account: &str) -> ServiceAccount {
    ServiceAccount {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn principals_match_exactly_by_prefix_by_suffix_and_by_presence() {
    let cast = Cast::start().await;
    assert_eq!(cast.under(vec![]).await, EVERYBODY);
    for (principal, answered) in [
        (
            "cluster.local/ns/default/sa/sleep",
            [true, false, false, false],
        ),
        ("cluster.local/ns/default/*", [true, true, false, false]),
        ("*/sa/sleep", [true, false, true, false]),
        ("*", [true, true, true, false]),
        ("cluster.local/ns/default/sa/slee", NOBODY),
    ] {
        let matching = || Match {
            principals: texts(&[principal]),
            ..Match::default()
        };
        assert_eq!(
            cast.under(vec![allow("only", matching())]).await,
            answered,
            "ALLOW {principal}"
        );
        let others = answered.map(|yes| !yes);
        assert_eq!(
            cast.under(vec![deny("not", matching())]).await,
            others,
            "DENY {principal}"
        );
        let negated = Match {
            not_principals: texts(&[principal]),
            ..Match::default()
        };
        assert_eq!(
            cast.under(vec![allow("others", negated)]).await,
            others,
            "ALLOW not {principal}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_ports_and_address_blocks_match_and_are_negated() {
    let cast = Cast::start().await;
    let block = || vec![format!("{}/32", cast.sleep.ip())];
    let (port, other) = (vec![PORT], vec![9090]);
    let table: Vec<(&str, Match, Answered)> = vec![
        (
            "namespaces",
            Match {
                namespaces: texts(&["default"]),
                ..Match::default()
            },
            [true, true, false, false],
        ),
        (
            "not namespaces",
            Match {
                not_namespaces: texts(&["default"]),
                ..Match::default()
            },
            [false, false, true, true],
        ),
        (
            "service accounts",
            Match {
                service_accounts: vec![account("default", "sleep")],
                ..Match::default()
            },
            [true, false, false, false],
        ),
        (
            "not service accounts",
            Match {
                not_service_accounts: vec![account("default", "sleep"), account("other", "sleep")],
                ..Match::default()
            },
            [false, true, false, true],
        ),
        (
            "port",
            Match {
                destination_ports: port.clone(),
                ..Match::default()
            },
            EVERYBODY,
        ),
        (
            "another port",
            Match {
                destination_ports: other.clone(),
                ..Match::default()
            },
            NOBODY,
        ),
        (
            "not the port",
            Match {
                not_destination_ports: port,
                ..Match::default()
            },
            NOBODY,
        ),
        (
            "not another port",
            Match {
                not_destination_ports: other,
                ..Match::default()
            },
            EVERYBODY,
        ),
        (
            "source block",
            Match {
                source_ips: block(),
                ..Match::default()
            },
            [true, false, false, false],
        ),
        (
            "not source block",
            Match {
                not_source_ips: block(),
                ..Match::default()
            },
            [false, true, true, true],
        ),
        (
            "wide source block",
            Match {
                source_ips: texts(&["10.244.0.0/16"]),
                ..Match::default()
            },
            EVERYBODY,
        ),
        (
            "destination block",
            Match {
                destination_ips: vec![format!("{}/32", cast.server.ip())],
                ..Match::default()
            },
            EVERYBODY,
        ),
        (
            "not destination block",
            Match {
                not_destination_ips: texts(&["10.244.2.0/24"]),
                ..Match::default()
            },
            NOBODY,
        ),
    ];
    for (name, matching, answered) in table {
        assert_eq!(
            cast.under(vec![allow("one", matching)]).await,
            answered,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deny_comes_before_allow_and_rules_clauses_and_matches_combine() {
    let cast = Cast::start().await;
    let principal = |name: &str| Match {
        principals: vec![format!("cluster.local/ns/default/sa/{name}")],
        ..Match::default()
    };
    let everyone = || Match {
        source_ips: texts(&["10.244.0.0/16"]),
        ..Match::default()
    };
    let both = vec![
        allow("all", everyone()),
        deny("not-sleep", principal("sleep")),
    ];
    assert_eq!(
        cast.under(both).await,
        [false, true, true, true],
        "DENY first"
    );
    // Matches of a clause: one is enough. Rules: one is enough.
    let either = policy(
        "either",
        Action::Allow,
        vec![rule(vec![principal("sleep"), principal("notsleep")])],
    );
    assert_eq!(
        cast.under(vec![either]).await,
        [true, true, false, false],
        "matches"
    );
    let rules = vec![
        rule(vec![principal("sleep")]),
        rule(vec![principal("notsleep")]),
    ];
    assert_eq!(
        cast.under(vec![policy("rules", Action::Allow, rules)])
            .await,
        [true, true, false, false],
        "rules"
    );
    // Clauses: each must hold.
    let mut two = rule(vec![everyone()]);
    two.clauses.extend(rule(vec![principal("sleep")]).clauses);
    assert_eq!(
        cast.under(vec![policy("clauses", Action::Allow, vec![two])])
            .await,
        [true, false, false, false]
    );
    // No rules: an ALLOW that never matches shuts everybody out, a DENY nobody.
    assert_eq!(
        cast.under(vec![policy("empty", Action::Allow, vec![])])
            .await,
        NOBODY,
        "empty ALLOW"
    );
    assert_eq!(
        cast.under(vec![policy("empty", Action::Deny, vec![])])
            .await,
        EVERYBODY,
        "empty DENY"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scopes_reach_their_own_and_a_dry_run_denies_nobody() {
    let cast = Cast::start().await;
    let shut = |name: &str, namespace: &str, scope| Policy {
        namespace: namespace.to_owned(),
        scope,
        ..policy(name, Action::Allow, vec![])
    };
    let cases = [
        (
            "mesh-wide",
            shut("root", "istio-system", PolicyScope::Global),
            NOBODY,
        ),
        (
            "own namespace",
            shut("ns", "default", PolicyScope::Namespace),
            NOBODY,
        ),
        (
            "another namespace",
            shut("ns", "other", PolicyScope::Namespace),
            EVERYBODY,
        ),
        (
            "not selected",
            shut("selector", "default", PolicyScope::WorkloadSelector),
            EVERYBODY,
        ),
        (
            "dry run",
            Policy {
                dry_run: true,
                ..shut("ns", "default", PolicyScope::Namespace)
            },
            EVERYBODY,
        ),
    ];
    for (name, one, answered) in cases {
        assert_eq!(cast.under(vec![one]).await, answered, "{name}");
    }
    cast.under(vec![shut(
        "selector",
        "default",
        PolicyScope::WorkloadSelector,
    )])
    .await;
    cast.select("default/selector").await;
    assert_eq!(cast.answered().await, NOBODY, "selected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_names_an_absent_policy_is_held_then_shut_and_opens_when_it_comes() {
    let cast = Cast::start().await;
    let to = cast.server.at(PORT);
    cast.select("default/later").await;
    let verdict = cast.sleep.get(to).within(SOON * 3).await;
    assert!(verdict.is_denied(), "no policy, no way in: {verdict}");
    let early = cast.sleep.clone();
    let waiting = tokio::spawn(async move { early.get(to).within(SOON * 3).await });
    let node = cast.lab.node(2);
    let held = || {
        let metrics = node.ztunnel().metrics();
        metrics.is_ok_and(|metrics| metrics.sum("culvert_held_connections", &[]) >= 1.0)
    };
    patience::until("a connection to be held", SOON, held)
        .await
        .unwrap();
    let later = Policy {
        scope: PolicyScope::WorkloadSelector,
        ..allow(
            "later",
            Match {
                principals: texts(&["*/sa/sleep"]),
                ..Match::default()
            },
        )
    };
    cast.lab.policy(later).await.unwrap();
    let verdict = waiting.await.unwrap();
    assert!(verdict.answer().is_some(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_is_counted_and_logged_with_the_policys_name() {
    let cast = Cast::start().await;
    let only = Match {
        principals: texts(&["cluster.local/ns/default/sa/sleep"]),
        ..Match::default()
    };
    cast.under(vec![
        deny(
            "no-notsleep",
            Match {
                principals: texts(&["*/sa/notsleep"]),
                ..Match::default()
            },
        ),
        allow("viewer", only),
    ])
    .await;
    let node = cast.lab.node(2);
    let denied = [("reporter", "destination"), ("response_flags", "DENY")];
    counted(node, "istio_tcp_connections_closed_total", &denied, 3.0).await;
    let line = logged(
        node,
        &[("direction", "inbound"), ("src.workload", "notsleep")],
    )
    .await;
    assert!(
        line.get("error").contains("default/no-notsleep"),
        "{line:?}"
    );
    // The caller's node knows that it was refused, not why.
    let line = logged(
        cast.lab.node(1),
        &[("direction", "outbound"), ("src.workload", "notsleep")],
    )
    .await;
    assert!(line.get("error").contains("401"), "{line:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_change_closes_what_it_denies_and_nothing_else() {
    let cast = Cast::start().await;
    let to = cast.server.at(PORT);
    let (sleep, notsleep, plain) = tokio::try_join!(
        cast.sleep.open(to, "sleep"),
        cast.notsleep.open(to, "notsleep"),
        cast.plain.open(to, "plain"),
    )
    .unwrap();
    // A change that allows them all leaves them all alone.
    cast.under(vec![deny(
        "nobody-known",
        Match {
            principals: texts(&["*/sa/nobody"]),
            ..Match::default()
        },
    )])
    .await;
    for held in [&sleep, &notsleep, &plain] {
        assert_eq!(
            held.say("still here").await,
            Verdict::Answered("still here".to_owned())
        );
    }
    cast.under(vec![allow(
        "viewer",
        Match {
            principals: texts(&["*/sa/sleep"]),
            ..Match::default()
        },
    )])
    .await;
    assert_eq!(notsleep.end_within(SOON).await.unwrap(), End::Reset);
    assert_eq!(plain.end_within(SOON).await.unwrap(), End::Reset);
    assert_eq!(
        sleep.say("and I stay").await,
        Verdict::Answered("and I stay".to_owned())
    );
    counted(
        cast.lab.node(2),
        "culvert_policy_closed_connections_total",
        &[],
        2.0,
    )
    .await;
    assert_eq!(sleep.finish().await.unwrap(), End::Finished);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newly_selected_workload_loses_its_open_connections_too() {
    let cast = Cast::start().await;
    let selector = Policy {
        scope: PolicyScope::WorkloadSelector,
        ..policy("later", Action::Allow, vec![])
    };
    cast.under(vec![selector]).await;
    let held = cast.sleep.open(cast.server.at(PORT), "held").await.unwrap();
    cast.select("default/later").await;
    assert_eq!(held.end_within(SOON).await.unwrap(), End::Reset);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_policy_is_refused_by_name_and_the_last_good_one_stays() {
    let cast = Cast::start().await;
    let good = allow(
        "viewer",
        Match {
            principals: texts(&["*/sa/sleep"]),
            ..Match::default()
        },
    );
    assert_eq!(cast.under(vec![good]).await, [true, false, true, false]);
    let broken = "{name: broken, namespace: default, scope: NAMESPACE, action: ALLOW, \
                  rules: [{clauses: [{matches: [{sourceIps: [not-an-address]}]}]}]}";
    let broken = serde_yaml_ng::from_str(broken).unwrap();
    cast.lab
        .offer(|document| {
            document.policies.clear();
            document.raw_policies.push(broken);
        })
        .unwrap();
    for node in cast.lab.nodes() {
        let log = node.ztunnel().log();
        let named = || {
            log.lines()
                .iter()
                .any(|line| line.contains("broken") && line.contains("not-an-address"))
        };
        patience::until("the log to name the malformed policy", SOON, named)
            .await
            .unwrap();
    }
    assert_eq!(
        cast.answered().await,
        [true, false, true, false],
        "the last good policy is in force"
    );
    cast.lab
        .change(|document| document.raw_policies.clear())
        .await
        .unwrap();
    assert_eq!(
        cast.answered().await,
        EVERYBODY,
        "a good document is taken again"
    );
}
