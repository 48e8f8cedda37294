//! What a configuration costs on the heap: bytes for each route, endpoint and service that is in
//! force, and how much more it takes while a push is compiled. The program's memory grows by it.
#![expect(clippy::unwrap_used, reason = "a test ends where its data is wrong")]

#[path = "memory/counting.rs"]
mod counting;

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use counting::{Cost, cost};
use serde_json::{Value, json};
use waypoint::model::listener::ListenerKind;
use waypoint::model::snapshot::Current;
use waypoint::source::envoy::Envoy;
use waypoint::source::json::Descriptors;
use waypoint::source::kind::Kind;
use waypoint::source::secret::Secrets;
use waypoint::source::store::{Change, FETCH_TIMEOUT, Store, Update};

const SERVICES: usize = 200;
const ENDPOINTS: usize = 20;
const ROUTES: usize = 5;

fn update(name: &str, resource: Value) -> Update {
    let any = Descriptors::get().any(resource).unwrap();
    Update {
        name: name.into(),
        version: "1".into(),
        bytes: any.value.into(),
    }
}

fn service(number: usize) -> String {
    format!("inbound-vip|9080|http|service-{number}.scale.svc.cluster.local")
}

fn cluster(number: usize) -> Update {
    let by_ads = json!({"ads": {}, "resource_api_version": "V3"});
    let most = u32::MAX;
    let name = service(number);
    let resource = json!({
        "@type": Kind::Cluster.type_url(),
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": by_ads},
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{
            "max_connections": most, "max_pending_requests": most,
            "max_requests": most, "max_retries": most,
        }]},
        "common_lb_config": {"healthy_panic_threshold": {}},
        "metadata": {"filter_metadata": {"istio": {"services": [{
            "host": format!("service-{number}.scale.svc.cluster.local"),
            "name": format!("service-{number}"), "namespace": "scale",
        }]}}},
    });
    update(&name, resource)
}

/// Endpoints as istiod describes pods to a waypoint: tunnels, with who they are.
fn endpoints(number: usize) -> Update {
    let name = service(number);
    let each = (0..ENDPOINTS).map(|n| {
        let address = format!("10.{}.{}.{n}:9080", number / 250, number % 250);
        json!({
            "endpoint": {"address": {"envoy_internal_address": {
                "server_listener_name": "connect_originate", "endpoint_id": address}}},
            "health_status": "HEALTHY",
            "load_balancing_weight": 1,
            "metadata": {"filter_metadata": {
                "envoy.filters.listener.original_dst": {"local": address},
                "istio": {"workload": format!("service-{number}-v1-{n};scale;service-{number};v1;Kubernetes")},
            }},
        })
    });
    let each: Vec<Value> = each.collect();
    let resource = json!({
        "@type": Kind::Endpoints.type_url(),
        "cluster_name": name,
        "endpoints": [{"locality": {}, "lb_endpoints": each}],
    });
    update(&name, resource)
}

fn routes() -> Update {
    let hosts = (0..SERVICES).map(|number| {
        let routes = (0..ROUTES).map(|r| {
            let user = json!({"name": "x-user", "string_match": {"exact": format!("user-{r}")}});
            json!({
                "match": {"prefix": format!("/api/{r}"), "headers": [user]},
                "route": {
                    "cluster": service(number),
                    "timeout": "0s",
                    "retry_policy": {
                        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                        "num_retries": 2,
                        "host_selection_retry_max_attempts": "5",
                        "retriable_status_codes": [503],
                    },
                    "max_grpc_timeout": "0s",
                },
            })
        });
        let routes: Vec<Value> = routes.collect();
        json!({
            "name": service(number),
            "domains": [format!("service-{number}.scale.svc.cluster.local")],
            "routes": routes,
        })
    });
    let hosts: Vec<Value> = hosts.collect();
    let resource = json!({
        "@type": Kind::Routes.type_url(), "name": "large", "virtual_hosts": hosts,
    });
    update("large", resource)
}

fn listener() -> Update {
    let filters = "type.googleapis.com/envoy.extensions.filters";
    let by_ads = json!({"ads": {}, "resource_api_version": "V3"});
    let manager = json!({
        "@type": format!("{filters}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "large",
        "rds": {"route_config_name": "large", "config_source": by_ads},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
            "@type": format!("{filters}.http.router.v3.Router")}}],
    });
    let resource = json!({
        "@type": Kind::Listener.type_url(),
        "name": "large",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 22000}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    });
    update("large", resource)
}

/// The listeners that istiod sends a waypoint of Bookinfo.
fn of_bookinfo() -> Vec<Update> {
    let text = include_str!("fixtures/istiod/bookinfo.pb.json");
    let dump: Value = serde_json::from_str(text).unwrap();
    let resources = dump.get("resources").unwrap_or(&dump).as_array().unwrap();
    let listeners = resources.iter().filter(|resource| {
        let kind = resource["type_url"].as_str().unwrap();
        kind == Kind::Listener.type_url()
    });
    let listeners = listeners.map(|resource| Update {
        name: resource["name"].as_str().unwrap().into(),
        version: "1".into(),
        bytes: STANDARD
            .decode(resource["value"].as_str().unwrap())
            .unwrap()
            .into(),
    });
    listeners.collect()
}

#[test]
fn a_large_configuration_costs_little() {
    // All of it is made before anything is counted, descriptors included.
    let descriptors = Descriptors::get();
    let clusters: Vec<Update> = (0..SERVICES).map(cluster).collect();
    let listeners = vec![listener()];
    let endpoints: Vec<Update> = (0..SERVICES).map(endpoints).collect();
    let tables = vec![routes()];
    drop(descriptors);
    let current = Current::default();
    let mut store = Store::new(Envoy::default(), Secrets::default(), current.clone());
    let now = Instant::now();
    let mut bring = |kind, updated: Vec<Update>| {
        cost(|| {
            let change = Change {
                kind,
                updated,
                removed: Vec::new(),
            };
            let rejected = store.apply(change, now);
            assert!(rejected.is_empty(), "{rejected:?}");
            store.settle(now);
        })
    };
    let of_clusters = bring(Kind::Cluster, clusters);
    let of_listener = bring(Kind::Listener, listeners);
    let of_endpoints = bring(Kind::Endpoints, endpoints);
    let of_routes = bring(Kind::Routes, tables);
    assert_eq!(current.snapshot().clusters.len(), SERVICES);
    let each = |cost: Cost, count: usize| cost.kept / count;
    let service = each(of_clusters, SERVICES);
    let endpoint = each(of_endpoints, SERVICES * ENDPOINTS);
    let route = each(of_routes, SERVICES * ROUTES);
    println!("a service {service}, an endpoint {endpoint}, a route {route} bytes");
    println!("while they are compiled: endpoints {of_endpoints:?}, routes {of_routes:?}");
    assert!(service < 2_000, "a service costs {service} bytes");
    assert!(endpoint < 300, "an endpoint costs {endpoint} bytes");
    assert!(route < 700, "a route costs {route} bytes");
    let (chains, chain) = of_chains();
    println!("{chains} chains of Bookinfo, a chain {chain} bytes");
    assert!(chain < 20_000, "a filter chain costs {chain} bytes");
    // A listener is one, and endpoints come one service at a time.
    assert!(of_listener.kept < 10_000, "{of_listener:?}");
    assert!(of_endpoints.passing < 100_000, "{of_endpoints:?}");
    assert!(of_routes.passing < 100_000, "{of_routes:?}");
}

/// How many chains Bookinfo's listeners have, and what each costs.
fn of_chains() -> (usize, usize) {
    let listeners = of_bookinfo();
    let current = Current::default();
    let mut store = Store::new(Envoy::default(), Secrets::default(), current.clone());
    let (now, change) = (Instant::now(), |kind, updated| Change {
        kind,
        updated,
        removed: Vec::new(),
    });
    store.apply(change(Kind::Cluster, Vec::new()), now);
    let cost = cost(|| {
        let rejected = store.apply(change(Kind::Listener, listeners), now);
        assert!(rejected.is_empty(), "{rejected:?}");
        // What they refer to is waited for in vain.
        store.settle(now + FETCH_TIMEOUT);
    });
    let snapshot = current.snapshot();
    let chains = snapshot
        .listeners
        .values()
        .map(|listener| match &listener.kind {
            ListenerKind::Socket(socket) => socket.dispatch.chains.len(),
            ListenerKind::Internal(dispatch) => dispatch.chains.len(),
            ListenerKind::Tunnel(_) => 0,
        });
    let chains: usize = chains.sum();
    (chains, cost.kept / chains)
}
