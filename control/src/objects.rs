//! What control remembers of Kubernetes' objects: only the fields that reach a proxy, parsed.
//!
//! A whole Pod is several kilobytes; what a node proxy learns of it is some hundred bytes. The
//! watch converts each object the moment it arrives and drops the rest, so that ten thousand pods
//! cost megabytes and not tens of them. Knows no client and no stream.

pub mod authorization_policy;
pub mod destination_rule;
pub mod duration;
pub mod endpoint_slice;
pub mod gateway;
pub mod gateway_route;
pub mod mesh_config;
mod passed_over;
mod patterns;
pub mod peer_authentication;
pub mod place;
pub mod pod;
pub mod reference_grant;
pub mod request_authentication;
pub mod routing;
pub mod service;
pub mod service_entry;
pub mod telemetry;
pub mod virtual_service;
pub mod waypoint_use;
pub mod workload_entry;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kube::api::ObjectMeta;

pub use authorization_policy::AuthorizationPolicy;
pub use endpoint_slice::EndpointSlice;
pub use gateway::{Gateway, GatewayClass};
pub use mesh_config::MeshConfig;
pub use peer_authentication::PeerAuthentication;
pub use place::{Namespace, Node};
pub use pod::Pod;
pub use routing::Routing;
pub use service::Service;

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// `namespace/name`; the namespace of a cluster-wide object is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name in it.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object, from its metadata.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether every label of `selector` is among `labels`. An empty selector selects everything.
#[must_use]
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// One change of the cluster, as the watch reports it and the index takes it.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is new or different.
    Applied(Object),
    /// The object is gone.
    Removed(Kind, Key),
}

impl Change {
    /// Which kind of object changed.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Applied(object) => object.kind(),
            Self::Removed(kind, _) => *kind,
        }
    }
}

/// An object of a kind that control watches.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A namespace.
    Namespace(Namespace),
    /// A node.
    Node(Node),
    /// A pod.
    Pod(Box<Pod>),
    /// A service.
    Service(Box<Service>),
    /// A slice of a service's endpoints.
    EndpointSlice(Box<EndpointSlice>),
    /// An L4 (or L7) authorisation policy.
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    /// Which mutual TLS a workload asks of its callers.
    PeerAuthentication(Box<PeerAuthentication>),
    /// A gateway: a waypoint, if it is of that class.
    Gateway(Box<Gateway>),
    /// A class of gateways.
    GatewayClass(Box<GatewayClass>),
    /// An object of the routing API.
    Routing(Box<Routing>),
    /// The mesh's configuration.
    MeshConfig(Box<MeshConfig>),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
            Self::Gateway(_) => Kind::Gateway,
            Self::GatewayClass(_) => Kind::GatewayClass,
            Self::Routing(routing) => routing.kind,
            Self::MeshConfig(_) => Kind::MeshConfig,
        }
    }

    /// Its namespace and name.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Namespace(namespace) => Key::new("", namespace.name.as_str()),
            Self::Node(node) => Key::new("", node.name.as_str()),
            Self::Pod(pod) => pod.key.clone(),
            Self::Service(service) => service.key.clone(),
            Self::EndpointSlice(slice) => slice.key.clone(),
            Self::AuthorizationPolicy(policy) => policy.source.key.clone(),
            Self::PeerAuthentication(policy) => policy.source.key.clone(),
            Self::Gateway(gateway) => gateway.source.key.clone(),
            Self::GatewayClass(class) => class.source.key.clone(),
            Self::Routing(routing) => routing.source.key.clone(),
            Self::MeshConfig(config) => config.key.clone(),
        }
    }
}

/// The kinds that control watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// v1 Namespace.
    Namespace,
    /// v1 Node.
    Node,
    /// v1 Pod.
    Pod,
    /// v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// security.istio.io/v1 AuthorizationPolicy.
    AuthorizationPolicy,
    /// security.istio.io/v1 PeerAuthentication.
    PeerAuthentication,
    /// gateway.networking.k8s.io/v1 Gateway.
    Gateway,
    /// gateway.networking.k8s.io/v1 GatewayClass.
    GatewayClass,
    /// networking.istio.io/v1 VirtualService.
    VirtualService,
    /// networking.istio.io/v1 DestinationRule.
    DestinationRule,
    /// networking.istio.io/v1 ServiceEntry.
    ServiceEntry,
    /// networking.istio.io/v1 WorkloadEntry.
    WorkloadEntry,
    /// security.istio.io/v1 RequestAuthentication.
    RequestAuthentication,
    /// telemetry.istio.io/v1 Telemetry.
    Telemetry,
    /// gateway.networking.k8s.io/v1 HTTPRoute.
    HttpRoute,
    /// gateway.networking.k8s.io/v1 GRPCRoute.
    GrpcRoute,
    /// gateway.networking.k8s.io/v1alpha2 TCPRoute.
    TcpRoute,
    /// gateway.networking.k8s.io/v1alpha2 TLSRoute.
    TlsRoute,
    /// gateway.networking.k8s.io/v1beta1 ReferenceGrant.
    ReferenceGrant,
    /// v1 ConfigMap: the mesh's configuration, which is one.
    MeshConfig,
}

impl Kind {
    /// Every kind, in the order in which they are watched.
    pub const ALL: [Self; 21] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::AuthorizationPolicy,
        Self::PeerAuthentication,
        Self::GatewayClass,
        Self::Gateway,
        Self::VirtualService,
        Self::DestinationRule,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::RequestAuthentication,
        Self::Telemetry,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TcpRoute,
        Self::TlsRoute,
        Self::ReferenceGrant,
        Self::MeshConfig,
    ];

    /// The routing API: kinds that waypoints are made from. ServiceEntries and WorkloadEntries are told to node
    /// proxies too.
    pub const ROUTING: [Self; 11] = [
        Self::VirtualService,
        Self::DestinationRule,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::RequestAuthentication,
        Self::Telemetry,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TcpRoute,
        Self::TlsRoute,
        Self::ReferenceGrant,
    ];

    /// Its API group and the version that is read.
    #[must_use]
    pub fn group(self) -> (&'static str, &'static str) {
        match self {
            Self::Namespace | Self::Node | Self::Pod | Self::Service | Self::MeshConfig => {
                ("", "v1")
            }
            Self::EndpointSlice => ("discovery.k8s.io", "v1"),
            Self::AuthorizationPolicy | Self::PeerAuthentication | Self::RequestAuthentication => {
                ("security.istio.io", "v1")
            }
            Self::VirtualService
            | Self::DestinationRule
            | Self::ServiceEntry
            | Self::WorkloadEntry => ("networking.istio.io", "v1"),
            Self::Telemetry => ("telemetry.istio.io", "v1"),
            Self::Gateway | Self::GatewayClass | Self::HttpRoute | Self::GrpcRoute => {
                ("gateway.networking.k8s.io", "v1")
            }
            Self::TcpRoute | Self::TlsRoute => ("gateway.networking.k8s.io", "v1alpha2"),
            Self::ReferenceGrant => ("gateway.networking.k8s.io", "v1beta1"),
        }
    }

    /// The name as `kubectl` users know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::Gateway => "Gateway",
            Self::GatewayClass => "GatewayClass",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::Telemetry => "Telemetry",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TcpRoute => "TCPRoute",
            Self::TlsRoute => "TLSRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::MeshConfig => "ConfigMap",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a policy came from and what its status said when it was read: what the status writer needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySource {
    /// The policy's name.
    pub key: Key,
    /// `metadata.generation`: which version of the specification was read.
    pub generation: i64,
    /// `metadata.resourceVersion`: the precondition of a status write.
    pub resource_version: String,
    /// `metadata.creationTimestamp` in seconds: the older of two conflicting policies wins.
    pub created: i64,
    /// `status.conditions` as it was, other writers' conditions among them.
    pub conditions: Vec<serde_json::Value>,
}

impl Default for Key {
    fn default() -> Self {
        Self::new("", "")
    }
}
