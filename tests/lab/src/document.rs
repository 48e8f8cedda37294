//! The file of workloads, services and policies that a lab's ztunnels read instead of a control
//! plane, in the types of [`mesh::file`]. Rewritten as a whole and renamed into place, so a reader
//! never sees half of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use mesh::file::format::{
    Action, Clause, Match, Policy, PolicyScope, Port, Rule, Service, Workload,
};
use serde_yaml_ng::Value;

use crate::addresses::Pair;

/// What every node's file says.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// By uid.
    pub workloads: BTreeMap<String, Workload>,
    /// By hostname.
    pub services: BTreeMap<String, Service>,
    /// By `namespace/name`.
    pub policies: BTreeMap<String, Policy>,
    /// Further policies as a test wrote them, so that a malformed one can be written.
    pub raw_policies: Vec<Value>,
}

impl Document {
    /// Writes the file.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut policies: Vec<Value> = self
            .policies
            .values()
            .map(serde_yaml_ng::to_value)
            .collect::<Result<_, _>>()?;
        policies.extend(self.raw_policies.iter().cloned());
        let whole = BTreeMap::from([
            (
                "workloads",
                serde_yaml_ng::to_value(self.workloads.values().collect::<Vec<_>>())?,
            ),
            (
                "services",
                serde_yaml_ng::to_value(self.services.values().collect::<Vec<_>>())?,
            ),
            ("policies", Value::Sequence(policies)),
        ]);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_yaml_ng::to_string(&whole)?)
            .with_context(|| format!("writing {}", fresh.display()))?;
        fs::rename(&fresh, path).with_context(|| format!("renaming to {}", path.display()))
    }
}

/// A service with virtual addresses.
#[must_use]
pub fn service(name: &str, namespace: &str, addresses: Pair, ports: &[(u16, u16)]) -> Service {
    Service {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        hostname: format!("{name}.{namespace}.svc.cluster.local"),
        addresses: addresses
            .both()
            .iter()
            .map(|address| format!("/{address}"))
            .collect(),
        ports: self::ports(ports),
        ..Service::default()
    }
}

/// (service port, target port) pairs.
#[must_use]
pub fn ports(pairs: &[(u16, u16)]) -> Vec<Port> {
    pairs
        .iter()
        .map(|(service_port, target_port)| port(*service_port, *target_port))
        .collect()
}

fn port(service_port: u16, target_port: u16) -> Port {
    Port {
        service_port,
        target_port,
        ..Port::default()
    }
}

/// An ALLOW policy for the namespace `default` with one match.
#[must_use]
pub fn allow(name: &str, matching: Match) -> Policy {
    policy(name, Action::Allow, vec![rule(vec![matching])])
}

/// A DENY policy for the namespace `default` with one match.
#[must_use]
pub fn deny(name: &str, matching: Match) -> Policy {
    policy(name, Action::Deny, vec![rule(vec![matching])])
}

/// A policy for the namespace `default`.
#[must_use]
pub fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Policy {
    Policy {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        scope: PolicyScope::Namespace,
        action,
        rules,
        dry_run: false,
    }
}

/// A rule with one clause, of which one match is enough.
#[must_use]
pub fn rule(matches: Vec<Match>) -> Rule {
    Rule {
        clauses: vec![Clause { matches }],
    }
}
