//! Endpoints as istiod and people write them, by way of their JSON.

use serde_json::{Value, json};

use super::*;
use crate::source::json::Descriptors;

const TYPE: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

fn read(mut json: Value) -> Result<EndpointSet, String> {
    json["@type"] = TYPE.into();
    json["cluster_name"] = "a".into();
    let any = Descriptors::get().any(json).unwrap();
    let set = endpoints("a", &any.value, &mut Notes::default());
    set.map_err(|refused| refused.to_string())
}

/// The only endpoint of an assignment.
fn one(endpoint: Value) -> Result<Endpoint, String> {
    let set = read(json!({"endpoints": [{"lb_endpoints": [endpoint]}]}))?;
    Ok(Endpoint::clone(&set.localities[0].endpoints[0]))
}

fn internal(listener: &str, id: &str, metadata: Value) -> Value {
    json!({
        "endpoint": {"address": {"envoy_internal_address": {
            "server_listener_name": listener, "endpoint_id": id,
        }}},
        "metadata": {"filter_metadata": metadata},
    })
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn an_endpoint_of_the_mesh_is_a_tunnel() {
    let endpoint = one(internal(
        "connect_originate",
        "10.244.2.2:8080",
        json!({
            "envoy.filters.listener.original_dst": {"local": "10.244.2.2:8080"},
            "istio": {"workload": "reviews-v1;bookinfo;reviews;v1;Kubernetes"},
            "envoy.transport_socket_match": {"tunnel": "http"},
        }),
    ))
    .unwrap();
    let (to, via) = (socket("10.244.2.2:8080"), socket("10.244.2.2:15008"));
    assert_eq!(endpoint.address, Address::Tunnel { to, via });
    let workload = endpoint.workload.unwrap();
    assert_eq!(&*workload.name, "reviews-v1");
    assert_eq!(&*workload.canonical_revision, "v1");
    assert_eq!(&*workload.cluster, "Kubernetes");
    assert_eq!(
        *endpoint.transport_match,
        [("tunnel".into(), "http".into())]
    );
    assert_eq!((endpoint.weight, endpoint.health), (1, Health::Healthy));
}

#[test]
fn a_waypoint_or_gateway_may_stand_before_it() {
    let endpoint = one(internal(
        "connect_originate",
        "[fd00::1]:80",
        json!({"envoy.filters.listener.original_dst": {
            "local": "[fd00::1]:80", "waypoint": "10.0.0.9:15008",
        }}),
    ))
    .unwrap();
    let (to, via) = (socket("[fd00::1]:80"), socket("10.0.0.9:15008"));
    assert_eq!(endpoint.address, Address::Tunnel { to, via });
    let endpoint = one(internal(
        "inner_connect_originate",
        "10.0.0.9:15008",
        json!({
            "envoy.filters.listener.original_dst": {"local": "10.0.0.9:15008"},
            "istio": {"double_hbone": {"hbone_target_address": "reviews.bookinfo:80"}},
        }),
    ))
    .unwrap();
    let to = "reviews.bookinfo:80".into();
    assert_eq!(endpoint.address, Address::DoubleTunnel { to, via });
}

#[test]
fn localities_stand_in_the_order_of_their_priority() {
    let endpoint = |address: &str, status: &str| {
        json!({
            "endpoint": {"address": {"socket_address": {"address": address, "port_value": 80}}},
            "health_status": status,
            "load_balancing_weight": 3,
        })
    };
    let set = read(json!({
        "endpoints": [
            {"priority": 1, "lb_endpoints": [endpoint("b.example.com", "DRAINING")]},
            {
                "locality": {"region": "r", "zone": "z"},
                "load_balancing_weight": 7,
                "lb_endpoints": [endpoint("10.0.0.1", "TIMEOUT")],
            },
        ],
        "policy": {
            "overprovisioning_factor": 100,
            "drop_overloads": [{"category": "c", "drop_percentage": {"numerator": 5}}],
        },
    }))
    .unwrap();
    let [first, second] = set.localities.as_slice() else {
        panic!("{set:?}");
    };
    assert_eq!((&*first.name, first.priority, first.weight), ("r/z/", 0, 7));
    assert_eq!(
        first.endpoints[0].address,
        Address::Socket(socket("10.0.0.1:80"))
    );
    assert_eq!(first.endpoints[0].health, Health::Unhealthy);
    assert_eq!(
        second.endpoints[0].address,
        Address::Name("b.example.com".into(), 80)
    );
    assert_eq!(second.endpoints[0].health, Health::Draining);
    assert_eq!((set.overprovisioning, set.drops.len()), (100, 1));
}

#[test]
fn what_leads_nowhere_is_refused_with_the_way_to_it() {
    let table = [
        (
            internal("somewhere", "10.0.0.1:80", json!({})),
            "server_listener_name: \"somewhere\" is no listener",
        ),
        (
            internal("connect_originate", "pod", json!({})),
            "endpoint_id: \"pod\" is no address",
        ),
        (
            internal("inner_connect_originate", "10.0.0.1:15008", json!({})),
            "hbone_target_address: must be set",
        ),
        (
            json!({"endpoint": {"address": {"pipe": {"path": "/a"}}}}),
            "pipe: pipes aren't served",
        ),
        (
            json!({"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 99999}}}}),
            "port_value: 99999 is no port",
        ),
    ];
    for (endpoint, wrong) in table {
        let told = one(endpoint.clone()).unwrap_err();
        assert!(told.starts_with("endpoints[0].lb_endpoints[0]."), "{told}");
        assert!(told.contains(wrong), "{endpoint}: {told}");
    }
    let named = read(json!({"named_endpoints": {"a": {}}})).unwrap_err();
    assert!(named.contains("named_endpoints"), "{named}");
}
