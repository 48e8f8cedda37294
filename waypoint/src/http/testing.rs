//! Configurations for tests, and a worker that serves them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh::drain;

use crate::connection::Downstream;
use crate::model::cluster::{Discovery, UpstreamProtocol};
use crate::model::http::{HttpChain, HttpLimits, Routes, ServerHeader};
use crate::model::listener::{
    Chain, ChainKind, Choose, Detect, Direction, Dispatch, Listener, ListenerKind, Node,
    SocketListener,
};
use crate::model::rare::Rare;
use crate::model::route::{
    Destination, Forward, HostRewrite, PathRewrite, Route, RouteAction, RouteMatch, RouteTable,
    VirtualHost,
};
use crate::model::snapshot::{ClusterEntry, Current, Snapshot};
use crate::model::testing::{self, endpoint, endpoints, http_chain};
use crate::source::secret::Secrets;
use crate::telemetry::Telemetry;
use crate::worker::Parts;
use crate::{upstream, wasm};

/// What workers are built from, outside any mesh.
pub(crate) fn parts(current: &Current, telemetry: &Telemetry, watch: drain::Watch) -> Parts {
    Parts {
        current: current.clone(),
        upstream: upstream::Shared::default(),
        own: None,
        secrets: Secrets::default(),
        telemetry: telemetry.clone(),
        plugins: wasm::Shared::default(),
        watch,
    }
}

/// A connection from nowhere in particular.
pub(crate) fn downstream() -> Downstream {
    let (remote, local) = ("127.0.0.1:40000", "127.0.0.1:80");
    Downstream {
        id: 1,
        ..Downstream::between(remote.parse().unwrap(), local.parse().unwrap())
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
        limits: Rare::default(),
        host_limits: false,
        grpc_timeout_offset: Duration::ZERO,
        stream: None,
        retry: None,
        hash: Rare::default(),
        mirrors: Rare::default(),
        upgrades: Rare::default(),
        endpoint_metadata: Rare::default(),
    }
}

/// A route for these requests.
pub(crate) fn route(matches: RouteMatch, action: RouteAction) -> Arc<Route> {
    Arc::new(Route {
        name: "route".into(),
        matches,
        action,
        headers: Rare::default(),
        filters: Rare::default(),
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
        upgrades: vec!["websocket".into()],
        server: ServerHeader::Overwrite(http::HeaderValue::from_static("culvert")),
        limits: HttpLimits {
            max_header_bytes: 60 << 10,
            max_headers: 100,
            ..HttpLimits::default()
        },
        ..http_chain(Routes::Inline(Arc::new(table)))
    }
}

/// A cluster of these addresses that speaks this protocol.
pub(crate) fn cluster(
    name: &str,
    protocol: UpstreamProtocol,
    addresses: &[SocketAddr],
) -> ClusterEntry {
    let each = addresses.iter().map(|address| Arc::new(endpoint(*address)));
    let set = Arc::new(endpoints(each.collect()));
    let mut cluster = testing::cluster(name);
    cluster.discovery = Discovery::Static(set.clone());
    cluster.http.protocol = protocol;
    ClusterEntry {
        cluster: Arc::new(cluster),
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
        guards: Vec::new(),
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
        direction: Direction::default(),
    };
    let clusters = clusters.into_iter().enumerate().map(|(id, mut entry)| {
        entry.id = u32::try_from(id).unwrap();
        (entry.cluster.name.clone(), Arc::new(entry))
    });
    Snapshot {
        extensions: Default::default(),
        version,
        listeners: HashMap::from([(name, Arc::new(listener))]),
        clusters: clusters.collect(),
        routes: HashMap::new(),
    }
}

/// What hyper wants run stays on the thread.
#[derive(Clone)]
pub(crate) struct LocalTasks;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalTasks {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
