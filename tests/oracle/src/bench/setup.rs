//! The ways that are measured: straight to the server, through Envoy, through our waypoint. Both
//! proxies have Bookinfo's configuration in the shape that istiod gives a waypoint's filter chain.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::plan::{Listener, Measure};
use super::process::{Usage, usage_of};
use super::serve::Ports;
use super::tunnel::{self, SERVICE};
use crate::ads::Ads;
use crate::graph::{HBONE, VIP};
use crate::identity::Folder;
use crate::resources::{LISTEN, Resources};
use crate::subject::{Kind, Subject};

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";
const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// Services of Bookinfo with how many versions each has.
const BOOKINFO: [(&str, usize); 4] = [
    ("productpage", 1),
    ("details", 1),
    ("ratings", 1),
    ("reviews", 3),
];

/// One way from the load to the server.
#[derive(Debug)]
pub(crate) enum Way {
    Direct(Ports),
    Through(Box<Subject>),
}

impl Way {
    pub(crate) fn name(&self) -> &'static str {
        self.kind().map_or("no proxy", Kind::name)
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        match self {
            Self::Direct(_) => None,
            Self::Through(subject) => Some(subject.kind()),
        }
    }

    pub(crate) fn target(&self, measure: Measure) -> SocketAddr {
        match (self, measure.listener()) {
            (Self::Direct(ports), Listener::Grpc) => ports.grpc,
            (Self::Direct(ports), Listener::Tunnel) => (ports.pod.ip(), HBONE).into(),
            (Self::Direct(ports), _) => ports.http,
            (Self::Through(subject), Listener::Tunnel) => subject.at(HBONE),
            (Self::Through(subject), listener) => subject.at(port(listener)),
        }
    }

    /// The authority of a tunnel: without a proxy the pod's own.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Direct(ports) => ports.pod.to_string(),
            Self::Through(_) => format!("{VIP}:{SERVICE}"),
        }
    }

    /// Nothing, where there is no proxy.
    pub(crate) fn usage(&self) -> Result<Usage> {
        match self {
            Self::Direct(_) => Ok(Usage::default()),
            Self::Through(subject) => usage_of(subject.pid()),
        }
    }
}

fn port(listener: Listener) -> u16 {
    21_000 + listener as u16
}

/// No proxy first, then each kind.
pub(crate) async fn ways(
    server: &Ports,
    ads: &Ads,
    identities: &Folder,
    kinds: &[Kind],
    scratch: &Path,
) -> Result<Vec<Way>> {
    let mut resources = resources(server);
    resources.extend(tunnel::resources(server.pod, identities)?);
    let mut ways = vec![Way::Direct(*server)];
    for kind in kinds {
        let subject = Subject::in_a_mesh(*kind, &resources, ads, scratch).await?;
        ways.push(Way::Through(Box::new(subject)));
    }
    Ok(ways)
}

/// Listeners and clusters with the server behind them.
#[must_use]
pub fn resources(server: &Ports) -> Resources {
    let measured = [
        (Listener::Filters, "reviews-v1", filters(&near()), None),
        (Listener::Bare, "reviews-v1", Vec::new(), None),
        (
            Listener::Logged,
            "reviews-v1",
            filters(&near()),
            Some(access_log()),
        ),
        (Listener::Grpc, "grpc", filters(&near()), None),
    ];
    let mut resources = Resources::default();
    for (of, cluster, filters, log) in measured {
        let name = format!("{of:?}");
        let route = json!([{"match": {"prefix": "/"}, "route": route(cluster)}]);
        resources
            .listeners
            .push(listener(&name, port(of), &route, filters, log));
    }
    resources
        .clusters
        .push(cluster("grpc", &[server.grpc], true));
    for (number, (service, versions)) in (0_u16..).zip(BOOKINFO) {
        resources
            .clusters
            .push(cluster(service, &[server.http], false));
        let subset = |version| format!("{service}-v{version}");
        let routes = (1..=versions).map(|version| {
            let user = format!("^(.*?;)?(user=v{version})(;.*)?$");
            let cookie = json!({"name": "cookie", "string_match": {"safe_regex": {"regex": user}}});
            json!({"match": {"prefix": "/", "headers": [cookie]}, "route": route(&subset(version))})
        });
        let mut routes: Vec<Value> = routes.collect();
        routes.push(json!({"match": {"prefix": "/"}, "route": route(service)}));
        for version in 1..=versions {
            resources
                .clusters
                .push(cluster(&subset(version), &[server.http], false));
        }
        let listener = listener(
            service,
            21_100 + number,
            &json!(routes),
            filters(&near()),
            None,
        );
        resources.listeners.push(listener);
    }
    resources
}

/// A route as istiod writes it.
pub(super) fn route(cluster: &str) -> Value {
    json!({
        "cluster": cluster,
        "timeout": "0s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
            "num_retries": 2,
            "retry_host_predicate": [{
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }],
            "host_selection_retry_max_attempts": "5",
            "retriable_status_codes": [503],
        },
        "max_grpc_timeout": "0s",
    })
}

/// Callers of this machine.
pub(super) fn near() -> Value {
    json!({"direct_remote_ip": {"address_prefix": "127.0.0.0", "prefix_len": 8}})
}

/// The filters of istiod's main_internal that both proxies know, with one policy.
pub(super) fn filters(principal: &Value) -> Vec<Value> {
    let method =
        |name: &str| json!({"header": {"name": ":method", "string_match": {"exact": name}}});
    vec![
        json!({"name": "envoy.filters.http.rbac", "typed_config": {
            "@type": format!("{FILTERS}.rbac.v3.RBAC"),
            "rules": {"action": "ALLOW", "policies": {"ns[bookinfo]-policy[viewer]-rule[0]": {
                "permissions": [{"and_rules": {"rules": [
                    {"or_rules": {"rules": [method("GET"), method("POST")]}},
                    {"or_rules": {"rules": [
                        {"url_path": {"path": {"prefix": "/size"}}},
                        {"url_path": {"path": {"prefix": "/bench.Echo"}}},
                    ]}},
                ]}}],
                "principals": [{"and_ids": {"ids": [
                    principal,
                ]}}],
            }}},
        }}),
        json!({"name": "envoy.filters.http.grpc_stats", "typed_config": {
            "@type": format!("{FILTERS}.grpc_stats.v3.FilterConfig"),
            "emit_filter_state": true, "stats_for_all_methods": false,
        }}),
        json!({"name": "envoy.filters.http.fault", "typed_config": {
            "@type": format!("{FILTERS}.fault.v3.HTTPFault"),
        }}),
        json!({"name": "envoy.filters.http.cors", "typed_config": {
            "@type": format!("{FILTERS}.cors.v3.Cors"),
        }}),
    ]
}

pub(super) fn listener(
    name: &str,
    port: u16,
    routes: &Value,
    filters: Vec<Value>,
    log: Option<Value>,
) -> Value {
    let host =
        json!([{"name": format!("inbound|http|{name}"), "domains": ["*"], "routes": routes}]);
    with_hosts(name, port, &host, filters, log)
}

pub(super) fn with_hosts(
    name: &str,
    port: u16,
    hosts: &Value,
    filters: Vec<Value>,
    log: Option<Value>,
) -> Value {
    json!({
        "name": name,
        "address": {"socket_address": {"address": LISTEN, "port_value": port}},
        "filter_chains": [{"filters": [manager(name, hosts, filters, log)]}],
    })
}

pub(super) fn manager(
    name: &str,
    hosts: &Value,
    mut filters: Vec<Value>,
    log: Option<Value>,
) -> Value {
    filters.push(
        json!({"name": "envoy.filters.http.router", "typed_config": {
            "@type": format!("{FILTERS}.router.v3.Router"),
        }}),
    );
    let manager = json!({
        "@type": HCM,
        "stat_prefix": name,
        "normalize_path": true,
        "use_remote_address": false,
        "stream_idle_timeout": "0s",
        "server_name": "istio-envoy",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"name": name, "virtual_hosts": hosts, "validate_clusters": false},
        "http_filters": filters,
        "access_log": log.into_iter().collect::<Vec<_>>(),
    });
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
}

pub(super) fn cluster(name: &str, endpoints: &[SocketAddr], http2: bool) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|at| {
            json!({"endpoint": {"address": {"socket_address": {
                "address": at.ip().to_string(), "port_value": at.port()}}}})
        })
        .collect();
    let most = u32::MAX;
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{
            "max_connections": most, "max_pending_requests": most,
            "max_requests": most, "max_retries": most,
        }]},
        "common_lb_config": {"healthy_panic_threshold": {}},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    if http2 {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        });
    }
    cluster
}

/// Istio's default text format, as `accessLogFile: /dev/stdout` gives it.
fn access_log() -> Value {
    let line = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
            "log_format": {"text_format_source": {"inline_string": line}},
        },
    })
}
