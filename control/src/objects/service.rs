//! Services: addresses, ports and how their endpoints are chosen. Each host of a ServiceEntry is one too.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::place::TRAFFIC_DISTRIBUTION;
use super::service_entry::ServiceEntry;
use super::waypoint_use::{UseWaypoint, ingress_use, is_waypoint};
use super::{Key, Kind, Labels, Pod};

/// What control knows of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub key: Key,
    /// Virtual addresses; empty for a headless service.
    pub addresses: Vec<IpAddr>,
    /// `clusterIP: None`: its pods are called by their own addresses.
    pub headless: bool,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Which pods of its namespace are its endpoints; `None` when EndpointSlices are written by
    /// somebody else.
    pub selector: Option<Labels>,
    /// `spec.ipFamilies`.
    pub families: Families,
    /// `spec.trafficDistribution`.
    pub distribution: Option<String>,
    /// Istio's annotation of the same meaning, for clusters without the field.
    pub distribution_annotation: Option<String>,
    /// `spec.internalTrafficPolicy: Local`.
    pub local: bool,
    /// Endpoints that are not ready are used too.
    pub publish_not_ready: bool,
    /// `metadata.creationTimestamp` in seconds: of two for one address the older counts.
    pub created: i64,
    /// The waypoint that it asks for.
    pub waypoint: UseWaypoint,
    /// Whether ingress gateways shall use that waypoint, if it says so itself.
    pub ingress_use_waypoint: Option<bool>,
    /// Whether it is a waypoint's own service.
    pub of_waypoint: bool,
    /// The ServiceEntry that it is a host of, if Kubernetes does not know it.
    pub entry: Option<EntryOf>,
}

/// Which ServiceEntry a service is of.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryOf {
    /// The object.
    pub object: Key,
    /// What it says.
    pub entry: Arc<ServiceEntry>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty when the service has one port only.
    pub name: String,
    /// The port of the service.
    pub port: u16,
    /// The port of the pod.
    pub target: TargetPort,
    /// `spec.ports[].appProtocol`.
    pub app_protocol: Option<String>,
    /// Whether it is UDP: known, never captured.
    pub udp: bool,
}

/// The pod's port that a service port stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container port, which may differ from pod to pod.
    Name(String),
    /// The container port of this name, or where there is none this number: a ServiceEntry's.
    NameOr(String, u16),
}

impl TargetPort {
    /// This pod's number; `None` where the pod has no port of the name.
    #[must_use]
    pub fn of(&self, pod: &Pod) -> Option<u16> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(name) => pod.port(name),
            Self::NameOr(name, number) => Some(pod.port(name).unwrap_or(*number)),
        }
    }
}

/// Which IP versions a service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// Not said.
    #[default]
    Unknown,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Dual,
}

impl Service {
    /// The object that it is, or of which it is a host.
    #[must_use]
    pub fn object(&self) -> (Kind, &Key) {
        match &self.entry {
            Some(of) => (Kind::ServiceEntry, &of.object),
            None => (Kind::Service, &self.key),
        }
    }

    /// `None` for a service that no proxy routes: an ExternalName is a DNS alias, which the
    /// cluster's DNS answers.
    #[must_use]
    pub fn from_kubernetes(service: &v1::Service) -> Option<Self> {
        let key = Key::of(&service.metadata);
        let none = Labels::new();
        let labels = service.metadata.labels.as_ref().unwrap_or(&none);
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            tracing::debug!(service = %key, "ignored: an ExternalName is a DNS alias and has no endpoints");
            return None;
        }
        let listed = match &spec.cluster_ips {
            Some(ips) if !ips.is_empty() => ips.clone(),
            _ => spec.cluster_ip.clone().into_iter().collect(),
        };
        Some(Self {
            headless: listed.iter().any(|ip| ip == "None"),
            addresses: listed.iter().filter_map(|ip| ip.parse().ok()).collect(),
            ports: spec.ports.iter().flatten().filter_map(port).collect(),
            selector: spec
                .selector
                .clone()
                .filter(|selector| !selector.is_empty()),
            families: families(spec),
            distribution: spec.traffic_distribution.clone(),
            distribution_annotation: service
                .metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(TRAFFIC_DISTRIBUTION))
                .cloned(),
            local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            created: service
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0.as_second())
                .unwrap_or_default(),
            waypoint: UseWaypoint::of(labels, &key.namespace),
            ingress_use_waypoint: ingress_use(labels),
            of_waypoint: is_waypoint(labels),
            entry: None,
            key,
        })
    }

    /// A host of a ServiceEntry; `given` are addresses for it where the entry has none.
    #[must_use]
    pub fn of_entry(key: Key, host: &str, of: EntryOf, created: i64, given: &[IpAddr]) -> Self {
        let entry = of.entry.clone();
        let ports = entry.spec.ports.iter().filter_map(|port| {
            let number = u16::try_from(port.number).ok()?;
            let target = match u16::try_from(port.target_port).ok()? {
                0 => number,
                target => target,
            };
            Some(ServicePort {
                name: port.name.clone(),
                port: number,
                target: TargetPort::NameOr(port.name.clone(), target),
                app_protocol: Some(port.protocol.to_ascii_lowercase()),
                udp: port.protocol.eq_ignore_ascii_case("udp"),
            })
        });
        let single = entry
            .spec
            .blocks()
            .filter(|block| block.prefix_len() == block.max_prefix_len());
        let addresses: Vec<IpAddr> = if entry.wants_address(host) {
            given.to_vec()
        } else {
            single.map(|block| block.addr()).collect()
        };
        let selector = entry.spec.workload_selector.as_ref();
        Self {
            addresses,
            headless: false,
            ports: ports.collect(),
            selector: selector
                .map(|selector| selector.labels.clone())
                .filter(|labels| !labels.is_empty()),
            families: Families::Unknown,
            distribution: None,
            distribution_annotation: entry.distribution.clone(),
            local: false,
            publish_not_ready: false,
            created,
            waypoint: UseWaypoint::of(&entry.labels, &key.namespace),
            ingress_use_waypoint: ingress_use(&entry.labels),
            of_waypoint: false,
            entry: Some(of),
            key,
        }
    }
}

fn port(port: &v1::ServicePort) -> Option<ServicePort> {
    let number = u16::try_from(port.port).ok()?;
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        port: number,
        target: match &port.target_port {
            Some(IntOrString::Int(target)) => TargetPort::Number(u16::try_from(*target).ok()?),
            Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
            // The API server fills it in: the same number.
            None => TargetPort::Number(number),
        },
        app_protocol: port.app_protocol.clone(),
        udp: port.protocol.as_deref() == Some("UDP"),
    })
}

fn families(spec: &v1::ServiceSpec) -> Families {
    match spec.ip_families.as_deref() {
        Some([family]) if family == "IPv6" => Families::V6,
        Some([_]) => Families::V4,
        Some([_, _]) => Families::Dual,
        _ => Families::Unknown,
    }
}
