//! The subscription to a control plane: delta xDS over one gRPC stream, into whatever takes the
//! resources: a node proxy's shared world, a waypoint's store.
//!
//! `subscription` is the protocol, without IO: what to ask, what a response means, what to answer.
//! `backoff` is when to try again. `connection` is the thin rest: TLS, token, stream. What arrives
//! is applied resource by resource: the good ones of a response take effect, the bad ones are
//! named in the answer (NACK), and their last good version stays in force.

mod backoff;
mod connection;
mod counters;
mod into_world;
mod subscription;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use prost_types::value::Kind as ValueKind;
use prost_types::{Struct, Value};

use crate::proto::discovery;
use crate::world::SharedWorld;
use into_world::IntoWorld;
use subscription::Subscription;

pub use counters::{Counters, Kind, Termination};

/// What takes the resources that arrive.
pub trait Sink: Send {
    /// Takes what a response brought, before it is answered; removals come first. Gives those that
    /// are refused: they are named in the answer, and their last good versions are to stay in force.
    fn take(&mut self, type_url: &'static str, arrived: Arrived) -> Vec<Rejected>;

    /// The names wanted of types that are subscribed to by name, as far as they have changed since
    /// this was asked last.
    fn wanted(&mut self) -> Vec<(&'static str, BTreeSet<String>)> {
        Vec::new()
    }
}

/// What a response brought.
#[derive(Debug, Clone, Default)]
pub struct Arrived {
    /// Resources that are new or different.
    pub updated: Vec<Resource>,
    /// Names of resources that are gone, or that there are none of.
    pub removed: Vec<String>,
}

/// A resource as it arrived.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The message.
    pub content: Bytes,
}

/// A resource that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct Rejected {
    /// The resource's name.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A type of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// All of this type.
    All(&'static str),
    /// Those of this type that the [`Sink`] names.
    Named(&'static str),
}

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
    pub node: discovery::Node,
}

/// A node proxy: what the control plane needs to know of this proxy.
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

/// A client of a control plane.
#[derive(Debug)]
pub struct Client<S> {
    config: Config,
    sink: S,
    counters: Arc<Counters>,
    subscriptions: Vec<Subscription>,
}

/// A client that keeps a world up to date.
///
/// It hasn't connected yet.
#[must_use]
pub fn into_world(config: Config, world: SharedWorld) -> Client<impl Sink> {
    let wishes = Kind::ALL.map(|kind| Wish::All(kind.type_url()));
    Client::new(config, &wishes, IntoWorld(world))
}

impl<S: Sink> Client<S> {
    /// A client that hasn't connected yet. The types are asked for in this order.
    #[must_use]
    pub fn new(config: Config, wishes: &[Wish], sink: S) -> Self {
        let subscriptions = wishes.iter().map(|wish| match wish {
            Wish::All(type_url) => Subscription::to_all(type_url),
            Wish::Named(type_url) => Subscription::by_name(type_url),
        });
        let subscriptions: Vec<_> = subscriptions.collect();
        let types = subscriptions.iter().map(Subscription::type_url);
        Self {
            counters: Arc::new(Counters::new(types)),
            subscriptions,
            config,
            sink,
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
    #[must_use]
    pub fn message(&self, cluster_id: &str) -> discovery::Node {
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
