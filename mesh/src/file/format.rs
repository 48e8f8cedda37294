//! The format of the file: the fields of `istio.workload` and `istio.security` in camelCase, with
//! addresses as text. Also for writing one: every type is `Default` and serialises what it reads.
//!
//! ```yaml
//! workloads:
//! - uid: Kubernetes//Pod/default/sleep-1     # unique; the only field that must be set beside
//!   name: sleep-1                            # namespace
//!   namespace: default
//!   addresses: [10.244.1.5, "fd00::5"]
//!   tunnelProtocol: HBONE                    # or NONE, the default
//!   serviceAccount: sleep                    # default: default
//!   node: node-1
//!   services:
//!     default/sleep.default.svc.cluster.local:
//!     - {servicePort: 80, targetPort: 8080}
//!   authorizationPolicies: [default/only-sleep]
//! services:
//! - name: sleep
//!   namespace: default
//!   hostname: sleep.default.svc.cluster.local
//!   addresses: [/10.96.0.7]                  # network/ip, network/ip/prefix, or just the ip
//!   ports: [{servicePort: 80, targetPort: 8080}]
//! policies:
//! - name: only-sleep
//!   namespace: default
//!   scope: WORKLOAD_SELECTOR                 # or NAMESPACE, GLOBAL
//!   action: ALLOW                            # or DENY
//!   rules:
//!   - clauses:
//!     - matches:
//!       - principals: [cluster.local/ns/default/sa/sleep]
//!         notDestinationPorts: [9090]
//! ```
//!
//! Texts in policies are compared as in `AuthorizationPolicy`: `abc` exactly, `abc*` by prefix,
//! `*abc` by suffix, `*` if there is one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Document {
    /// Workloads.
    pub workloads: Vec<Workload>,
    /// Services.
    pub services: Vec<Service>,
    /// Policies.
    pub policies: Vec<Policy>,
}

/// `istio.workload.Workload`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // the fields are the message's own
pub struct Workload {
    pub uid: String,
    pub name: String,
    pub namespace: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    #[serde(skip_serializing_if = "is_default")]
    pub tunnel_protocol: TunnelProtocol,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_domain: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<Gateway>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_gateway: Option<Gateway>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub canonical_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub canonical_revision: String,
    #[serde(skip_serializing_if = "is_default")]
    pub workload_type: WorkloadType,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload_name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub native_tunnel: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, Vec<Port>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorization_policies: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub status: Status,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_id: String,
    #[serde(skip_serializing_if = "is_default")]
    pub locality: Locality,
    #[serde(skip_serializing_if = "is_default")]
    pub network_mode: NetworkMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
}

/// `istio.workload.Service`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // the fields are the message's own
pub struct Service {
    pub name: String,
    pub namespace: String,
    pub hostname: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<Gateway>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    #[serde(skip_serializing_if = "is_default")]
    pub ip_families: IpFamilies,
    #[serde(skip_serializing_if = "is_default")]
    pub canonical: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub ingress_use_waypoint: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub visibility: Visibility,
}

/// `istio.workload.Port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // the fields are the message's own
pub struct Port {
    pub service_port: u16,
    pub target_port: u16,
    #[serde(skip_serializing_if = "is_default")]
    pub app_protocol: AppProtocol,
}

/// `istio.workload.GatewayAddress`: either a service's name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gateway {
    /// `namespace/hostname`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `network/ip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// 0: 15008.
    #[serde(skip_serializing_if = "is_default")]
    pub hbone_mtls_port: u16,
}

/// `istio.workload.LoadBalancing`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // the fields are the message's own
pub struct LoadBalancing {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routing_preference: Vec<Place>,
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Mode,
    #[serde(skip_serializing_if = "is_default")]
    pub health_policy: HealthPolicy,
}

/// `istio.workload.Locality`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // the fields are the message's own
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub subzone: String,
}

/// `istio.security.Authorization`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // the fields are the message's own
pub struct Policy {
    pub name: String,
    pub namespace: String,
    pub scope: PolicyScope,
    pub action: Action,
    pub rules: Vec<Rule>,
    #[serde(skip_serializing_if = "is_default")]
    pub dry_run: bool,
}

/// `istio.security.Rule`: every clause must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // the fields are the message's own
pub struct Rule {
    pub clauses: Vec<Clause>,
}

/// `istio.security.Clause`: one match is enough.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // the fields are the message's own
pub struct Clause {
    pub matches: Vec<Match>,
}

/// `istio.security.Match`: every field must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)] // the fields are the message's own
pub struct Match {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<ServiceAccount>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_service_accounts: Vec<ServiceAccount>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_source_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ports: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ports: Vec<u16>,
}

/// `istio.security.ServiceAccountMatch`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)] // the fields are the message's own
pub struct ServiceAccount {
    pub namespace: String,
    pub service_account: String,
}

/// Enums by the names of the messages; the first one is the default.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident { $first:ident $(, $other:ident)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        #[allow(missing_docs)] // the names are the message's own
        pub enum $name { #[default] $first, $($other),* }
    )*};
}

names! {
    /// `istio.workload.TunnelProtocol`.
    TunnelProtocol { None, Hbone }
    /// `istio.workload.WorkloadType`.
    WorkloadType { Deployment, Cronjob, Pod, Job }
    /// `istio.workload.WorkloadStatus`.
    Status { Healthy, Unhealthy }
    /// `istio.workload.NetworkMode`.
    NetworkMode { Standard, HostNetwork }
    /// `istio.workload.AppProtocol`.
    AppProtocol { Unknown, Http11, Http2, Grpc, Tcp, Tls }
    /// `istio.workload.IPFamilies`.
    IpFamilies { Automatic, Ipv4Only, Ipv6Only, Dual }
    /// `istio.workload.Service.Visibility`.
    Visibility { Public, Namespace }
    /// `istio.workload.LoadBalancing.Scope`.
    Place { Region, Zone, Subzone, Node, Cluster, Network }
    /// `istio.workload.LoadBalancing.Mode`.
    Mode { UnspecifiedMode, Strict, Failover, Passthrough }
    /// `istio.workload.LoadBalancing.HealthPolicy`.
    HealthPolicy { OnlyHealthy, AllowAll }
    /// `istio.security.Scope`.
    PolicyScope { Global, Namespace, WorkloadSelector }
    /// `istio.security.Action`.
    Action { Allow, Deny }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
