//! A resource as it goes over the wire: encoded once, shared by every client that gets it.
//!
//! Its version is the hash of its content, so that replicas agree on it, a restart keeps it, and a
//! client that reconnects is sent nothing that it has. The encoding is therefore canonical: maps
//! are written in the order of their keys (protobuf lets a message be written in parts).

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use mesh::proto::discovery::Resource as Envelope;
use mesh::proto::security::Authorization;
use mesh::proto::workload::{Service, Workload};
use mesh::workload::labels::extension;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use sha2::{Digest, Sha256};

/// The kinds of resource that node proxies subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// Workloads and services.
    Address,
    /// L4 policies.
    Authorization,
    /// Envoy's clusters.
    Cluster,
    /// The endpoints of Envoy's clusters.
    Endpoints,
    /// Envoy's listeners.
    Listener,
    /// Workloads alone, as waypoints are told them.
    Workload,
    /// Envoy's route tables: inline in the listeners, so there are none by themselves.
    Route,
    /// Secrets: a waypoint has its certificate signed itself, so there are none.
    Secret,
    /// Configuration of single filters: there is none.
    Extension,
}

impl ResourceType {
    /// Every kind, in the order in which a client shall get them: policies before the workloads
    /// that name them.
    pub const ALL: [Self; 2] = [Self::Authorization, Self::Address];

    /// What a waypoint may ask for, in the order in which it shall get it: clusters and endpoints
    /// before the listeners that route to them.
    pub const WAYPOINT: [Self; 7] = [
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Workload,
        Self::Route,
        Self::Secret,
        Self::Extension,
    ];

    /// Its type URL.
    #[must_use]
    pub fn url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Workload => "type.googleapis.com/istio.workload.Workload",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        }
    }

    /// The kind of this type URL.
    #[must_use]
    pub fn from_url(url: &str) -> Option<Self> {
        let all = Self::ALL.into_iter().chain(Self::WAYPOINT);
        all.into_iter().find(|kind| kind.url() == url)
    }

    /// Istio's short name for it, in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Address => "wds",
            Self::Authorization => "wads",
            Self::Cluster => "cds",
            Self::Endpoints => "eds",
            Self::Listener => "lds",
            Self::Workload => "workload",
            Self::Route => "rds",
            Self::Secret => "sds",
            Self::Extension => "ecds",
        }
    }
}

/// An encoded resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: Arc<str>,
    /// Other names under which a client may ask for it.
    pub aliases: Vec<Arc<str>>,
    /// The hash of its content.
    pub version: String,
    /// `envoy.service.discovery.v3.Resource`, without aliases.
    pub body: Bytes,
}

impl Resource {
    /// A workload, as `istio.workload.Address`.
    #[must_use]
    pub fn workload(workload: &mut Workload) -> Self {
        let services = std::mem::take(&mut workload.services);
        let mut body = workload.encode_to_vec();
        let mut names: Vec<&String> = services.keys().collect();
        names.sort_unstable();
        for name in names {
            let mut part = Workload::default();
            part.services.insert(name.clone(), services[name].clone());
            body.extend_from_slice(&part.encode_to_vec());
        }
        workload.services = services;
        let shared =
            workload.network_mode == i32::from(mesh::proto::workload::NetworkMode::HostNetwork);
        let addresses: &[Vec<u8>] = if shared { &[] } else { &workload.addresses };
        let aliases = addresses
            .iter()
            .filter_map(|octets| alias(&workload.network, octets));
        Self::new(
            ResourceType::Address,
            &workload.uid,
            aliases.collect(),
            &address(1, &body),
        )
    }

    /// The workload inside an `istio.workload.Address`, by itself, with those of its labels that
    /// routes ask for: what waypoints are told.
    #[must_use]
    pub fn workload_alone<'a>(
        &self,
        labels: impl IntoIterator<Item = (&'a str, &'a str), IntoIter: ExactSizeIterator>,
    ) -> Self {
        let labels = labels.into_iter();
        let value = self.value();
        let mut inner = value.as_slice();
        // The key of the member and its length, which `address` wrote.
        let read = decode_key(&mut inner).and_then(|_| decode_varint(&mut inner));
        let body = if read.is_ok() { inner } else { &[] };
        if labels.len() == 0 {
            return Self::new(ResourceType::Workload, &self.name, Vec::new(), body);
        }
        let more = Workload {
            extensions: vec![extension(labels)],
            ..Workload::default()
        };
        let body = [body, more.encode_to_vec().as_slice()].concat();
        Self::new(ResourceType::Workload, &self.name, Vec::new(), &body)
    }

    /// A service, as `istio.workload.Address`.
    #[must_use]
    pub fn service(service: &Service) -> Self {
        let name = format!("{}/{}", service.namespace, service.hostname);
        let aliases = service
            .addresses
            .iter()
            // A block has no name of its own.
            .filter(|address| address.length.is_none())
            .filter_map(|address| alias(&address.network, &address.address));
        Self::new(
            ResourceType::Address,
            &name,
            aliases.collect(),
            &address(2, &service.encode_to_vec()),
        )
    }

    /// A message of Envoy's, encoded already.
    #[must_use]
    pub fn envoy(kind: ResourceType, name: &str, value: &[u8]) -> Self {
        Self::new(kind, name, Vec::new(), value)
    }

    /// A policy.
    #[must_use]
    pub fn authorization(policy: &Authorization) -> Self {
        let name = format!("{}/{}", policy.namespace, policy.name);
        Self::new(
            ResourceType::Authorization,
            &name,
            Vec::new(),
            &policy.encode_to_vec(),
        )
    }

    fn new(kind: ResourceType, name: &str, aliases: Vec<Arc<str>>, value: &[u8]) -> Self {
        let digest = Sha256::digest(value);
        let version: String = digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let envelope = Envelope {
            version: version.clone(),
            resource: Some(prost_types::Any {
                type_url: kind.url().to_owned(),
                value: value.to_vec(),
            }),
            name: name.to_owned(),
            aliases: Vec::new(),
        };
        Self {
            name: name.into(),
            aliases,
            version,
            body: envelope.encode_to_vec().into(),
        }
    }

    /// The value inside, decoded again: for the debug view and tests.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        Envelope::decode(self.body.clone())
            .ok()
            .and_then(|envelope| envelope.resource)
            .map(|any| any.value)
            .unwrap_or_default()
    }
}

/// `istio.workload.Address` around an encoded member of its oneof.
fn address(tag: u32, body: &[u8]) -> Vec<u8> {
    let mut wrapped = Vec::with_capacity(body.len() + 6);
    encode_key(tag, WireType::LengthDelimited, &mut wrapped);
    encode_varint(body.len() as u64, &mut wrapped);
    wrapped.extend_from_slice(body);
    wrapped
}

/// `network/ip`: the name for on-demand look-ups.
fn alias(network: &str, octets: &[u8]) -> Option<Arc<str>> {
    let address: IpAddr = match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok()?.into(),
        _ => <[u8; 16]>::try_from(octets).ok()?.into(),
    };
    Some(format!("{network}/{address}").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::proto::workload::{Address, PortList, address};

    #[test]
    fn the_order_of_a_map_does_not_change_the_version() {
        let names: Vec<String> = (0..40)
            .map(|n| format!("default/s{n}.default.svc.cluster.local"))
            .collect();
        let with = |names: &mut dyn Iterator<Item = &String>| {
            let mut workload = Workload {
                uid: "u".to_owned(),
                ..Workload::default()
            };
            workload
                .services
                .extend(names.map(|name| (name.clone(), PortList::default())));
            Resource::workload(&mut workload)
        };
        let forward = with(&mut names.iter());
        assert_eq!(forward, with(&mut names.iter().rev()));
        let address = Address::decode(forward.value().as_slice()).unwrap();
        let Some(address::Type::Workload(workload)) = address.r#type else {
            panic!("not a workload")
        };
        assert_eq!(workload.services.len(), 40);
        assert_eq!(workload.uid, "u");
    }

    #[test]
    fn addresses_are_aliases_unless_they_are_shared() {
        let mut workload = Workload {
            uid: "u".to_owned(),
            addresses: vec![vec![10, 0, 0, 1], [0; 16].to_vec()],
            ..Workload::default()
        };
        let names: Vec<String> = Resource::workload(&mut workload)
            .aliases
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["/10.0.0.1", "/::"]);
        workload.network_mode = 1;
        assert!(Resource::workload(&mut workload).aliases.is_empty());
    }
}
