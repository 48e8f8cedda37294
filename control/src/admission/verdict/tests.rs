//! Wrong objects and right ones.

mod fields;
mod misspelt;

use super::*;

fn refused(kind: &str, group: &str, spec: Value) -> Option<String> {
    let object = json!({
        "apiVersion": format!("{group}/v1"), "kind": kind,
        "metadata": {"name": "it", "namespace": "shop"}, "spec": spec,
    });
    let problem = problem(&Mesh::default(), object)?;
    assert_eq!(problem.object, format!("{kind} shop/it"));
    Some(problem.what)
}

const SECURITY: &str = "security.istio.io";
const NETWORKING: &str = "networking.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";
const GATEWAY: &str = "gateway.networking.k8s.io";

#[test]
fn what_is_wrong_is_named_by_field_and_reason() {
    let cases = [
        (
            "AuthorizationPolicy",
            SECURITY,
            json!({"rules": [{"from": [{"source": {"ipBlocks": ["nonsense"]}}]}]}),
            "rules[0]",
        ),
        (
            "AuthorizationPolicy",
            SECURITY,
            json!({"selector": {"matchLabels": {"a": "b"}}, "targetRefs": [{"kind": "Service", "name": "web"}]}),
            "exclude each other",
        ),
        (
            "AuthorizationPolicy",
            SECURITY,
            json!({
                "targetRefs": [{"kind": "Service", "group": "", "name": "web"}],
                "rules": [{"from": [{"source": {"principles": ["a"]}}]}],
            }),
            "from.source.principles is not known",
        ),
        (
            "AuthorizationPolicy",
            SECURITY,
            json!({
                "targetRefs": [{"kind": "Service", "group": "", "name": "web"}],
                "rules": [{"to": [{"operation": {"path": ["/a"]}}]}],
            }),
            "to.operation.path is not known",
        ),
        (
            "PeerAuthentication",
            SECURITY,
            json!({"mtls": {"mode": "STRIKT"}}),
            "mtls.mode is \"STRIKT\"",
        ),
        (
            "PeerAuthentication",
            SECURITY,
            json!({"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"0": {"mode": "STRICT"}}}),
            "portLevelMtls has key \"0\"",
        ),
        (
            "VirtualService",
            NETWORKING,
            json!({"hosts": ["web"], "http": [{"route": [{"destination": {"host": 7}}]}]}),
            "http[0].route[0].destination.host: invalid type",
        ),
        (
            "ServiceEntry",
            NETWORKING,
            json!({"hosts": ["ext.test"], "ports": [{"number": 80, "name": "a"}, {"number": 80, "name": "b"}]}),
            "ports[1]: number 80 is another port's too",
        ),
        (
            "ServiceEntry",
            NETWORKING,
            json!({"hosts": ["ext.test"], "resolution": "STATIC", "endpoints": [{"address": "name.test"}]}),
            "endpoints[0]: resolution STATIC needs addresses",
        ),
        (
            "Telemetry",
            TELEMETRY,
            json!({"selector": {"matchLabels": {"app": "a"}}, "tracing": [{}]}),
            "selector: a Telemetry for workloads",
        ),
        (
            "Telemetry",
            TELEMETRY,
            json!({"metrics": [{"providers": [{"name": "stackdriver"}]}]}),
            "metrics.providers: \"stackdriver\" is not served",
        ),
        (
            "Telemetry",
            TELEMETRY,
            json!({"metrics": [{"overrides": [{"match": {"metric": "REQUESTS"}, "disabled": true}]}]}),
            "there is no metric \"REQUESTS\"",
        ),
        (
            "Telemetry",
            TELEMETRY,
            json!({"metrics": [{"overrides": [{"tagOverrides": {"a": {"operation": "ERASE"}}}]}]}),
            "metrics[0].overrides[0].tagOverrides.a.operation: unknown variant `ERASE`",
        ),
        (
            "Telemetry",
            TELEMETRY,
            json!({"tracing": [{"randomSamplingPercentage": 101}]}),
            "tracing.randomSamplingPercentage: 101 is not between",
        ),
        (
            "Telemetry",
            TELEMETRY,
            json!({"tracing": [{"providers": [{"name": "otel"}], "customTags": {"a": {}}}]}),
            "tracing.customTags: \"a\" is none of literal",
        ),
        (
            "Telemetry",
            TELEMETRY,
            json!({"accessLogging": [{"filter": {"expression": "response.code >="}}]}),
            "accessLogging.filter.expression: \"response.code >=\" is no expression: it ends where",
        ),
        (
            "Telemetry",
            TELEMETRY,
            json!({"metrics": [{"overrides": [{"tagOverrides": {"a": {"value": "request.hots"}}}]}]}),
            "metrics.overrides.tagOverrides[a].value: \"request.hots\" is not served: request.hots",
        ),
        (
            "WorkloadEntry",
            NETWORKING,
            json!({"address": "unix:///run/it"}),
            "address: \"unix:///run/it\"",
        ),
        (
            "WorkloadEntry",
            NETWORKING,
            json!({"address": "10.0.0.1", "ports": {"http": 70000}}),
            "ports: http 70000 is no port",
        ),
        (
            "WorkloadEntry",
            NETWORKING,
            json!({"address": "10.0.0.1", "weight": "much"}),
            "weight: invalid type",
        ),
        (
            "VirtualService",
            NETWORKING,
            json!({"hosts": ["web"], "http": [{
                "fault": {"abort": {"percentage": {"value": 1.0}}},
                "route": [{"destination": {"host": "web"}}],
            }]}),
            "fault.abort",
        ),
        (
            "VirtualService",
            NETWORKING,
            json!({"hosts": ["web.shop.svc.cluster.local"], "http": [{
                "match": [{"headers": {"": {"exact": "x"}}}],
                "route": [{"destination": {"host": "web", "port": {"number": 8080}}}],
            }]}),
            "header without a name",
        ),
    ];
    for (kind, group, spec, why) in cases {
        let said = refused(kind, group, spec.clone());
        assert!(
            said.as_deref().is_some_and(|said| said.contains(why)),
            "{kind} {spec}: {said:?} is not about {why}"
        );
    }
}

#[test]
fn what_is_right_or_only_early_is_stored() {
    let cases = [
        ("AuthorizationPolicy", SECURITY, json!({})),
        // Not for node proxies, and no mistake.
        ("AuthorizationPolicy", SECURITY, json!({"action": "CUSTOM"})),
        // Who decides may come later, like a service.
        (
            "AuthorizationPolicy",
            SECURITY,
            json!({
                "targetRefs": [{"kind": "Service", "group": "", "name": "web"}],
                "action": "CUSTOM", "provider": {"name": "ask"}, "rules": [{}],
            }),
        ),
        (
            "ServiceEntry",
            NETWORKING,
            json!({
                "hosts": ["ext.test"], "resolution": "STATIC",
                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
                "endpoints": [{"address": "192.0.2.1", "ports": {"http": 8080}}],
            }),
        ),
        // A collector may come later too.
        (
            "Telemetry",
            TELEMETRY,
            json!({
                "accessLogging": [{"providers": [{"name": "envoy"}, {"name": "later"}], "filter": {"expression": "response.code >= 500"}}],
                "metrics": [{"overrides": [{"match": {"metric": "REQUEST_COUNT"}, "disabled": true}]}],
                "tracing": [{"providers": [{"name": "otel"}], "randomSamplingPercentage": 10}],
            }),
        ),
        (
            "WorkloadEntry",
            NETWORKING,
            json!({"address": "vm.test", "labels": {"app": "a"}, "ports": {"http": 8080}}),
        ),
        (
            "AuthorizationPolicy",
            SECURITY,
            json!({
                "targetRefs": [{"kind": "Gateway", "group": GATEWAY, "name": "mine"}],
                "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}],
            }),
        ),
        (
            "PeerAuthentication",
            SECURITY,
            json!({"mtls": {"mode": "STRICT"}}),
        ),
        (
            "VirtualService",
            NETWORKING,
            json!({"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews", "subset": "v1"}}]}]}),
        ),
        (
            "DestinationRule",
            NETWORKING,
            json!({"host": "*.example.com"}),
        ),
        (
            "HTTPRoute",
            GATEWAY,
            json!({
                "parentRefs": [{"kind": "Service", "group": "", "name": "web", "port": 80}],
                "rules": [{"backendRefs": [{"name": "later", "namespace": "elsewhere", "port": 80}]}],
            }),
        ),
        ("ConfigMap", "example.org", json!({"anything": 1})),
    ];
    for (kind, group, spec) in cases {
        assert_eq!(refused(kind, group, spec.clone()), None, "{kind} {spec}");
    }
}
