//! The subscription to a control plane: delta xDS over one gRPC stream, into a shared world.
//!
//! `subscription` is the protocol, without IO: what to ask, what a response means, what to answer.
//! `backoff` is when to try again. `connection` is the thin rest: TLS, token, stream. What arrives
//! is applied resource by resource: the good ones of a response take effect, the bad ones are
//! named in the answer (NACK), and their last good version stays in force.

mod backoff;
mod connection;
mod counters;
mod subscription;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use prost_types::value::Kind as ValueKind;
use prost_types::{Struct, Value};

use crate::proto::discovery;
use crate::world::SharedWorld;
use subscription::Subscription;

pub use counters::{Counters, Kind, Termination};

/// Where the control plane is, and who asks.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its address, such as `https://istiod.istio-system.svc:15012`; `http://` for no TLS. The
    /// host is resolved for each connection.
    pub address: String,
    /// PEM file with the roots its certificate must come from; read for each connection. Needed
    /// for `https://`.
    pub root: Option<PathBuf>,
    /// The name its certificate must have, where that isn't the address's host.
    pub server_name: Option<String>,
    /// File with the bearer token; read for each connection.
    pub token: Option<PathBuf>,
    /// Sent as header `clusterid` and as node metadata `CLUSTER_ID`.
    pub cluster_id: String,
    /// Who asks.
    pub node: Node,
}

/// Who asks: what the control plane needs to know of this proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// The proxy's own address.
    pub ip: String,
    /// The pod it runs in.
    pub pod: String,
    /// That pod's namespace.
    pub namespace: String,
    /// The node it serves.
    pub node_name: String,
    /// Further metadata (`ISTIO_META_*` without the prefix).
    pub metadata: BTreeMap<String, String>,
}

/// A client of a control plane that keeps a world up to date.
#[derive(Debug)]
pub struct Client {
    config: Config,
    world: SharedWorld,
    counters: Arc<Counters>,
    subscriptions: [Subscription; 2],
}

impl Client {
    /// A client that hasn't connected yet.
    #[must_use]
    pub fn new(config: Config, world: SharedWorld) -> Self {
        let node = config.node.message(&config.cluster_id);
        Self {
            subscriptions: Kind::ALL.map(|kind| Subscription::new(kind, node.clone())),
            counters: Arc::default(),
            config,
            world,
        }
    }

    /// What it counts; goes on counting while it runs.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }
}

impl Node {
    /// The node as discovery messages carry it: `ztunnel~<ip>~<pod>.<ns>~<ns>.svc.cluster.local`.
    fn message(&self, cluster_id: &str) -> discovery::Node {
        let (ip, pod, namespace) = (&self.ip, &self.pod, &self.namespace);
        let known = [
            ("NAME", pod),
            ("NAMESPACE", namespace),
            ("INSTANCE_IPS", ip),
            ("NODE_NAME", &self.node_name),
            ("CLUSTER_ID", &cluster_id.to_owned()),
        ];
        let known = known.map(|(key, value)| (key.to_owned(), value.clone()));
        let fields = self.metadata.clone().into_iter().chain(known);
        let text = |text| Value {
            kind: Some(ValueKind::StringValue(text)),
        };
        discovery::Node {
            id: format!("ztunnel~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
            metadata: Some(Struct {
                fields: fields.map(|(key, value)| (key, text(value))).collect(),
            }),
            user_agent_name: "culvert-ztunnel".to_owned(),
            ..discovery::Node::default()
        }
    }
}

#[cfg(test)]
mod tests;
