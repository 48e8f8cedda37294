//! Configurations for tests, and a worker that serves them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::connection::Downstream;
use crate::model::cluster::{
    Balancer, BalancerKind, Breakers, Cluster, Discovery, LocalityPolicy, Transport, UpstreamHttp,
    UpstreamProtocol,
};
use crate::model::endpoint::{Address, Endpoint, EndpointSet, Health, Locality};
use crate::model::http::{
    Codec, Forwarded, Http1Options, Http2Options, HttpChain, HttpLimits, PathNormalisation,
    RequestId, Routes, ServerHeader, StripPort,
};
use crate::model::listener::{
    Chain, ChainKind, Choose, Detect, Dispatch, Listener, ListenerKind, Node, SocketListener,
};
use crate::model::route::{
    Destination, FilterOverrides, Forward, HeaderChanges, HostRewrite, PathRewrite, Route,
    RouteAction, RouteMatch, RouteTable, VirtualHost,
};
use crate::model::snapshot::{ClusterEntry, Snapshot};

/// A connection from nowhere in particular.
pub(crate) fn downstream() -> Downstream {
    Downstream {
        remote: "127.0.0.1:40000".parse().unwrap(),
        local: "127.0.0.1:80".parse().unwrap(),
        authority: None,
        peer: None,
        own: None,
        workload: None,
        server_name: None,
        secure: false,
        detected: None,
        id: 1,
    }
}

/// Everything to the cluster `backend`.
pub(crate) fn forward() -> Forward {
    Forward {
        to: Destination::Cluster("backend".into()),
        not_found: http::StatusCode::SERVICE_UNAVAILABLE,
        path: PathRewrite::Keep,
        host: HostRewrite::Keep,
        append_forwarded_host: false,
        timeout: None,
        idle_timeout: None,
        max_grpc_timeout: None,
        grpc_timeout_offset: Duration::ZERO,
        max_duration: None,
        retry: None,
        hash: Vec::new(),
        mirrors: Vec::new(),
        upgrades: Vec::new(),
        endpoint_metadata: Vec::new(),
    }
}

/// A route for these requests.
pub(crate) fn route(matches: RouteMatch, action: RouteAction) -> Arc<Route> {
    Arc::new(Route {
        name: "route".into(),
        matches,
        action,
        headers: HeaderChanges::default(),
        filters: FilterOverrides::default(),
        operation: None,
        tracing: None,
    })
}

/// A route for all requests.
pub(crate) fn all(action: RouteAction) -> Arc<Route> {
    route(RouteMatch::default(), action)
}

/// A chain with these routes for every host.
pub(crate) fn chain(routes: Vec<Arc<Route>>) -> HttpChain {
    let host = VirtualHost {
        name: "all".into(),
        routes,
        ..VirtualHost::default()
    };
    let table = RouteTable {
        hosts: vec![Arc::new(host)],
        any: Some(0),
        ..RouteTable::default()
    };
    HttpChain {
        stat_prefix: "test".into(),
        codec: Codec::Auto,
        filters: Vec::new(),
        routes: Routes::Inline(Arc::new(table)),
        access_logs: Vec::new(),
        tracing: None,
        upgrades: vec!["websocket".into()],
        server: ServerHeader::Overwrite(http::HeaderValue::from_static("culvert")),
        forwarded: Forwarded::default(),
        paths: PathNormalisation::default(),
        limits: HttpLimits {
            max_header_bytes: 60 << 10,
            max_headers: 100,
            ..HttpLimits::default()
        },
        http1: Http1Options::default(),
        http2: Http2Options::default(),
        request_id: RequestId {
            generate: true,
            keep_external: true,
            in_response: false,
        },
        proxy_100_continue: false,
        strip_port: StripPort::No,
        strip_trailing_dot: false,
        via: None,
    }
}

/// A cluster of these addresses that speaks this protocol.
pub(crate) fn cluster(
    name: &str,
    protocol: UpstreamProtocol,
    addresses: &[SocketAddr],
) -> ClusterEntry {
    let endpoint = |address: &SocketAddr| {
        Arc::new(Endpoint {
            address: Address::Socket(*address),
            hostname: "".into(),
            weight: 1,
            health: Health::Healthy,
            workload: None,
            transport_match: Vec::new(),
            lb: Vec::new(),
        })
    };
    let set = EndpointSet {
        localities: vec![Locality {
            weight: 1,
            endpoints: addresses.iter().map(endpoint).collect(),
            ..Locality::default()
        }],
        drops: Vec::new(),
        overprovisioning: 140,
    };
    let limit = u32::MAX;
    let set = Arc::new(set);
    ClusterEntry {
        cluster: Arc::new(Cluster {
            name: name.into(),
            stat_name: name.into(),
            discovery: Discovery::Static(set.clone()),
            balancer: Balancer {
                kind: BalancerKind::RoundRobin,
                warmup: None,
            },
            locality: LocalityPolicy {
                weighted: false,
                panic_threshold: 50.0,
                hash_balance_percent: None,
            },
            connect_timeout: Duration::from_secs(5),
            breakers: Breakers {
                connections: limit,
                pending: limit,
                requests: limit,
                retries: limit,
                retry_budget: None,
            },
            outlier: None,
            transport: Transport::Plain,
            transport_matches: Vec::new(),
            http: UpstreamHttp {
                protocol,
                idle: None,
                max_duration: None,
                max_requests: None,
                max_streams: None,
                keepalive: None,
                keep_case: false,
                auto_sni: false,
            },
            keepalive: None,
            close_on_unhealthy: false,
            connection_per_downstream: false,
            services: Vec::new(),
        }),
        endpoints: Arc::new(ArcSwap::new(set)),
        id: 1,
    }
}

/// A chain named `chain`.
pub(crate) fn named(kind: ChainKind) -> Arc<Chain> {
    Arc::new(Chain {
        name: "chain".into(),
        tls: None,
        handshake_timeout: Duration::from_secs(5),
        rbac: Vec::new(),
        stats: false,
        kind,
    })
}

/// A configuration of one listener at `address`, all of whose connections this chain takes.
pub(crate) fn snapshot(
    version: u64,
    address: SocketAddr,
    chain: Arc<Chain>,
    clusters: Vec<ClusterEntry>,
) -> Snapshot {
    let dispatch = Dispatch {
        chains: vec![chain.clone()],
        choose: Choose::Tree(Node::Chain(chain)),
        default: None,
        detect: Detect::default(),
        detect_timeout: Duration::from_secs(1),
    };
    let name: Arc<str> = "listener".into();
    let listener = Listener {
        name: name.clone(),
        kind: ListenerKind::Socket(SocketListener {
            addresses: vec![address],
            dispatch,
            proxy_protocol: false,
            max_connections: None,
        }),
        access_logs: Vec::new(),
        refused: Box::default(),
    };
    let clusters = clusters.into_iter().enumerate().map(|(id, mut entry)| {
        entry.id = u32::try_from(id).unwrap();
        (entry.cluster.name.clone(), Arc::new(entry))
    });
    Snapshot {
        version,
        listeners: HashMap::from([(name, Arc::new(listener))]),
        clusters: clusters.collect(),
        routes: HashMap::new(),
    }
}
