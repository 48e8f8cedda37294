//! The file of workloads, services and policies that a lab's ztunnels read instead of a control
//! plane, in the format of `LOCAL_XDS_PATH`. Rewritten as a whole and renamed into place, so a
//! reader never sees half of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_yaml_ng::Value;

use crate::addresses::Pair;

/// What every node's file says.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Document {
    /// By uid.
    #[serde(serialize_with = "values")]
    pub workloads: BTreeMap<String, WorkloadEntry>,
    /// By hostname.
    #[serde(serialize_with = "values")]
    pub services: BTreeMap<String, ServiceEntry>,
    /// As a test wrote them, so that a malformed one can be written too.
    pub policies: Vec<Value>,
}

/// A pod, a machine or another endpoint.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEntry {
    /// `cluster/group/kind/namespace/name`.
    pub uid: String,
    /// The pod's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its addresses.
    pub workload_ips: Vec<std::net::IpAddr>,
    /// `HBONE` once captured, else `TCP`.
    pub protocol: Protocol,
    /// The node it runs on.
    pub node: String,
    /// The deployment, for telemetry.
    pub workload_name: String,
    /// The app label.
    pub canonical_name: String,
    /// The version label.
    pub canonical_revision: String,
    /// Selector policies, `namespace/name`.
    pub authorization_policies: Vec<String>,
    /// `namespace/hostname` → service port → target port.
    pub services: BTreeMap<String, BTreeMap<u16, u16>>,
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// Plaintext.
    Tcp,
    /// mTLS tunnel on port 15008.
    Hbone,
}

/// A service.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEntry {
    /// Its short name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its full name.
    pub hostname: String,
    /// `network/address`.
    pub vips: Vec<String>,
    /// Service port → target port.
    pub ports: BTreeMap<u16, u16>,
    /// How endpoints are chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
}

/// How endpoints are chosen.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// `Passthrough`, `Strict`, `Failover`.
    pub mode: String,
    /// Scopes, most important first.
    pub routing_preferences: Vec<String>,
}

impl ServiceEntry {
    /// A service in `default` with virtual addresses.
    #[must_use]
    pub fn new(name: &str, namespace: &str, addresses: Pair, ports: &[(u16, u16)]) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            hostname: format!("{name}.{namespace}.svc.cluster.local"),
            vips: addresses
                .both()
                .iter()
                .map(|address| format!("/{address}"))
                .collect(),
            ports: ports.iter().copied().collect(),
            load_balancer: None,
        }
    }

    /// `namespace/hostname`, as workloads name it.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.hostname)
    }
}

impl Document {
    /// Writes the file.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_yaml_ng::to_string(self).context("writing YAML")?;
        let fresh = path.with_extension("new");
        fs::write(&fresh, text).with_context(|| format!("writing {}", fresh.display()))?;
        fs::rename(&fresh, path).with_context(|| format!("renaming to {}", path.display()))
    }
}

fn values<V: Serialize, S: serde::Serializer>(
    map: &BTreeMap<String, V>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(map.values())
}
