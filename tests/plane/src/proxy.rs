//! A node proxy's end of delta xDS, towards any of several control planes: when one goes it asks
//! the next, and says what it has, as ztunnel does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh::proto::discovery::{DeltaDiscoveryRequest, Node};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

/// The type of workloads and services.
pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
/// After a connection ended.
const AGAIN: Duration = Duration::from_millis(50);
/// The name that every control plane's certificate has.
const SERVER_NAME: &str = "istiod.istio-system.svc";

/// How to reach the control planes.
#[derive(Clone, Debug)]
pub struct Way {
    /// Where they are; asked in turn.
    pub addresses: Vec<SocketAddr>,
    /// The root certificate, PEM.
    pub root: String,
    /// A token of the mesh's audience.
    pub token: String,
}

/// What a proxy has: names and versions, and when the newest of them came.
#[derive(Clone, Debug)]
pub struct Known {
    /// By name, the version.
    pub resources: BTreeMap<String, String>,
    /// What came last, by name.
    pub latest: BTreeSet<String>,
    /// When it came.
    pub at: Instant,
    /// How many responses there were.
    pub responses: u64,
}

/// Is told each resource that comes or goes, by its name, and when.
type Tell = dyn Fn(&str, Instant) + Send + Sync;

/// A connected proxy; it ends when it is dropped.
pub struct Proxy {
    known: watch::Receiver<Known>,
    connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Connects, and keeps connected, as the node proxy of this name.
    #[must_use]
    pub fn start(way: Way, name: String) -> Self {
        Self::heard(way, name, |_, _| {})
    }

    /// The same; each resource that comes or goes is told by its name, with the time.
    #[must_use]
    pub fn heard(
        way: Way,
        name: String,
        tell: impl Fn(&str, Instant) + Send + Sync + 'static,
    ) -> Self {
        let (sender, known) = watch::channel(Known {
            resources: BTreeMap::new(),
            latest: BTreeSet::new(),
            at: Instant::now(),
            responses: 0,
        });
        let connections = Arc::new(AtomicU64::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            let mut turn = 0;
            loop {
                // How it ended is the control plane's matter; it is asked again, or another is.
                let _ = follow(&way, turn, &name, (&sender, &tell), &count).await;
                turn += 1;
                tokio::time::sleep(AGAIN).await;
            }
        });
        Self {
            known,
            connections,
            task,
        }
    }

    /// What it has now, and each time that it changes.
    #[must_use]
    pub fn known(&self) -> watch::Receiver<Known> {
        self.known.clone()
    }

    /// How often it connected.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits until what it has is as it shall be.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        mut good: impl FnMut(&Known) -> bool,
    ) -> Result<Known> {
        let mut known = self.known.clone();
        let found = tokio::time::timeout(limit, known.wait_for(|known| good(known))).await;
        let found = found.with_context(|| format!("{what}: not within {} s", limit.as_secs()))?;
        Ok(found?.clone())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    way: &Way,
    turn: usize,
    name: &str,
    (known, tell): (&watch::Sender<Known>, &Tell),
    connections: &AtomicU64,
) -> Result<()> {
    let address = way.addresses[turn % way.addresses.len()];
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&way.root))
        .domain_name(SERVER_NAME);
    let channel = Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(tls)?
        .connect()
        .await?;
    let (requests, stream) = mpsc::channel(16);
    let mut request = tonic::Request::new(ReceiverStream::new(stream));
    let bearer = format!("Bearer {}", way.token).parse()?;
    request.metadata_mut().insert("authorization", bearer);
    let have = known.borrow().resources.clone();
    let first = DeltaDiscoveryRequest {
        node: Some(Node {
            id: format!("ztunnel~10.0.0.1~{name}.istio-system~istio-system.svc.cluster.local"),
            ..Node::default()
        }),
        type_url: ADDRESS.to_owned(),
        resource_names_subscribe: vec!["*".to_owned()],
        initial_resource_versions: have.into_iter().collect(),
        ..DeltaDiscoveryRequest::default()
    };
    requests.send(first).await?;
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(256 << 20);
    let mut responses = client
        .delta_aggregated_resources(request)
        .await?
        .into_inner();
    connections.fetch_add(1, Ordering::Relaxed);
    while let Some(response) = responses.message().await? {
        let at = Instant::now();
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        for resource in &response.resources {
            tell(&resource.name, at);
        }
        for name in &response.removed_resources {
            tell(name, at);
        }
        known.send_modify(|known| {
            known.latest.clear();
            for resource in response.resources {
                known.latest.insert(resource.name.clone());
                known.resources.insert(resource.name, resource.version);
            }
            for name in response.removed_resources {
                known.resources.remove(&name);
                known.latest.insert(name);
            }
            known.at = at;
            known.responses += 1;
        });
        requests.send(ack).await?;
    }
    Ok(())
}
