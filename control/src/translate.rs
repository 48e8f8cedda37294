//! Objects → the resources that node proxies take. Pure functions: no store, no clock, no IO.
//!
//! What istiod sends for the same objects is the reference (`pilot/pkg/serviceregistry/ambient`
//! of istio/istio, and wire.md); where we differ on purpose, the function says so and
//! `control/tests/accepted-differences.yaml` lists it.

pub mod authorization;
pub mod auto_address;
pub mod entry;
pub mod l7;
pub mod peer;
pub mod protocol;
pub mod service;
pub mod waypoint;
pub mod workload;

use std::net::IpAddr;
use std::sync::Arc;

use crate::objects::Key;
use crate::objects::mesh_config::{Defaults, Loggers, Providers, Tracers};

/// What every translation needs to know of the mesh.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// The cluster's name, in workload UIDs.
    pub cluster: String,
    /// The DNS suffix of services.
    pub domain: String,
    /// The trust domain of identities.
    pub trust_domain: String,
    /// Further trust domains whose identities are of this mesh: former names of it.
    pub trust_domain_aliases: Vec<String>,
    /// The network that all addresses are in; empty for the default.
    pub network: String,
    /// Where mesh-wide policies live.
    pub root_namespace: String,
    /// Services that policies may ask to decide.
    pub providers: Arc<Providers>,
    /// Services that spans are told to.
    pub tracers: Arc<Tracers>,
    /// Forms of access logs.
    pub loggers: Arc<Loggers>,
    /// What is counted, logged and traced where no Telemetry says it.
    pub defaults: Arc<Defaults>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            cluster: "Kubernetes".to_owned(),
            domain: "cluster.local".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            network: String::new(),
            root_namespace: "istio-system".to_owned(),
            providers: Arc::default(),
            tracers: Arc::default(),
            loggers: Arc::default(),
            defaults: Arc::default(),
        }
    }
}

impl Mesh {
    /// The full DNS name of a service.
    #[must_use]
    pub fn hostname(&self, name: &str, namespace: &str) -> String {
        format!("{name}.{namespace}.svc.{}", self.domain)
    }

    /// The name under which the index keeps a host of a ServiceEntry: the host itself, which is no
    /// name of a Service where it has a dot, and with a dot at its end where it has none.
    #[must_use]
    pub fn entry_key(namespace: &str, host: &str) -> Key {
        if host.contains('.') {
            Key::new(namespace, host)
        } else {
            Key::new(namespace, format!("{host}."))
        }
    }

    /// The full DNS name of a service, by the name under which the index keeps it.
    #[must_use]
    pub fn host_of(&self, key: &Key) -> String {
        if key.name.contains('.') {
            key.name.trim_end_matches('.').to_owned()
        } else {
            self.hostname(&key.name, &key.namespace)
        }
    }

    /// The trust domain on the wire: empty means `cluster.local`.
    fn wire_trust_domain(&self) -> String {
        if self.trust_domain == "cluster.local" {
            String::new()
        } else {
            self.trust_domain.clone()
        }
    }
}

/// An address as the protocol carries it: 4 or 16 bytes, network order.
#[must_use]
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
