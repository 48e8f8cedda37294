//! A resource as it goes over the wire: encoded once, shared by every client that gets it.
//!
//! There are two for each pod, so that they are small: what is around the content is written when a
//! response is, and a workload by itself is a part of the bytes of its address.
//!
//! Its version is the hash of its content, so that replicas agree on it, a restart keeps it, and a
//! client that reconnects is sent nothing that it has. The encoding is therefore canonical: maps
//! are written in the order of their keys (protobuf lets a message be written in parts).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use mesh::proto::security::Authorization;
use mesh::proto::workload::{Service, Workload};
use mesh::workload::labels::extension;
use prost::Message;
use prost::encoding::{
    WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint,
};
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
    pub aliases: Box<[Arc<str>]>,
    /// The hash of its content.
    pub version: Version,
    /// Its kind.
    pub kind: ResourceType,
    /// Its content, encoded.
    pub value: Bytes,
}

/// The first bytes of a content's SHA-256, written in hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u8; 8]);

impl Version {
    fn of(content: &[u8]) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&Sha256::digest(content)[..8]);
        Self(first)
    }

    /// Whether a client says that it has this one.
    #[must_use]
    pub fn is(self, said: &str) -> bool {
        self.to_string() == said
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
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
            address(1, &body).into(),
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
        let mut value = self.value.clone();
        // The key of the member and its length, which `address` wrote.
        if decode_key(&mut value)
            .and_then(|_| decode_varint(&mut value))
            .is_err()
        {
            value.clear();
        }
        let mut version = self.version;
        if labels.len() > 0 {
            let more = Workload {
                extensions: vec![extension(labels)],
                ..Workload::default()
            };
            value = [&*value, more.encode_to_vec().as_slice()].concat().into();
            version = Version::of(&value);
        }
        Self {
            name: self.name.clone(),
            aliases: Box::default(),
            version,
            kind: ResourceType::Workload,
            value,
        }
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
            address(2, &service.encode_to_vec()).into(),
        )
    }

    /// A message of Envoy's, encoded already.
    #[must_use]
    pub fn envoy(kind: ResourceType, name: &str, value: Vec<u8>) -> Self {
        Self::new(kind, name, Box::default(), value.into())
    }

    /// A policy.
    #[must_use]
    pub fn authorization(policy: &Authorization) -> Self {
        let name = format!("{}/{}", policy.namespace, policy.name);
        Self::new(
            ResourceType::Authorization,
            &name,
            Box::default(),
            policy.encode_to_vec().into(),
        )
    }

    fn new(kind: ResourceType, name: &str, aliases: Box<[Arc<str>]>, value: Bytes) -> Self {
        Self {
            name: name.into(),
            aliases,
            version: Version::of(&value),
            kind,
            value,
        }
    }

    /// Writes it as `envoy.service.discovery.v3.Resource`, a field of a message of this tag; with the
    /// names by which a client may have asked, where it asked by name.
    pub fn write(&self, tag: u32, aliased: bool, buffer: &mut Vec<u8>) {
        let version = self.version.to_string();
        let aliases = if aliased { &*self.aliases } else { &[] };
        let url = self.kind.url();
        let any = field_len(url.len()) + field_len(self.value.len());
        let names = field_len(self.name.len());
        let aliased: usize = aliases.iter().map(|alias| field_len(alias.len())).sum();
        let length = field_len(version.len()) + field_len(any) + names + aliased;
        begin(tag, length, buffer);
        put(1, version.as_bytes(), buffer);
        begin(2, any, buffer);
        put(1, url.as_bytes(), buffer);
        put(2, &self.value, buffer);
        put(3, self.name.as_bytes(), buffer);
        for alias in aliases {
            put(4, alias.as_bytes(), buffer);
        }
    }

    /// About how many bytes that takes.
    #[must_use]
    pub fn size(&self) -> usize {
        /// The version, keys and lengths.
        const AROUND: usize = 32;
        self.value.len() + self.name.len() + self.kind.url().len() + AROUND
    }
}

/// The length of a field of this many bytes, with its key and length; tags here take one byte.
fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn begin(tag: u32, length: usize, buffer: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

fn put(tag: u32, bytes: &[u8], buffer: &mut Vec<u8>) {
    begin(tag, bytes.len(), buffer);
    buffer.extend_from_slice(bytes);
}

/// `istio.workload.Address` around an encoded member of its oneof.
fn address(tag: u32, body: &[u8]) -> Vec<u8> {
    let mut wrapped = Vec::with_capacity(field_len(body.len()));
    put(tag, body, &mut wrapped);
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
        let address = Address::decode(&*forward.value).unwrap();
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
