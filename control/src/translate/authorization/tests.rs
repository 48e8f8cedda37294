//! AuthorizationPolicies as people write them → what node proxies enforce, field by field.

use mesh::proto::security::string_match::MatchType;
use mesh::proto::security::{Address, Match, ServiceAccountMatch, StringMatch};
use serde_json::{Value, json};

use super::*;

fn policy(namespace: &str, annotations: Value, spec: Value) -> Translated {
    let object = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": namespace, "annotations": annotations},
        "spec": spec,
    });
    authorization(
        &Mesh::default(),
        &AuthorizationPolicy::from(&serde_json::from_value(object).unwrap()),
    )
}

fn of(spec: Value) -> Translated {
    policy("ns", json!({}), spec)
}

/// The one match that a policy with one source, operation or condition comes to.
fn only_match(rule: Value) -> Match {
    let translated = of(json!({"rules": [rule]}));
    assert_eq!(translated.verdict, Some(Verdict::accepted()));
    let rules = translated.authorization.unwrap().rules;
    let [rule] = rules.as_slice() else {
        panic!("{rules:?}")
    };
    let [clause] = rule.clauses.as_slice() else {
        panic!("{rule:?}")
    };
    clause.matches[0].clone()
}

fn source(field: &str, value: &str) -> Match {
    only_match(json!({"from": [{"source": {field: [value]}}]}))
}

fn problem(spec: Value) -> String {
    let translated = of(spec);
    assert!(translated.refused);
    let verdict = translated.verdict.unwrap();
    assert!(!verdict.accepted);
    assert_eq!(verdict.reason, "Invalid");
    verdict.message
}

fn exact(text: &str) -> Vec<StringMatch> {
    vec![StringMatch {
        match_type: Some(MatchType::Exact(text.to_owned())),
    }]
}

#[test]
fn every_source_field() {
    let strings = |kind| {
        vec![StringMatch {
            match_type: Some(kind),
        }]
    };
    assert_eq!(
        source("principals", "td/ns/a/sa/b").principals,
        exact("td/ns/a/sa/b")
    );
    assert_eq!(
        source("principals", "*").principals,
        strings(MatchType::Presence(()))
    );
    assert_eq!(
        source("principals", "*/sa/b").principals,
        strings(MatchType::Suffix("/sa/b".to_owned()))
    );
    assert_eq!(
        source("principals", "td/*").principals,
        strings(MatchType::Prefix("td/".to_owned()))
    );
    assert_eq!(
        source("notPrincipals", "*").not_principals,
        strings(MatchType::Presence(()))
    );
    assert_eq!(source("namespaces", "a").namespaces, exact("a"));
    assert_eq!(
        source("notNamespaces", "a*").not_namespaces,
        strings(MatchType::Prefix("a".to_owned()))
    );
    let account = |namespace: &str| {
        vec![ServiceAccountMatch {
            namespace: namespace.to_owned(),
            service_account: "sa".to_owned(),
        }]
    };
    assert_eq!(
        source("serviceAccounts", "sa").service_accounts,
        account("ns")
    );
    assert_eq!(
        source("serviceAccounts", "other/sa").service_accounts,
        account("other")
    );
    assert_eq!(
        source("notServiceAccounts", "sa").not_service_accounts,
        account("ns")
    );
    let block = |address: &[u8], length| {
        vec![Address {
            address: address.to_vec(),
            length,
        }]
    };
    assert_eq!(
        source("ipBlocks", "10.1.0.0/16").source_ips,
        block(&[10, 1, 0, 0], 16)
    );
    assert_eq!(
        source("ipBlocks", "1.2.3.4").source_ips,
        block(&[1, 2, 3, 4], 32)
    );
    let loopback = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(
        source("notIpBlocks", "::1").not_source_ips,
        block(&loopback, 128)
    );
}

#[test]
fn every_operation_and_condition() {
    let operation = |field: &str| only_match(json!({"to": [{"operation": {field: ["80"]}}]}));
    assert_eq!(operation("ports").destination_ports, [80]);
    assert_eq!(operation("notPorts").not_destination_ports, [80]);
    let when =
        |key: &str, value: &str| only_match(json!({"when": [{"key": key, "values": [value]}]}));
    let unless =
        |key: &str, value: &str| only_match(json!({"when": [{"key": key, "notValues": [value]}]}));
    assert_eq!(when("source.namespace", "a").namespaces, exact("a"));
    assert_eq!(unless("source.namespace", "a").not_namespaces, exact("a"));
    assert_eq!(when("source.principal", "a").principals, exact("a"));
    assert_eq!(unless("source.principal", "a").not_principals, exact("a"));
    assert_eq!(when("source.ip", "1.2.3.4").source_ips.len(), 1);
    assert_eq!(unless("source.ip", "1.2.3.4").not_source_ips.len(), 1);
    assert_eq!(when("destination.ip", "1.2.3.4").destination_ips.len(), 1);
    assert_eq!(
        unless("destination.ip", "1.2.3.4")
            .not_destination_ips
            .len(),
        1
    );
    assert_eq!(when("destination.port", "9").destination_ports, [9]);
    assert_eq!(unless("destination.port", "9").not_destination_ports, [9]);
}

#[test]
fn alternatives_are_matches_and_everything_else_is_a_clause() {
    let spec = json!({"rules": [{
        "from": [{"source": {"namespaces": ["a"]}}, {"source": {"namespaces": ["b"]}}],
        "to": [{"operation": {"ports": ["1"]}}],
        "when": [{"key": "source.ip", "values": ["1.1.1.1"]}, {"key": "destination.port", "values": ["2"]}],
    }]});
    let rules = of(spec).authorization.unwrap().rules;
    let matches: Vec<usize> = rules[0]
        .clauses
        .iter()
        .map(|clause| clause.matches.len())
        .collect();
    assert_eq!(matches, [1, 2, 1, 1]);
}

#[test]
fn rules_that_match_all_and_policies_that_match_nothing() {
    let all = of(json!({"rules": [{}]})).authorization.unwrap();
    assert_eq!(all.rules.len(), 1);
    assert!(all.rules[0].clauses.is_empty());
    assert!(of(json!({})).authorization.unwrap().rules.is_empty());
    assert!(of(Value::Null).authorization.unwrap().rules.is_empty());
}

#[test]
fn the_scope_is_where_it_is_and_whom_it_selects() {
    let scope = |namespace: &str, spec| {
        let translated = policy(namespace, json!({}), spec);
        (
            translated.authorization.unwrap().scope(),
            translated.selector.map(|labels| labels.len()),
        )
    };
    let selector = || json!({"selector": {"matchLabels": {"app": "a"}}});
    assert_eq!(scope("ns", json!({})), (Scope::Namespace, None));
    assert_eq!(scope("istio-system", json!({})), (Scope::Global, None));
    assert_eq!(scope("ns", selector()), (Scope::WorkloadSelector, Some(1)));
    assert_eq!(
        scope("istio-system", selector()),
        (Scope::WorkloadSelector, Some(1))
    );
    // It selects everything of the namespace, by name.
    assert_eq!(
        scope("ns", json!({"selector": {}})),
        (Scope::WorkloadSelector, Some(0))
    );
}

#[test]
fn the_action_and_the_dry_run() {
    let action = |action: &str| {
        of(json!({"action": action}))
            .authorization
            .map(|found| found.action())
    };
    assert_eq!(action("ALLOW"), Some(Action::Allow));
    assert_eq!(action("DENY"), Some(Action::Deny));
    for other in ["AUDIT", "CUSTOM"] {
        let translated = of(json!({"action": other}));
        assert_eq!(translated.authorization, None);
        let message = format!("ztunnel does not support the {other} action");
        assert_eq!(
            translated.verdict,
            Some(Verdict::unsupported(false, message))
        );
    }
    let dry = |value: &str| policy("ns", json!({"istio.io/dry-run": value}), json!({}));
    assert!(dry("true").authorization.unwrap().dry_run);
    assert!(!dry("false").authorization.unwrap().dry_run);
    assert!(
        dry("perhaps")
            .verdict
            .unwrap()
            .message
            .contains("istio.io/dry-run")
    );
    assert!(
        !dry("perhaps").authorization.unwrap().dry_run,
        "in doubt it is enforced"
    );
}

#[test]
fn one_for_a_waypoint_is_not_for_node_proxies() {
    let target = json!({"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "w"});
    for spec in [
        json!({"targetRefs": [target]}),
        json!({"targetRef": target}),
    ] {
        assert_eq!(of(spec), Translated::not_ours());
    }
    let both = json!({"targetRefs": [target], "selector": {"matchLabels": {"a": "b"}}});
    assert!(problem(both).contains("exclude each other"));
}

#[test]
fn an_allow_rule_with_l7_is_left_out_and_a_deny_rule_denies_more() {
    let with = |action: &str, rule: Value| {
        of(
            json!({"action": action, "rules": [rule, {"from": [{"source": {"namespaces": ["a"]}}]}]}),
        )
    };
    let l7 = [
        (
            json!({"to": [{"operation": {"methods": ["GET"], "ports": ["80"]}}]}),
            "methods",
        ),
        (
            json!({"to": [{"operation": {"notPaths": ["/x"]}}]}),
            "notPaths",
        ),
        (json!({"to": [{"operation": {"hosts": ["h"]}}]}), "hosts"),
        (
            json!({"from": [{"source": {"requestPrincipals": ["*"]}}]}),
            "requestPrincipals",
        ),
        (
            json!({"from": [{"source": {"notRemoteIpBlocks": ["1.1.1.1"]}}]}),
            "notRemoteIpBlocks",
        ),
        // istiod reads it at node proxies as if it were not there; it restricts, so it must not vanish.
        (
            json!({"from": [{"source": {"trustDomains": ["td"]}}]}),
            "trustDomains",
        ),
        (
            json!({"when": [{"key": "request.headers[x]", "values": ["1"]}]}),
            "request.headers[x]",
        ),
    ];
    for (rule, name) in l7 {
        let allow = with("ALLOW", rule.clone());
        assert_eq!(allow.authorization.unwrap().rules.len(), 1, "{name}");
        let deny = with("DENY", rule);
        assert_eq!(deny.authorization.unwrap().rules.len(), 2, "{name}");
        for verdict in [allow.verdict.unwrap(), deny.verdict.unwrap()] {
            assert!(verdict.accepted && verdict.reason == "UnsupportedValue");
            assert!(
                verdict.message.contains(&format!("(found: {name})")),
                "{}",
                verdict.message
            );
        }
    }
    let deny = with(
        "DENY",
        json!({"to": [{"operation": {"methods": ["GET"], "ports": ["80"]}}]}),
    );
    assert_eq!(
        deny.authorization.unwrap().rules[0].clauses[0].matches[0].destination_ports,
        [80]
    );
}

#[test]
fn an_empty_l7_list_says_nothing() {
    let found = only_match(json!({"to": [{"operation": {"ports": ["80"], "methods": []}}]}));
    assert_eq!(found.destination_ports, [80]);
}

#[test]
fn wrong_values_are_refused_with_field_value_and_reason() {
    let source =
        |field: &str, value: &str| json!({"rules": [{"from": [{"source": {field: [value]}}]}]});
    let cases = [
        (
            json!({"rules": [{"to": [{"operation": {"ports": ["http"]}}]}]}),
            r#"rules[0].to[0].operation.ports has "http""#,
        ),
        (
            json!({"rules": [{"to": [{"operation": {"ports": ["0"]}}]}]}),
            "port from 1 to 65535",
        ),
        (
            json!({"rules": [{"to": [{"operation": {"notPorts": ["65536"]}}]}]}),
            "notPorts",
        ),
        (
            source("ipBlocks", "10.0.0.0/33"),
            "IP address or a CIDR block",
        ),
        (source("notIpBlocks", "example.org"), "notIpBlocks"),
        (source("principals", ""), "it is empty"),
        (
            source("serviceAccounts", "a/b/c"),
            "ACCOUNT or NAMESPACE/ACCOUNT",
        ),
        (source("serviceAccounts", "/b"), "serviceAccounts"),
        (
            json!({"rules": [{"from": [{"source": {}}]}]}),
            "rules[0].from[0].source is empty",
        ),
        (
            json!({"rules": [{}, {"to": [{}]}]}),
            "rules[1].to[0].operation is empty",
        ),
        (
            json!({"rules": [{"when": [{"key": "source.ip"}]}]}),
            "when[0] needs values or notValues",
        ),
        (
            json!({"rules": [{"when": [{"key": "", "values": ["x"]}]}]}),
            "when[0].key is empty",
        ),
        (json!({"action": "allow"}), r#"action is "allow""#),
        (
            json!({"rules": [{"to": [{"operation": {"ports": [80]}}]}]}),
            "spec does not parse",
        ),
    ];
    for (spec, expected) in cases {
        let message = problem(spec.clone());
        assert!(message.contains(expected), "{spec}: {message}");
    }
}

#[test]
fn what_is_refused_is_read_in_the_stricter_way() {
    let rule = json!({"from": [{"source": {"ipBlocks": ["bad"]}}], "to": [{"operation": {"ports": ["80"]}}]});
    let allow = of(json!({"rules": [rule]})).authorization.unwrap();
    assert!(allow.rules.is_empty(), "it allows nothing");
    let deny = of(json!({"action": "DENY", "rules": [rule]}))
        .authorization
        .unwrap();
    assert_eq!(deny.rules.len(), 1, "it denies more");
    let misnamed = of(json!({"action": "Deny", "rules": [{}]}))
        .authorization
        .unwrap();
    assert_eq!(
        (misnamed.action(), misnamed.rules.len()),
        (Action::Allow, 0),
        "nobody is let in"
    );
}
