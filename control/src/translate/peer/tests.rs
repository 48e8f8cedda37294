//! PeerAuthentications → attached policies and their rules, row by row.

use serde_json::{Value, json};

use super::*;

fn policy(name: &str, namespace: &str, created: i64, spec: Value) -> PeerAuthentication {
    let object = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    });
    let mut parsed = PeerAuthentication::from(&serde_json::from_value(object).unwrap());
    parsed.source.created = created;
    parsed
}

fn web(mode: &str, ports: Value) -> PeerAuthentication {
    let ports: serde_json::Map<String, Value> = ports
        .as_object()
        .unwrap()
        .iter()
        .map(|(port, mode)| (port.clone(), json!({"mode": mode})))
        .collect();
    policy(
        "web",
        "shop",
        0,
        json!({
            "selector": {"matchLabels": {"app": "web"}},
            "mtls": {"mode": mode},
            "portLevelMtls": ports,
        }),
    )
}

/// What a pod of app web is attached to, and the rules of that policy as text.
fn enforced(policy: &PeerAuthentication, inherited: bool) -> (Option<String>, Vec<String>) {
    let mesh = Mesh::default();
    let labels = [("app".to_owned(), "web".to_owned())].into();
    let attached = attached(&mesh, "shop", &labels, std::iter::once(policy), inherited);
    let rules = converted(&mesh, policy, inherited)
        .map(|made| made.rules)
        .unwrap_or_default();
    (attached, rules.iter().map(text).collect())
}

fn text(rule: &Rule) -> String {
    let matches = rule
        .clauses
        .iter()
        .flat_map(|clause| &clause.matches)
        .map(|found| {
            let nobody = if found.not_principals.is_empty() {
                ""
            } else {
                "nobody"
            };
            let on: String = found
                .destination_ports
                .iter()
                .map(|port| format!(" on {port}"))
                .collect();
            let off: String = found
                .not_destination_ports
                .iter()
                .map(|port| format!("not on {port}"))
                .collect();
            format!("{nobody}{on}{off}")
        });
    matches.collect::<Vec<_>>().join(" and ")
}

#[test]
fn every_row_of_the_table() {
    let strict = || Some("istio-system/istio_converted_static_strict".to_owned());
    let own = || Some("shop/converted_peer_authentication_web".to_owned());
    let none = || json!({});
    let cases = [
        (web("STRICT", none()), false, strict(), vec![]),
        (web("UNSET", none()), true, strict(), vec![]),
        (web("UNSET", none()), false, None, vec![]),
        (web("PERMISSIVE", none()), true, None, vec![]),
        (web("DISABLE", none()), true, None, vec![]),
        (
            web("STRICT", json!({"80": "STRICT"})),
            false,
            strict(),
            vec![],
        ),
        (
            web("STRICT", json!({"80": "UNSET"})),
            false,
            strict(),
            vec![],
        ),
        (
            web("STRICT", json!({"80": "PERMISSIVE"})),
            false,
            own(),
            vec!["not on 80 and nobody"],
        ),
        (
            web("UNSET", json!({"80": "DISABLE", "81": "STRICT"})),
            true,
            own(),
            vec!["not on 80 and nobody"],
        ),
        (
            web("UNSET", json!({"80": "PERMISSIVE", "90": "PERMISSIVE"})),
            true,
            own(),
            vec!["not on 80 and not on 90 and nobody"],
        ),
        (
            web("PERMISSIVE", json!({"80": "STRICT", "90": "STRICT"})),
            true,
            own(),
            vec!["nobody on 80", "nobody on 90"],
        ),
        (
            web("UNSET", json!({"80": "STRICT", "90": "PERMISSIVE"})),
            false,
            own(),
            vec!["nobody on 80"],
        ),
        (
            web("PERMISSIVE", json!({"80": "PERMISSIVE"})),
            true,
            None,
            vec![],
        ),
    ];
    for (policy, inherited, attached, rules) in cases {
        let expected = (attached, rules.into_iter().map(str::to_owned).collect());
        assert_eq!(
            enforced(&policy, inherited),
            expected,
            "{:?} inherited {inherited}",
            policy.rule
        );
    }
}

#[test]
fn a_namespace_overrides_the_mesh_and_unset_inherits() {
    let mode =
        |namespace: &str, mode: &str| policy("p", namespace, 0, json!({"mtls": {"mode": mode}}));
    let strict = |mesh: Option<&str>, namespace: Option<&str>| {
        let mesh: Vec<_> = mesh.map(|m| mode("istio-system", m)).into_iter().collect();
        let namespace: Vec<_> = namespace.map(|m| mode("shop", m)).into_iter().collect();
        inherited_strict(mesh.iter(), namespace.iter())
    };
    assert!(!strict(None, None));
    assert!(strict(Some("STRICT"), None));
    assert!(strict(Some("STRICT"), Some("UNSET")));
    assert!(!strict(Some("STRICT"), Some("PERMISSIVE")));
    assert!(strict(Some("PERMISSIVE"), Some("STRICT")));
    assert!(!strict(Some("PERMISSIVE"), Some("UNSET")));
}

#[test]
fn the_oldest_counts() {
    let with = |created, mode: &str| policy(mode, "shop", created, json!({"mtls": {"mode": mode}}));
    let policies = [with(20, "STRICT"), with(10, "PERMISSIVE")];
    assert!(!inherited_strict([].iter(), policies.iter()));
    let policies = [with(20, "PERMISSIVE"), with(10, "STRICT")];
    assert!(inherited_strict([].iter(), policies.iter()));
}

#[test]
fn a_workload_policy_of_the_root_namespace_has_no_effect() {
    let mut policy = web("STRICT", json!({"80": "PERMISSIVE"}));
    policy.source.key = Key::new("istio-system", "web");
    let labels = [("app".to_owned(), "web".to_owned())].into();
    assert_eq!(converted(&Mesh::default(), &policy, false), None);
    assert_eq!(
        attached(
            &Mesh::default(),
            "istio-system",
            &labels,
            std::iter::once(&policy),
            false
        ),
        None
    );
}

#[test]
fn another_pod_inherits() {
    let labels = [("app".to_owned(), "other".to_owned())].into();
    let policy = web("PERMISSIVE", json!({}));
    let found = |inherited| {
        attached(
            &Mesh::default(),
            "shop",
            &labels,
            std::iter::once(&policy),
            inherited,
        )
    };
    assert_eq!(
        found(true).as_deref(),
        Some("istio-system/istio_converted_static_strict")
    );
    assert_eq!(found(false), None);
}

#[test]
fn the_static_policy_denies_those_without_identity() {
    let policy = static_strict(&Mesh::default());
    assert_eq!(
        format!("{}/{}", policy.namespace, policy.name),
        static_strict_name(&Mesh::default())
    );
    assert_eq!(
        (policy.action(), policy.scope()),
        (Action::Deny, Scope::WorkloadSelector)
    );
    assert_eq!(
        policy.rules.iter().map(text).collect::<Vec<_>>(),
        ["nobody"]
    );
}

#[test]
fn wrong_values_are_named_and_read_as_strict() {
    let problems = |spec| policy("p", "shop", 0, spec);
    let found = problems(json!({"mtls": {"mode": "strict"}}));
    assert_eq!(found.rule.mode, Mode::Strict);
    assert!(
        found.problems[0].contains(r#"mtls.mode is "strict""#),
        "{:?}",
        found.problems
    );
    let found = problems(
        json!({"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"http": {"mode": "STRICT"}, "80": {"mode": "x"}}}),
    );
    assert_eq!(found.rule.ports, [(80, Mode::Strict)].into());
    assert_eq!(found.problems.len(), 2);
    let found = problems(json!({"portLevelMtls": {"80": {"mode": "STRICT"}}}));
    assert!(
        found.problems[0].contains("needs a selector"),
        "{:?}",
        found.problems
    );
    let found = problems(json!({"mtls": 5}));
    assert!(
        found.problems[0].contains("spec does not parse"),
        "{:?}",
        found.problems
    );
}
