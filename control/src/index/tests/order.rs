//! Property: whatever the order of events, the snapshot is that of the final objects from scratch.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;
use super::object;
use crate::difference::Snapshot;
use crate::resource::Version;
use crate::xds::store::Store;

const NAMESPACES: [&str; 3] = ["shop", "bank", "istio-system"];
const APPS: [&str; 3] = ["a", "b", "c"];
const NODES: [&str; 2] = ["node-a", "node-b"];
const WAYPOINTS: [&str; 4] = ["", "none", "o0", "o1"];
const MODES: [&str; 4] = ["UNSET", "DISABLE", "PERMISSIVE", "STRICT"];

/// An event about one of few names, so that events meet.
fn event() -> impl Strategy<Value = Change> {
    let applied = (0..Kind::ALL.len(), 0..3usize, 0..3usize, any::<[u8; 4]>()).prop_map(
        |(kind, namespace, name, choice)| {
            object(made(
                kind,
                NAMESPACES[namespace],
                &format!("o{name}"),
                choice,
            ))
        },
    );
    let removed = (0..Kind::ALL.len(), 0..3usize, 0..3usize).prop_map(|(kind, namespace, name)| {
        let kind = Kind::ALL[kind];
        let key = match kind {
            Kind::Namespace => Key::new("", NAMESPACES[namespace]),
            Kind::Node => Key::new("", NODES[name % 2]),
            Kind::GatewayClass => Key::new("", "istio-waypoint"),
            Kind::MeshConfig => Key::new("istio-system", "istio"),
            _ => Key::new(NAMESPACES[namespace], format!("o{name}")),
        };
        Change::Removed(kind, key)
    });
    prop_oneof![4 => applied, 1 => removed]
}

fn replica(mut meta: Value, waypoint: &str) -> Value {
    meta["labels"]["gateway.networking.k8s.io/gateway-name"] = waypoint.into();
    meta
}

fn made(kind: usize, namespace: &str, name: &str, choice: [u8; 4]) -> Value {
    let pick = |from: &[&str], at: usize| from[usize::from(choice[at]) % from.len()].to_owned();
    let mut labels = json!({"app": pick(&APPS, 0)});
    if !pick(&WAYPOINTS, 3).is_empty() {
        labels["istio.io/use-waypoint"] = pick(&WAYPOINTS, 3).into();
    }
    let meta = json!({"name": name, "namespace": namespace, "labels": labels});
    let selector = match choice[1] % 3 {
        0 => Value::Null,
        1 => json!({"matchLabels": {}}),
        _ => json!({"matchLabels": {"app": pick(&APPS, 0)}}),
    };
    match Kind::ALL[kind] {
        Kind::Namespace => {
            let annotations = json!({"networking.istio.io/traffic-distribution": pick(&["PreferClose", "PreferSameNode"], 0)});
            json!({"kind": "Namespace", "metadata": {"name": namespace, "annotations": annotations, "labels": labels}})
        }
        Kind::Node => {
            let labels = json!({"topology.kubernetes.io/zone": pick(&["x", "y", ""], 0)});
            json!({"kind": "Node", "metadata": {"name": NODES[usize::from(choice[1]) % 2], "labels": labels}})
        }
        Kind::Pod => json!({
            "kind": "Pod",
            // Every other one may be a waypoint's replica.
            "metadata": if choice[0].is_multiple_of(2) { replica(meta, &pick(&["o0", "o1"], 1)) } else { meta },
            "spec": {"serviceAccountName": if choice[0].is_multiple_of(2) { pick(&["o0", "o1"], 1) } else { pick(&["x", "y"], 3) }, "nodeName": pick(&["node-a", "node-b", ""], 1), "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8000 + i32::from(choice[3])}]}]},
            "status": {"podIPs": if choice[2].is_multiple_of(4) { json!([]) } else { json!([{"ip": format!("10.0.0.{}", choice[2])}]) }},
        }),
        Kind::Service => {
            let selector = if choice[1].is_multiple_of(3) {
                Value::Null
            } else {
                json!({"app": pick(&APPS, 0)})
            };
            let target = if choice[2].is_multiple_of(2) {
                json!("web")
            } else {
                json!(8080)
            };
            let spec = json!({"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": target}]});
            json!({"kind": "Service", "metadata": meta, "spec": spec})
        }
        Kind::EndpointSlice => json!({
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": pick(&["o0", "o1"], 0)}},
            "addressType": "IPv4",
            "ports": [{"name": pick(&["http", "other"], 1), "port": 8080}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "namespace": namespace, "name": pick(&["o0", "o1", "o2"], 2)}},
                {"addresses": [format!("203.0.113.{}", choice[3])]},
            ],
        }),
        Kind::AuthorizationPolicy => json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"action": pick(&["ALLOW", "DENY", "AUDIT", "CUSTOM"], 2), "provider": {"name": "ask"}, "selector": if choice[0].is_multiple_of(2) { selector } else { Value::Null }, "targetRefs": if choice[0].is_multiple_of(2) { json!([]) } else { json!([{"kind": "Service", "name": "o0"}]) }, "rules": [{"to": [{"operation": {"ports": [choice[3].max(1).to_string()]}}]}]},
        }),
        Kind::GatewayClass => json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": "istio-waypoint", "labels": {"istio.io/waypoint-for": pick(&["all", "service"], 0)}},
            "spec": {"controllerName": "istio.io/mesh-controller"},
        }),
        Kind::Gateway => {
            let allowed = match choice[1] % 3 {
                0 => json!({"from": "All"}),
                1 => {
                    json!({"from": "Selector", "selector": {"matchLabels": {"app": pick(&APPS, 2)}}})
                }
                _ => json!({"from": "Same"}),
            };
            let mut meta = json!({"name": name, "namespace": namespace});
            if choice[0].is_multiple_of(3) {
                meta["annotations"] = json!({"istio.io/for-service-account": pick(&["x", "y"], 1)});
            }
            if choice[0].is_multiple_of(2) {
                meta["labels"] = json!({"istio.io/waypoint-for": pick(&["all", "service", "workload", "none"], 2)});
            }
            let addresses = if choice[2].is_multiple_of(4) {
                json!([])
            } else {
                json!([{"type": "IPAddress", "value": "10.9.9.9"}])
            };
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": meta,
                "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": {"namespaces": allowed}}]},
                "status": {"addresses": addresses},
            })
        }
        Kind::ServiceEntry => {
            let resolution = pick(&["NONE", "STATIC", "DNS", "DYNAMIC_DNS"], 2);
            let of_request = resolution == "DYNAMIC_DNS";
            let first = [
                "e.test",
                "o0.shop.svc.cluster.local",
                "*.wild.test",
                "short",
            ];
            let hosts = match of_request {
                true => json!(["*.wild.test"]),
                false => json!([pick(&first, 0), pick(&["e.test", "f.test"], 1)]),
            };
            let mut spec = json!({
                "hosts": hosts,
                "resolution": resolution,
                "ports": [{"number": 80, "name": "web", "protocol": "HTTP"}],
                "exportTo": if choice[3].is_multiple_of(3) { json!(["."]) } else { json!([]) },
            });
            if choice[1].is_multiple_of(2) && resolution != "NONE" && !of_request {
                spec["endpoints"] =
                    json!([{"address": format!("203.0.113.{}", choice[3]), "labels": labels}]);
            } else if choice[1].is_multiple_of(3) {
                spec["workloadSelector"] = json!({"labels": {"app": pick(&APPS, 3)}});
            }
            let mut meta = meta;
            meta["creationTimestamp"] = format!("2026-01-01T00:00:0{}Z", choice[0] % 4).into();
            json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": meta, "spec": spec})
        }
        Kind::MeshConfig => {
            let mesh = format!(
                "extensionProviders: [{{name: ask, envoyExtAuthzGrpc: {{service: {name}.{namespace}.svc.cluster.local, port: 80}}}}]"
            );
            json!({"kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": mesh}})
        }
        Kind::WorkloadEntry => {
            let address = if choice[2].is_multiple_of(4) {
                "vm.test".to_owned()
            } else {
                format!("198.51.100.{}", choice[2])
            };
            let spec = json!({
                "address": address, "labels": {"app": pick(&APPS, 1)}, "serviceAccount": pick(&["x", "y"], 3),
                "ports": {"web": 8000 + i32::from(choice[3])}, "weight": choice[1] % 3,
            });
            json!({"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": meta, "spec": spec})
        }
        kind @ (Kind::VirtualService
        | Kind::DestinationRule
        | Kind::RequestAuthentication
        | Kind::Telemetry
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TcpRoute
        | Kind::TlsRoute
        | Kind::ReferenceGrant) => {
            json!({"apiVersion": "x/v1", "kind": kind.name(), "metadata": meta, "spec": routing(kind, namespace, choice)})
        }
        Kind::PeerAuthentication => {
            let ports = json!({"80": {"mode": pick(&MODES, 3)}});
            let spec = if choice[1] % 3 == 2 {
                json!({"selector": selector, "mtls": {"mode": pick(&MODES, 2)}, "portLevelMtls": ports})
            } else {
                json!({"mtls": {"mode": pick(&MODES, 2)}})
            };
            json!({
                "apiVersion": "security.istio.io/v1",
                "kind": "PeerAuthentication",
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": format!("2026-01-01T00:00:0{}Z", choice[0] % 4)},
                "spec": spec,
            })
        }
    }
}

fn routing(kind: Kind, namespace: &str, choice: [u8; 4]) -> Value {
    let service = format!("o{}", choice[1] % 3);
    let there = NAMESPACES[usize::from(choice[2]) % 3];
    let host = match choice[3] % 3 {
        0 => "e.test".to_owned(),
        _ => format!("{service}.{there}.svc.cluster.local"),
    };
    let targets = json!([{"kind": "Service", "name": service}]);
    let backends = json!([{"name": service, "namespace": there, "port": 80, "weight": choice[3]}]);
    let parents = json!([{"group": "", "kind": "Service", "name": format!("o{}", choice[0] % 3), "namespace": namespace}]);
    match kind {
        Kind::VirtualService if choice[0].is_multiple_of(3) => {
            json!({"http": [{"timeout": "2s", "route": [{"destination": {"host": host}}]}]})
        }
        Kind::VirtualService => json!({
            "hosts": ["o0", "o1", "e.test"],
            "http": [
                {"match": [{"uri": {"prefix": format!("/{}", choice[3])}}], "delegate": {"name": service, "namespace": there}},
                {"route": [{"destination": {"host": host, "subset": "v1"}}], "fault": {"abort": {"httpStatus": 503, "percentage": {"value": 1}}}},
            ],
        }),
        Kind::DestinationRule => json!({
            "host": service,
            "trafficPolicy": {
                "connectionPool": {"tcp": {"maxConnections": choice[3]}},
                "outlierDetection": {}, "loadBalancer": {"localityLbSetting": {"enabled": choice[2].is_multiple_of(2)}},
            },
            "subsets": [{"name": "v1", "labels": {"app": APPS[usize::from(choice[0]) % 3]}}],
        }),
        Kind::RequestAuthentication => {
            json!({"targetRefs": targets, "jwtRules": [{"issuer": service, "jwks": "{}"}]})
        }
        Kind::Telemetry => json!({"accessLogging": [{"disabled": choice[0].is_multiple_of(2)}]}),
        Kind::ReferenceGrant => {
            json!({"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": there}], "to": [{"group": "", "kind": "Service"}]})
        }
        _ => json!({"parentRefs": parents, "rules": [{"backendRefs": backends}]}),
    }
}

/// Everything that each waypoint has.
fn of_waypoints(index: &mut Index, stores: &mut BTreeMap<Seat, Store>) {
    let (updates, gone) = index.take_l7();
    for key in gone {
        stores.remove(&key);
    }
    for (key, updates) in updates {
        stores.entry(key).or_default().apply(updates);
    }
}

/// Names and versions: the hash of the content.
fn versions(stores: &BTreeMap<Seat, Store>) -> Vec<(String, String, Version)> {
    let mut all = Vec::new();
    for (key, store) in stores {
        for kind in ResourceType::WAYPOINT {
            for resource in store
                .collection(kind)
                .into_iter()
                .flat_map(|collection| collection.iter())
            {
                all.push((
                    format!("{key:?}"),
                    resource.name.to_string(),
                    resource.version,
                ));
            }
        }
    }
    all
}

fn key_of(change: &Change) -> (Kind, Key) {
    match change {
        Change::Applied(object) => (object.kind(), object.key()),
        Change::Removed(kind, key) => (*kind, key.clone()),
    }
}

fn snapshot(store: &Store) -> Snapshot {
    Snapshot::of(store).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_and_grouping_of_events_does_not_matter(events in proptest::collection::vec((event(), any::<bool>()), 1..60)) {
        let (mut index, mut store) = (Index::new(Mesh::default()), Store::default());
        let mut waypoints = BTreeMap::new();
        let mut last: BTreeMap<(Kind, Key), Change> = BTreeMap::new();
        for (event, flush) in events {
            last.insert(key_of(&event), event.clone());
            index.apply(event);
            if flush {
                store.apply(index.recompute());
                of_waypoints(&mut index, &mut waypoints);
            }
        }
        store.apply(index.recompute());
        of_waypoints(&mut index, &mut waypoints);

        let (mut scratch, mut fresh) = (Index::new(Mesh::default()), Store::default());
        for change in last.into_values().rev().filter(|change| matches!(change, Change::Applied(_))) {
            scratch.apply(change);
        }
        fresh.apply(scratch.recompute());
        let mut from_scratch = BTreeMap::new();
        of_waypoints(&mut scratch, &mut from_scratch);
        prop_assert_eq!(versions(&waypoints), versions(&from_scratch));
        prop_assert_eq!(snapshot(&store), snapshot(&fresh));
        prop_assert_eq!(index.l7.problems(), scratch.l7.problems());
    }

    #[test]
    fn a_waypoint_that_has_nothing_of_a_namespace_hears_nothing_of_it(events in proptest::collection::vec(event(), 1..60)) {
        let mut index = Index::new(Mesh::default());
        for event in events {
            let (kind, key) = key_of(&event);
            let before = index.l7.near(&key.namespace);
            index.apply(event);
            index.recompute();
            let near: BTreeSet<Key> = index.l7.near(&key.namespace).into_iter().chain(before).collect();
            let (updates, _) = index.take_l7();
            // What is of no namespace or of the root's concerns all; a host may be another's elsewhere,
            // and a grant lets others in.
            let concerns_all = key.namespace.is_empty() || *key.namespace == *index.mesh.root_namespace;
            let others = [Kind::Service, Kind::ServiceEntry, Kind::ReferenceGrant];
            if !concerns_all && !others.contains(&kind) {
                for waypoint in updates.keys().map(|seat| &seat.waypoint) {
                    prop_assert!(near.contains(waypoint), "{waypoint} by {kind:?} {key}");
                }
            }
        }
    }
}
