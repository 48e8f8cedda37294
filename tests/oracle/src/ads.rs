//! A control plane for one proxy: delta ADS with the resources that a test sets, and the certificate
//! authority beside it. The same JSON goes to Envoy and to our waypoint, as the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::Stream;
use lab::ca::Authority;
use mesh::proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use mesh::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use parking_lot::Mutex;
use prost_types::Any;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use waypoint::source::json::Descriptors;

/// A change reaches a proxy in this order, so that nothing is named before it is there.
const ORDER: [&str; 4] = [
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
];
/// Responses that wait for the proxy to take them.
const WAITING: usize = 16;

/// A running control plane with an authority beside it; ends with the runtime.
#[derive(Debug)]
pub struct Ads {
    /// The authority, served at an address of its own.
    pub authority: Authority,
    discovery: Discovery,
}

/// What serves resources; ends with the runtime.
#[derive(Debug)]
pub struct Discovery {
    /// Where ADS is served, in clear text.
    pub at: SocketAddr,
    state: Arc<State>,
}

impl Deref for Ads {
    type Target = Discovery;

    fn deref(&self) -> &Discovery {
        &self.discovery
    }
}

/// By type and name, with a version.
type Resources = BTreeMap<String, BTreeMap<String, (u64, Any)>>;

#[derive(Debug)]
struct State {
    descriptors: Descriptors,
    resources: Mutex<Resources>,
    changes: watch::Sender<u64>,
}

impl Ads {
    /// Starts it without any resource.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let discovery = Discovery::serve(std::net::TcpListener::bind(any)?)?;
        let for_authority = std::net::TcpListener::bind(any)?;
        let authority = Authority::create(for_authority.local_addr()?)?;
        authority.serve(for_authority)?;
        Ok(Self {
            authority,
            discovery,
        })
    }
}

impl Discovery {
    /// Serves on `listener`, without any resource yet.
    ///
    /// # Errors
    /// When the socket can't be watched.
    pub fn serve(listener: std::net::TcpListener) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let at = listener.local_addr()?;
        let state = Arc::new(State {
            descriptors: Descriptors::get(),
            resources: Mutex::default(),
            changes: watch::channel(0).0,
        });
        let service = AggregatedDiscoveryServiceServer::new(Service(Arc::clone(&state)));
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(Self { at, state })
    }

    /// Sets resources (with `@type`), all in one change.
    ///
    /// # Errors
    /// When one is no message of its type.
    pub fn set(&self, resources: impl IntoIterator<Item = Value>) -> Result<()> {
        self.publish(self.encode(resources)?);
        Ok(())
    }

    /// Makes messages of resources, which takes longer than a proxy needs to read them.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn encode(&self, resources: impl IntoIterator<Item = Value>) -> Result<Vec<(String, Any)>> {
        let one = |resource: Value| {
            let name = resource
                .get("name")
                .or_else(|| resource.get("cluster_name"));
            let name = name.and_then(Value::as_str).context("a resource's name")?;
            let name = name.to_owned();
            let any = self.state.descriptors.any(resource);
            let any = any.with_context(|| name.clone())?;
            let (type_url, value) = (any.type_url, any.value);
            Ok((name, Any { type_url, value }))
        };
        resources.into_iter().map(one).collect()
    }

    /// Sets what was encoded, all in one change.
    pub fn publish(&self, resources: Vec<(String, Any)>) {
        let version = *self.state.changes.borrow() + 1;
        let mut all = self.state.resources.lock();
        for (name, any) in resources {
            let kind = all.entry(any.type_url.clone()).or_default();
            kind.insert(name, (version, any));
        }
        drop(all);
        self.state.changes.send_replace(version);
    }
}

struct Service(Arc<State>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (sender, responses) = mpsc::channel(WAITING);
        let session = Session {
            state: Arc::clone(&self.0),
            responses: sender,
            kinds: BTreeMap::new(),
            nonce: 0,
        };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

/// One proxy's stream.
struct Session {
    state: Arc<State>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    kinds: BTreeMap<String, Subscription>,
    nonce: u64,
}

#[derive(Default)]
struct Subscription {
    wildcard: bool,
    names: BTreeSet<String>,
    sent: BTreeMap<String, u64>,
}

impl Session {
    async fn run(mut self, mut requests: Streaming<DeltaDiscoveryRequest>) {
        let mut changes = self.state.changes.subscribe();
        loop {
            let gone = tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => !self.take(request).await,
                    _ => true,
                },
                changed = changes.changed() => changed.is_err() || !self.push().await,
            };
            if gone {
                return;
            }
        }
    }

    /// False when the proxy is gone.
    async fn take(&mut self, request: DeltaDiscoveryRequest) -> bool {
        if let Some(error) = &request.error_detail {
            eprintln!("ads: {} refused: {}", request.type_url, error.message);
        }
        let first = !self.kinds.contains_key(&request.type_url);
        let kind = self.kinds.entry(request.type_url.clone()).or_default();
        let subscribes = !request.resource_names_subscribe.is_empty();
        kind.wildcard |= first && !subscribes;
        for name in request.resource_names_subscribe {
            kind.wildcard |= name == "*";
            // Who subscribes again wants it again.
            kind.sent.remove(&name);
            kind.names.insert(name);
        }
        for name in &request.resource_names_unsubscribe {
            kind.names.remove(name);
            kind.sent.remove(name);
        }
        if first || subscribes {
            self.send(&request.type_url, first).await
        } else {
            true
        }
    }

    async fn push(&mut self) -> bool {
        for kind in ORDER {
            if self.kinds.contains_key(kind) && !self.send(kind, false).await {
                return false;
            }
        }
        true
    }

    /// What the proxy hasn't got yet; nothing, unless an empty answer is waited for.
    async fn send(&mut self, kind: &str, even_empty: bool) -> bool {
        let Some(subscription) = self.kinds.get_mut(kind) else {
            return true;
        };
        let mut resources = Vec::new();
        if let Some(all) = self.state.resources.lock().get(kind) {
            for (name, (version, any)) in all {
                let wanted = subscription.wildcard || subscription.names.contains(name);
                if wanted && subscription.sent.get(name) != Some(version) {
                    subscription.sent.insert(name.clone(), *version);
                    resources.push(Resource {
                        version: version.to_string(),
                        resource: Some(any.clone()),
                        name: name.clone(),
                        ..Resource::default()
                    });
                }
            }
        }
        if resources.is_empty() && !even_empty {
            return true;
        }
        self.nonce += 1;
        let response = DeltaDiscoveryResponse {
            system_version_info: self.nonce.to_string(),
            resources,
            type_url: kind.to_owned(),
            nonce: self.nonce.to_string(),
            ..DeltaDiscoveryResponse::default()
        };
        self.responses.send(Ok(response)).await.is_ok()
    }
}
