//! Fields that nobody knows in policies and Gateways, which are no objects of the routing API: named to who
//! applies them, and in the status.

use super::fields::places;
use super::*;

#[test]
fn policies_and_gateways_are_told_of_such_fields_too() {
    let selector = json!({"matchLabels": {"app": "web"}});
    let rule = json!({
        "from": [{"source": {"principals": ["a"]}}], "to": [{"operation": {"ports": ["80"]}}],
        "when": [{"key": "source.ip", "values": ["10.0.0.0/8"]}],
    });
    let policy = json!({"selector": selector, "action": "ALLOW", "provider": {"name": "a"}, "rules": [rule]});
    let peer = json!({"selector": selector, "mtls": {"mode": "STRICT"}, "portLevelMtls": {"80": {"mode": "DISABLE"}}});
    let gateway = json!({
        "gatewayClassName": "istio-waypoint",
        "infrastructure": {"labels": {"a": "b"}, "parametersRef": {"kind": "ConfigMap", "name": "c"}},
        "listeners": [{
            "name": "mesh", "port": 15008, "protocol": "HBONE",
            "allowedRoutes": {"namespaces": {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}},
        }],
    });
    // Parts of a source or an operation are kept by name, and decided about.
    let decided = ["abels", "portLevelMtls", ".source", ".operation"];
    let mut tried = 0;
    for (kind, group, spec) in [
        ("AuthorizationPolicy", "security.istio.io", policy),
        ("PeerAuthentication", "security.istio.io", peer),
        ("Gateway", "gateway.networking.k8s.io", gateway.clone()),
    ] {
        let warnings = |spec: &Value| {
            let object = json!({
                "apiVersion": format!("{group}/v1"), "kind": kind,
                "metadata": {"name": "it", "namespace": "shop"}, "spec": spec,
            });
            let review = json!({"request": {"uid": "u", "object": object}});
            crate::admission::reviewed(&Mesh::default(), review)["response"]["warnings"].clone()
        };
        assert_eq!(warnings(&spec), json!([]), "{kind}");
        let mut all = vec![(String::new(), String::new())];
        places(&spec, "", "", &mut all);
        for (pointer, said) in all {
            let is_decided = decided.iter().any(|name| said.ends_with(name));
            if is_decided || !spec.pointer(&pointer).unwrap().is_object() {
                continue;
            }
            let mut changed = spec.clone();
            changed.pointer_mut(&pointer).unwrap()["misspelt"] = json!({"deep": 1});
            let at = format!("spec.{said}.misspelt").replace("..", ".");
            let warned = format!("{at} is not known to Culvert and passed over: is it misspelt?");
            assert_eq!(warnings(&changed), json!([warned]), "{kind}");
            tried += 1;
        }
    }
    assert!(tried >= 18, "{tried}");
    let object = |class: &str, port: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "it", "namespace": "shop"},
            "spec": {"gatewayClassName": class, "misspelt": 1, "listeners": [{"port": port}]},
        })
    };
    assert!(
        passed_over(&object("istio", json!(80))).is_empty(),
        "somebody else's"
    );
    let refused = |class| problem(&Mesh::default(), object(class, json!("many")));
    assert!(refused("istio").is_none());
    let refused = refused("istio-waypoint").unwrap();
    assert_eq!(refused.object, "Gateway shop/it");
    assert!(
        refused.what.contains("listeners[0].port"),
        "{}",
        refused.what
    );
}

#[test]
fn a_policys_status_names_what_is_passed_over() {
    let mut index = Index::new(Mesh::default());
    let mut status = |kind: &str, spec: Value| {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "security.istio.io/v1", "kind": kind,
            "metadata": {"name": "it", "namespace": "shop", "generation": 1}, "spec": spec,
        }))
        .unwrap();
        let object = match kind {
            "PeerAuthentication" => Object::PeerAuthentication(Box::new((&object).into())),
            _ => Object::AuthorizationPolicy(Box::new((&object).into())),
        };
        index.apply(Change::Applied(object));
        index.recompute();
        let wishes = index.take_wishes();
        wishes.last().map(|wish| wish.verdict.message.clone())
    };
    let said = |of: &str, field: &str| {
        Some(format!(
            "{of}; passed over, because it is not known here: {field}"
        ))
    };
    let rule = json!({"form": [], "from": [{"source": {"namespaces": ["shop"]}}]});
    assert_eq!(
        status("AuthorizationPolicy", json!({"rules": [rule]})),
        said("attached to ztunnel", "rules[0].form")
    );
    let targets = json!([{"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "w"}]);
    assert_eq!(
        status(
            "AuthorizationPolicy",
            json!({"targetRefs": targets, "rules": [rule]})
        ),
        said("in force at waypoints", "rules[0].form")
    );
    assert_eq!(
        status("PeerAuthentication", json!({"mtsl": {"mode": "STRICT"}})),
        said("attached to ztunnel", "mtsl")
    );
}
