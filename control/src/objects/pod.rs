//! Pods: addresses, identity, owner and readiness, as far as a proxy cares.

pub mod lean;

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::workload_entry::Entry;
use super::{Key, Labels};

/// Set by the node agent once it has captured the pod; from then on peers use HBONE for it.
pub const REDIRECTION: &str = "ambient.istio.io/redirection";
/// A pod with this label and the value `http` takes HBONE itself, without a node proxy.
const TUNNEL: &str = "networking.istio.io/tunnel";
/// Overrides the workload name taken from the owner.
const WORKLOAD_NAME: &str = "service.istio.io/workload-name";

/// What control knows of a pod that runs or will.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its name.
    pub key: Key,
    /// `metadata.uid`: a pod of the same name made anew is another pod.
    pub uid: Box<str>,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// How peers reach it.
    pub tunnel: Tunnel,
    /// `status.podIPs`; empty before the pod has a network.
    pub addresses: Vec<IpAddr>,
    /// `spec.nodeName`; empty before it is scheduled.
    pub node: Arc<str>,
    /// `spec.serviceAccountName`.
    pub service_account: Arc<str>,
    /// Shares its node's addresses.
    pub host_network: bool,
    /// Condition Ready is true, and it is not being deleted.
    pub ready: bool,
    /// What created it.
    pub owner: Owner,
    /// Named TCP ports of its containers, for services that name their target port.
    pub ports: Vec<(String, u16)>,
    /// What else is known of a WorkloadEntry; none for a pod.
    pub entry: Option<Box<Entry>>,
}

/// How peers reach a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tunnel {
    /// In plaintext.
    #[default]
    None,
    /// Over HBONE, by its node's proxy.
    Captured,
    /// Over HBONE, by itself.
    Native,
}

/// What created a pod: its name for telemetry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The workload's name.
    pub name: Arc<str>,
    /// The workload's kind.
    pub kind: OwnerKind,
}

/// The kinds of owner that the workload protocol knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKind {
    /// A Deployment, or another controller that keeps replicas.
    Deployment,
    /// A Job of a CronJob.
    CronJob,
    /// No owner.
    Pod,
    /// A Job.
    Job,
}

impl Pod {
    /// `None` for a pod that has ended: it holds no address and no identity any more.
    #[must_use]
    pub fn from_kubernetes(pod: &v1::Pod) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref());
        if matches!(
            status.and_then(|s| s.phase.as_deref()),
            Some("Succeeded" | "Failed")
        ) {
            return None;
        }
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let none = Labels::new();
        let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
        Some(Self {
            key: Key::of(&pod.metadata),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            tunnel: tunnel(&labels, annotations),
            addresses: addresses(status),
            node: spec.node_name.as_deref().unwrap_or_default().into(),
            service_account: spec
                .service_account_name
                .as_deref()
                .unwrap_or_default()
                .into(),
            host_network: spec.host_network.unwrap_or_default(),
            ready: pod.metadata.deletion_timestamp.is_none() && is_ready(status),
            owner: owner(pod, &labels),
            ports: named_ports(spec),
            entry: None,
            labels: Arc::new(labels),
        })
    }

    /// The container port of this name.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<u16> {
        self.ports
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, port)| *port)
    }
}

/// How the labels and annotations of an object say that it is reached.
pub(super) fn tunnel(labels: &Labels, annotations: &Labels) -> Tunnel {
    if labels.get(TUNNEL).is_some_and(|value| value == "http") {
        Tunnel::Native
    } else if annotations
        .get(REDIRECTION)
        .is_some_and(|value| value == "enabled")
    {
        Tunnel::Captured
    } else {
        Tunnel::None
    }
}

/// An address that does not parse makes the pod unreachable: better than half of its addresses.
fn addresses(status: Option<&v1::PodStatus>) -> Vec<IpAddr> {
    let Some(status) = status else {
        return Vec::new();
    };
    let listed: Vec<&str> = match &status.pod_ips {
        Some(ips) if !ips.is_empty() => ips.iter().map(|ip| ip.ip.as_str()).collect(),
        _ => status
            .pod_ip
            .as_deref()
            .into_iter()
            .filter(|ip| !ip.is_empty())
            .collect(),
    };
    listed
        .iter()
        .map(|ip| ip.parse())
        .collect::<Result<_, _>>()
        .unwrap_or_default()
}

fn is_ready(status: Option<&v1::PodStatus>) -> bool {
    status
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|all| {
            all.iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
}

/// A Deployment's pods are owned by a ReplicaSet whose name ends in the template's hash; a
/// CronJob's by a Job whose name ends in a time stamp.
fn owner(pod: &v1::Pod, labels: &Labels) -> Owner {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let generated = pod
        .metadata
        .generate_name
        .as_deref()
        .is_some_and(|prefix| !prefix.is_empty());
    let references = pod.metadata.owner_references.iter().flatten();
    let controller = references
        .filter(|_| generated)
        .find(|reference| reference.controller == Some(true));
    let (derived, kind) = controller.map_or((name, OwnerKind::Pod), |reference| {
        controlled(reference, labels)
    });
    let name = labels.get(WORKLOAD_NAME).map_or(derived, String::as_str);
    Owner {
        name: name.into(),
        kind,
    }
}

fn controlled<'a>(reference: &'a OwnerReference, labels: &'a Labels) -> (&'a str, OwnerKind) {
    let name = reference.name.as_str();
    let without_hash = |label: &str| {
        labels
            .get(label)
            .filter(|hash| !hash.is_empty())
            .and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'))
    };
    match reference.kind.as_str() {
        "ReplicaSet" => {
            let deployment = without_hash("pod-template-hash")
                .or_else(|| without_hash("rollouts-pod-template-hash"));
            (deployment.unwrap_or(name), OwnerKind::Deployment)
        }
        "ReplicationController" => (
            labels.get("deploymentconfig").map_or(name, String::as_str),
            OwnerKind::Deployment,
        ),
        "Job" => match name.rsplit_once('-') {
            Some((cron_job, stamp)) if is_time_stamp(stamp) && !cron_job.is_empty() => {
                (cron_job, OwnerKind::CronJob)
            }
            _ => (name, OwnerKind::Job),
        },
        // StatefulSets, DaemonSets and controllers of other kinds: named replicas all the same.
        _ => (name, OwnerKind::Deployment),
    }
}

/// The minutes since 1970 that the CronJob controller puts at the end of its Jobs' names.
fn is_time_stamp(text: &str) -> bool {
    (8..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn named_ports(spec: &v1::PodSpec) -> Vec<(String, u16)> {
    // Init containers that restart always are sidecars: they run beside the others.
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .filter(|port| {
            port.protocol
                .as_deref()
                .is_none_or(|protocol| protocol == "TCP")
        })
        .filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests;
