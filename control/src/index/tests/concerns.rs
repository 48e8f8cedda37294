//! One changed object recomputes the waypoints that depend on it and no others: event by event in a
//! table, and for any events as a property (`order`). Long because the table has a line for each event.

use super::super::*;
use super::object;
use serde_json::{Value, json};

fn istio(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

fn security(kind: &str, namespace: &str, spec: Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"name": "p", "namespace": namespace}, "spec": spec})
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn service(namespace: &str, name: &str, port: u16, labels: Value) -> Value {
    let spec = json!({"clusterIP": "10.96.0.1", "selector": {"app": name}, "ports": [{"name": "http", "port": port}]});
    json!({"kind": "Service", "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec})
}

fn pod(namespace: &str, app: &str, address: &str, version: &str, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({
        "kind": "Pod",
        "metadata": {"name": format!("{app}-1"), "namespace": namespace, "labels": {"app": app, "version": version}},
        "spec": {"serviceAccountName": app, "nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": address}], "conditions": [{"type": "Ready", "status": ready}]},
    })
}

fn gateway(namespace: &str, name: &str, meta: Value, address: &str) -> Value {
    let mut metadata = json!({"name": name, "namespace": namespace});
    for (key, value) in meta.as_object().unwrap() {
        metadata[key] = value.clone();
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata,
        "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": {"namespaces": {"from": "All"}}}]},
        "status": {"addresses": [{"type": "IPAddress", "value": address}]},
    })
}

fn virtual_service(namespace: &str, host: &str, to: &str, extra: Value) -> Value {
    let mut spec = json!({"hosts": [host], "http": [{"route": [{"destination": {"host": to}}]}]});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    istio("VirtualService", namespace, "v", spec)
}

fn rule(namespace: &str, host: &str, extra: Value) -> Value {
    let mut spec = json!({"host": host, "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    istio("DestinationRule", namespace, "d", spec)
}

fn route(namespace: &str, parent: &str, backend: &str, there: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": namespace},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": parent}],
            "rules": [{"backendRefs": [{"name": backend, "namespace": there, "port": 80}]}],
        },
    })
}

/// Two waypoints in `shop`: `w` for services a and b, `x` for c; `bank/w` for services d and, of another
/// namespace, shop/e. Nobody serves shop/f. VirtualServices lead from a to bank/d and to a delegate in
/// `ops`, and from d to shop/f.
fn world() -> Index {
    let mut index = Index::new(Mesh::default());
    let none = || json!({});
    let uses = |name: &str, namespace: &str| json!({"istio.io/use-waypoint": name, "istio.io/use-waypoint-namespace": namespace});
    let at_e = json!({"http": [{"match": [{"uri": {"prefix": "/x"}}], "delegate": {"name": "part", "namespace": "ops"}}, {"route": [{"destination": {"host": "d.bank.svc.cluster.local"}}]}]});
    for value in [
        namespace("shop", none()),
        namespace("bank", none()),
        namespace("ops", none()),
        json!({"kind": "Node", "metadata": {"name": "n1"}}),
        gateway("shop", "w", none(), "10.9.0.1"),
        gateway("shop", "x", none(), "10.9.0.2"),
        gateway("bank", "w", none(), "10.9.0.3"),
        service("shop", "a", 80, uses("w", "shop")),
        service("shop", "b", 80, uses("w", "shop")),
        service("shop", "c", 80, uses("x", "shop")),
        service("shop", "e", 80, uses("w", "bank")),
        service("shop", "f", 80, none()),
        service("bank", "d", 80, uses("w", "bank")),
        pod("shop", "a", "10.0.0.1", "v1", true),
        pod("shop", "f", "10.0.0.2", "v1", true),
        virtual_service("shop", "a", "a", at_e),
        virtual_service("bank", "d", "f.shop.svc.cluster.local", none()),
    ] {
        index.apply(object(value));
    }
    index.recompute();
    index.take_l7();
    index
}

/// Who is recomputed: `shop/w`, or `shop/w endpoints` where it is the endpoints alone.
fn recomputed(index: &mut Index) -> Vec<String> {
    index.recompute();
    let (updates, gone) = index.take_l7();
    let made = updates.into_iter().map(|(key, updates)| {
        let endpoints = updates
            .iter()
            .all(|one| one.kind == ResourceType::Endpoints);
        let key = key.waypoint;
        format!("{key}{}", if endpoints { " endpoints" } else { "" })
    });
    made.chain(gone.into_iter().map(|key| format!("{} gone", key.waypoint)))
        .collect()
}

#[test]
fn an_event_recomputes_the_waypoints_it_can_change_and_no_others() {
    let none = || json!({});
    let only = |to: &str| json!({"exportTo": [to]});
    let targets = |kind: &str, name: &str| {
        let group = if kind == "Service" {
            ""
        } else {
            "gateway.networking.k8s.io"
        };
        json!({"targetRefs": [{"group": group, "kind": kind, "name": name}]})
    };
    let with = |mut spec: Value, key: &str, value: Value| {
        spec[key] = value;
        spec
    };
    let jwt = |spec: Value| {
        with(
            spec,
            "jwtRules",
            json!([{"issuer": "me", "jwks": "{\"keys\":[]}"}]),
        )
    };
    let logs = |spec: Value| with(spec, "accessLogging", json!([{}]));
    let delegate = istio(
        "VirtualService",
        "ops",
        "part",
        json!({"http": [{"route": [{"destination": {"host": "a.shop.svc.cluster.local"}}]}]}),
    );
    let telemetry = |namespace: &str, spec: Value| istio("Telemetry", namespace, "t", logs(spec));
    let grant = |namespace: &str| {
        let from = json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"}]);
        json!({"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant", "metadata": {"name": "g", "namespace": namespace}, "spec": {"from": from, "to": [{"group": "", "kind": "Service"}]}})
    };
    let slice = |service: &str, address: Option<&str>| {
        let endpoints: Vec<Value> = address
            .iter()
            .map(|address| json!({"addresses": [address]}))
            .collect();
        json!({
            "kind": "EndpointSlice", "metadata": {"name": "s", "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 80}], "endpoints": endpoints,
        })
    };
    let status = json!({"labels": {"x": "y"}, "resourceVersion": "77"});
    let table: Vec<(&str, Value, &[&str])> = vec![
        (
            "the same again",
            service(
                "shop",
                "a",
                80,
                json!({"istio.io/use-waypoint": "w", "istio.io/use-waypoint-namespace": "shop"}),
            ),
            &[],
        ),
        // The routing API: by the hosts that a waypoint serves.
        (
            "a VirtualService of c",
            virtual_service("shop", "c", "c", none()),
            &["shop/w", "shop/x"],
        ),
        (
            "of a service without a waypoint",
            istio("VirtualService", "shop", "new", json!({"hosts": ["f"]})),
            &[],
        ),
        (
            "of a host under a wildcard",
            istio(
                "VirtualService",
                "shop",
                "new",
                json!({"hosts": ["*.shop.svc.cluster.local"]}),
            ),
            &["bank/w", "shop/w", "shop/x"],
        ),
        (
            "of a waypoint's namespace for another's service",
            istio(
                "VirtualService",
                "bank",
                "new",
                json!({"hosts": ["e.shop.svc.cluster.local"]}),
            ),
            &["bank/w"],
        ),
        (
            "of a namespace that is neither",
            istio(
                "VirtualService",
                "ops",
                "new",
                json!({"hosts": ["a.shop.svc.cluster.local"]}),
            ),
            &[],
        ),
        (
            "for gateways at the edge",
            virtual_service("shop", "a", "a", json!({"gateways": ["edge"]})),
            &["shop/w"],
        ),
        (
            "for gateways at the edge, a new one",
            istio(
                "VirtualService",
                "shop",
                "new",
                json!({"hosts": ["a"], "gateways": ["edge"]}),
            ),
            &[],
        ),
        (
            "exported elsewhere",
            istio(
                "VirtualService",
                "shop",
                "new",
                json!({"hosts": ["a"], "exportTo": ["ops"]}),
            ),
            &[],
        ),
        ("a delegate that comes", delegate, &["shop/w"]),
        (
            "a delegate that nobody names",
            istio("VirtualService", "ops", "other", json!({"http": []})),
            &[],
        ),
        // DestinationRules: by the services that it looked at.
        ("a rule of a", rule("shop", "a", none()), &["shop/w"]),
        (
            "of d, to which a's route leads",
            rule("bank", "d", none()),
            &["bank/w", "shop/w"],
        ),
        ("of d, private", rule("bank", "d", only(".")), &["bank/w"]),
        (
            "of f, to which d's route leads",
            rule("shop", "f", none()),
            &["bank/w"],
        ),
        (
            "of the root for all of shop",
            rule("istio-system", "*.shop.svc.cluster.local", none()),
            &["bank/w", "shop/w", "shop/x"],
        ),
        (
            "of a waypoint's namespace for what it looked at",
            rule("bank", "f.shop.svc.cluster.local", none()),
            &["bank/w"],
        ),
        (
            "of a third namespace",
            rule("ops", "a.shop.svc.cluster.local", none()),
            &[],
        ),
        // Policies: by what they are attached to.
        (
            "a policy of service a",
            security("AuthorizationPolicy", "shop", targets("Service", "a")),
            &["shop/w"],
        ),
        (
            "of service e",
            security("AuthorizationPolicy", "shop", targets("Service", "e")),
            &["bank/w"],
        ),
        (
            "of service f",
            security("AuthorizationPolicy", "shop", targets("Service", "f")),
            &[],
        ),
        (
            "of waypoint x",
            security("AuthorizationPolicy", "shop", targets("Gateway", "x")),
            &["shop/x"],
        ),
        (
            "of all waypoints",
            security(
                "AuthorizationPolicy",
                "istio-system",
                targets("GatewayClass", "istio-waypoint"),
            ),
            &["bank/w", "shop/w", "shop/x"],
        ),
        (
            "of pods",
            security(
                "AuthorizationPolicy",
                "shop",
                json!({"selector": {"matchLabels": {"app": "a"}}}),
            ),
            &[],
        ),
        (
            "of x's pods, in the older form",
            security(
                "AuthorizationPolicy",
                "shop",
                json!({"selector": {"matchLabels": {"gateway.networking.k8s.io/gateway-name": "x"}}}),
            ),
            &["shop/x"],
        ),
        (
            "tokens for c",
            security(
                "RequestAuthentication",
                "shop",
                jwt(targets("Service", "c")),
            ),
            &["shop/x"],
        ),
        (
            "tokens for bank's waypoint",
            security(
                "RequestAuthentication",
                "bank",
                jwt(targets("Gateway", "w")),
            ),
            &["bank/w"],
        ),
        (
            "logs of shop, one of whose services bank's waypoint serves",
            telemetry("shop", none()),
            &["bank/w", "shop/w", "shop/x"],
        ),
        (
            "logs of a service",
            telemetry("shop", targets("Service", "e")),
            &["bank/w"],
        ),
        (
            "logs of x",
            telemetry("shop", targets("Gateway", "x")),
            &["shop/x"],
        ),
        (
            "logs of the mesh",
            telemetry("istio-system", none()),
            &["bank/w", "shop/w", "shop/x"],
        ),
        (
            "logs of a sidecar",
            telemetry("shop", json!({"selector": {"matchLabels": {"app": "a"}}})),
            &[],
        ),
        (
            "mutual TLS",
            security(
                "PeerAuthentication",
                "shop",
                json!({"mtls": {"mode": "STRICT"}}),
            ),
            &[],
        ),
        // The Gateway API: by the parents; a grant by who asked for it.
        ("a route of c", route("shop", "c", "d", "bank"), &["shop/x"]),
        ("a route of f", route("shop", "f", "a", "shop"), &[]),
        ("a grant that nobody asked for", grant("bank"), &[]),
        // Services and their endpoints: by who looked at them.
        (
            "a port of d",
            service("bank", "d", 81, json!({"istio.io/use-waypoint": "w"})),
            &["bank/w", "shop/w"],
        ),
        (
            "a port of c",
            service("shop", "c", 81, json!({"istio.io/use-waypoint": "x"})),
            &["shop/x"],
        ),
        (
            "a service that nobody knows",
            service("shop", "new", 80, none()),
            &[],
        ),
        (
            "b goes from w to x",
            service("shop", "b", 80, json!({"istio.io/use-waypoint": "x"})),
            &["shop/w", "shop/x"],
        ),
        (
            "a's pod is not ready",
            pod("shop", "a", "10.0.0.1", "v1", false),
            &["shop/w endpoints"],
        ),
        (
            "f's pod has another address",
            pod("shop", "f", "10.0.0.3", "v1", true),
            &["bank/w endpoints"],
        ),
        (
            "f's pod has another label",
            pod("shop", "f", "10.0.0.2", "v2", true),
            &["bank/w endpoints"],
        ),
        (
            "a pod of nobody's",
            pod("shop", "c2", "10.0.0.4", "v1", true),
            &[],
        ),
        ("a slice of pods", slice("a", None), &[]),
        (
            "a slice with a bare address",
            slice("a", Some("203.0.113.1")),
            &["shop/w endpoints"],
        ),
        (
            "a slice of b",
            slice("b", Some("203.0.113.1")),
            &["shop/w endpoints"],
        ),
        (
            "the node's zone",
            json!({"kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}}),
            &["bank/w endpoints", "shop/w endpoints"],
        ),
        (
            "a node with nobody on it",
            json!({"kind": "Node", "metadata": {"name": "n2", "labels": {"topology.kubernetes.io/zone": "z"}}}),
            &[],
        ),
        (
            "a label of a namespace that says nothing",
            namespace("shop", json!({"x": "y"})),
            &[],
        ),
        (
            "shop's own waypoint for who says nothing",
            namespace("shop", json!({"istio.io/use-waypoint": "x"})),
            &["shop/x"],
        ),
        // Gateways: themselves and their users.
        (
            "a Gateway's status",
            gateway("shop", "w", status, "10.9.0.1"),
            &[],
        ),
        (
            "a Gateway's address",
            gateway("shop", "w", none(), "10.9.0.7"),
            &[],
        ),
        (
            "a new Gateway",
            gateway("shop", "y", none(), "10.9.0.4"),
            &["shop/y"],
        ),
        (
            "a new Gateway in the form of 1.18",
            gateway(
                "shop",
                "f",
                json!({"annotations": {"istio.io/for-service-account": "f"}}),
                "10.9.0.4",
            ),
            &["shop/f"],
        ),
    ];
    for (what, value, expected) in table {
        let mut index = world();
        index.apply(object(value));
        assert_eq!(recomputed(&mut index), expected, "{what}");
    }
}

#[test]
fn a_grant_concerns_the_routes_that_asked_for_it_and_a_service_those_that_name_it() {
    let mut index = world();
    let index = &mut index;
    let grant = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant", "metadata": {"name": "g", "namespace": "bank"},
        "spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"}], "to": [{"group": "", "kind": "Service"}]},
    });
    let said = |index: &mut Index| {
        let wishes = index.take_wishes().into_iter();
        let of_route = wishes.filter(|wish| wish.kind == Kind::HttpRoute);
        let messages: Vec<String> = of_route.map(|wish| wish.verdict.message).collect();
        messages.concat()
    };
    // Nobody serves f: the route's status is right all the same.
    for (parent, served) in [("c", ["shop/x"].as_slice()), ("f", &[])] {
        index.apply(object(route("shop", parent, "later", "bank")));
        recomputed(index);
        assert!(said(index).contains("RefNotPermitted"), "{parent}");
        index.apply(object(grant.clone()));
        assert_eq!(recomputed(index), served, "{parent}");
        assert!(said(index).contains("BackendNotFound"), "{parent}");
        index.apply(object(service("bank", "later", 80, json!({}))));
        assert_eq!(recomputed(index), served, "{parent}");
        assert_eq!(said(index), "in force at waypoints", "{parent}");
        index.apply(Change::Removed(Kind::Service, Key::new("bank", "later")));
        index.apply(Change::Removed(Kind::ReferenceGrant, Key::new("bank", "g")));
        recomputed(index);
    }
}

#[test]
fn one_services_endpoints_are_made_without_the_others() {
    let mut index = world();
    index.apply(object(pod("shop", "a", "10.0.0.1", "v1", false)));
    index.recompute();
    let (updates, _) = index.take_l7();
    let names: Vec<&str> = updates
        .iter()
        .filter(|(seat, _)| seat.waypoint == Key::new("shop", "w"))
        .flat_map(|(_, updates)| updates)
        .map(|one| &*one.name)
        .collect();
    assert!(
        !names.is_empty()
            && names
                .iter()
                .all(|name| name.ends_with("|a.shop.svc.cluster.local")),
        "{names:?}"
    );
}

#[test]
fn the_mesh_configuration_concerns_where_a_policy_asks() {
    let mut index = world();
    let index = &mut index;
    let target = json!([{"kind": "Service", "name": "c"}]);
    let asks = json!({"targetRefs": target, "action": "CUSTOM", "provider": {"name": "ask"}, "rules": [{}]});
    index.apply(object(security("AuthorizationPolicy", "shop", asks)));
    assert_eq!(recomputed(index), ["shop/x"]);
    let said = |index: &mut Index| {
        let wishes = index.take_wishes().into_iter();
        let of_policy = wishes.filter(|wish| wish.kind == Kind::AuthorizationPolicy);
        of_policy
            .map(|wish| wish.verdict.message)
            .collect::<String>()
    };
    let nobody = said(index);
    assert!(nobody.contains("no such extension provider"), "{nobody}");
    let config = |mesh: &str| {
        object(
            json!({"kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": mesh}}),
        )
    };
    let provider = "extensionProviders: [{name: ask, envoyExtAuthzGrpc: {service: f.shop.svc.cluster.local, port: 80}}]";
    index.apply(config(provider));
    assert_eq!(recomputed(index), ["shop/x"]);
    assert_eq!(said(index), "in force at waypoints");
    index.apply(config(&format!(
        "{provider}\nrootNamespace: istio-system\n"
    )));
    assert_eq!(recomputed(index), [] as [&str; 0], "of no concern");
    // Nobody asks over HTTP about opaque connections.
    let uses = json!({"istio.io/use-waypoint": "x", "istio.io/use-waypoint-namespace": "shop"});
    let mut opaque = service("shop", "c", 80, uses);
    opaque["spec"]["ports"][0]["name"] = json!("tcp");
    index.apply(object(opaque));
    recomputed(index);
    assert_eq!(said(index), "");
    let over_http = provider.replace("Grpc", "Http");
    index.apply(config(&over_http));
    assert_eq!(recomputed(index), ["shop/x"]);
    let opaque = said(index);
    assert!(
        opaque.contains("only one with envoyExtAuthzGrpc"),
        "{opaque}"
    );
    index.apply(config(provider));
    assert_eq!(recomputed(index), ["shop/x"]);
    assert_eq!(said(index), "in force at waypoints");
    index.apply(config("extensionProviders: 7"));
    assert_eq!(
        recomputed(index),
        [] as [&str; 0],
        "the last good one stays"
    );
    // Who is asked is looked at like any destination.
    index.apply(object(pod("shop", "f", "10.0.0.9", "v1", true)));
    assert_eq!(recomputed(index), ["bank/w endpoints", "shop/x endpoints"]);
    index.apply(Change::Removed(Kind::Service, Key::new("shop", "f")));
    assert_eq!(recomputed(index), ["bank/w", "shop/x"]);
    let gone = said(index);
    assert!(gone.contains("no service f.shop"), "{gone}");
}

#[test]
fn the_mesh_configuration_concerns_where_requests_are_logged() {
    let mut index = world();
    let index = &mut index;
    let spec = json!({
        "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "x"}],
        "accessLogging": [{"providers": [{"name": "short"}]}],
    });
    index.apply(object(istio("Telemetry", "shop", "t", spec)));
    let spans = json!({"tracing": [{"providers": [{"name": "otel"}]}]});
    index.apply(object(istio("Telemetry", "bank", "t", spans)));
    recomputed(index);
    let config = |format: &str| {
        let mesh = format!(
            "extensionProviders: [{{name: short, envoyFileAccessLog: {{logFormat: {{text: '{format}'}}}}}}]"
        );
        object(
            json!({"kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": mesh}}),
        )
    };
    let said = |index: &mut Index| {
        let wishes = index.take_wishes().into_iter();
        let own = wishes.filter(|wish| *wish.source.key.namespace == *"shop");
        own.map(|wish| wish.verdict.message).collect::<String>()
    };
    let nobody = said(index);
    assert!(nobody.contains("no envoyFileAccessLog"), "{nobody}");
    index.apply(config("%PROTOCOL%"));
    assert_eq!(recomputed(index), ["shop/x"]);
    assert_eq!(said(index), "in force at waypoints");
    index.apply(config("%DURATION%"));
    assert_eq!(recomputed(index), ["shop/x"]);
    index.apply(config("%DURATION%"));
    assert!(recomputed(index).is_empty(), "the same again");
}

#[test]
fn what_the_mesh_configuration_says_of_telemetry_concerns_every_waypoint() {
    let mut index = world();
    let index = &mut index;
    let config = |mesh: &str| {
        object(
            json!({"kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": mesh}}),
        )
    };
    recomputed(index);
    for mesh in [
        "accessLogFile: /dev/stdout",
        "{accessLogFile: /dev/stdout, accessLogFormat: '%PROTOCOL%'}",
        "defaultProviders: {accessLogging: [envoy]}",
        "enableTracing: false",
        "defaultConfig: {tracing: {sampling: 7}}",
        "",
    ] {
        index.apply(config(mesh));
        assert_eq!(recomputed(index), ["bank/w", "shop/w", "shop/x"], "{mesh}");
        index.apply(config(mesh));
        assert!(recomputed(index).is_empty(), "{mesh}, again");
    }
    // A default provider's service is looked at like any destination.
    let tracer = "extensionProviders: [{name: otel, zipkin: {service: f.shop.svc.cluster.local, port: 80}}]\ndefaultProviders: {tracing: [otel]}";
    index.apply(config(tracer));
    recomputed(index);
    let object = (Kind::MeshConfig, Key::new("istio-system", "istio"));
    assert!(!index.l7.problems().contains_key(&object));
    index.apply(Change::Removed(Kind::Service, Key::new("shop", "f")));
    assert_eq!(recomputed(index), ["bank/w", "shop/w", "shop/x"]);
    let said = index.l7.problems().remove(&object).unwrap();
    let said: Vec<&String> = said.iter().collect();
    assert_eq!(
        said,
        [
            "tracing.providers: \"otel\": no service f.shop.svc.cluster.local with port 80 is known; nothing is traced"
        ]
    );
}

#[test]
fn the_mesh_configuration_concerns_where_spans_are_told() {
    let mut index = world();
    let index = &mut index;
    let spec = json!({
        "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "x"}],
        "tracing": [{"providers": [{"name": "otel"}]}],
    });
    index.apply(object(istio("Telemetry", "shop", "t", spec)));
    assert_eq!(recomputed(index), ["shop/x"]);
    let said = |index: &mut Index| {
        let wishes = index.take_wishes().into_iter();
        let of_telemetry = wishes.filter(|wish| wish.kind == Kind::Telemetry);
        of_telemetry
            .map(|wish| wish.verdict.message)
            .collect::<String>()
    };
    let nobody = said(index);
    assert!(
        nobody.contains("\"otel\": the mesh configuration"),
        "{nobody}"
    );
    let config =
        "extensionProviders: [{name: otel, zipkin: {service: f.shop.svc.cluster.local, port: 80}}]";
    index.apply(object(json!({
        "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": config},
    })));
    assert_eq!(recomputed(index), ["shop/x"]);
    assert_eq!(said(index), "in force at waypoints");
    index.apply(Change::Removed(Kind::Service, Key::new("shop", "f")));
    assert_eq!(recomputed(index), ["bank/w", "shop/x"]);
    let gone = said(index);
    assert!(gone.contains("no service f.shop"), "{gone}");
}
