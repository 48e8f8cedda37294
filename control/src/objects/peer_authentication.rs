//! PeerAuthentication, security.istio.io/v1: which mutual TLS a workload asks of its callers.

use std::collections::BTreeMap;

use kube::core::DynamicObject;
use serde::Deserialize;

use super::authorization_policy::{Selector, source, spec_noting};
use super::{Labels, PolicySource};

/// A policy as read. Unlike an AuthorizationPolicy it is parsed whole, since other policies
/// inherit from it.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerAuthentication {
    /// Where it came from.
    pub source: PolicySource,
    /// What it says.
    pub rule: PeerRule,
    /// What in it is wrong, if anything; `rule` is then read in the stricter way.
    pub problems: Vec<String>,
    /// Its fields that nobody reads.
    pub passed_over: Vec<String>,
}

/// What a PeerAuthentication says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerRule {
    /// Which workloads; `None`: all of the namespace, or of the mesh from the root namespace.
    pub selector: Option<Labels>,
    /// For every port.
    pub mode: Mode,
    /// For single ports.
    pub ports: BTreeMap<u16, Mode>,
}

/// How much mutual TLS is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What the parent says.
    #[default]
    Unset,
    /// Plaintext.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    selector: Option<Selector>,
    mtls: Option<MutualTls>,
    port_level_mtls: BTreeMap<String, MutualTls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MutualTls {
    mode: Option<String>,
}

impl From<&DynamicObject> for PeerAuthentication {
    fn from(object: &DynamicObject) -> Self {
        let (mut problems, mut passed_over) = (Vec::new(), Vec::new());
        let rule = match spec_noting::<Spec>(object, &mut passed_over) {
            Ok(spec) => spec.into_rule(&mut problems),
            Err(problem) => {
                problems.push(problem);
                // Nothing is known of its selector either: the whole namespace, strictly.
                PeerRule {
                    mode: Mode::Strict,
                    ..PeerRule::default()
                }
            }
        };
        Self {
            source: source(object),
            rule,
            problems,
            passed_over,
        }
    }
}

impl Spec {
    fn into_rule(self, problems: &mut Vec<String>) -> PeerRule {
        let mode = parse_mode("mtls.mode", self.mtls.as_ref(), problems);
        let mut ports = BTreeMap::new();
        for (port, mtls) in &self.port_level_mtls {
            match port.parse() {
                Ok(0) | Err(_) => problems.push(format!(
                    "portLevelMtls has key {port:?}: it must be a port from 1 to 65535"
                )),
                Ok(number) => {
                    ports.insert(
                        number,
                        parse_mode(&format!("portLevelMtls[{port}].mode"), Some(mtls), problems),
                    );
                }
            }
        }
        let selector = self
            .selector
            .map(|selector| selector.match_labels)
            .filter(|labels| !labels.is_empty());
        if !ports.is_empty() && selector.is_none() {
            problems.push(
                "portLevelMtls needs a selector with matchLabels: it has no effect without"
                    .to_owned(),
            );
        }
        PeerRule {
            selector,
            mode,
            ports,
        }
    }
}

/// A mode that is no mode is read as STRICT: a typing error must not open a port.
fn parse_mode(field: &str, mtls: Option<&MutualTls>, problems: &mut Vec<String>) -> Mode {
    match mtls.and_then(|mtls| mtls.mode.as_deref()) {
        None | Some("UNSET" | "") => Mode::Unset,
        Some("DISABLE") => Mode::Disable,
        Some("PERMISSIVE") => Mode::Permissive,
        Some("STRICT") => Mode::Strict,
        Some(other) => {
            problems.push(format!(
                "{field} is {other:?}: it must be STRICT, PERMISSIVE, DISABLE or UNSET"
            ));
            Mode::Strict
        }
    }
}
