//! Who may talk to whom: L4 authorisation with Istio's semantics. A decision is a value: only this
//! room can build a [`Permit`], and nothing forwards a byte without one. Pure: knows no socket, no
//! clock and no workload store, only what one connection looks like.
//!
//! The semantics are those of Istio's `AuthorizationPolicy` as its ztunnel enforces them
//! (`src/rbac.rs`, `src/state.rs` there): DENY policies first, then ALLOW; with no ALLOW policy in
//! scope the default is to allow, otherwise to deny. Rules OR, clauses of a rule AND, matches of a
//! clause OR, fields of a match AND, values of a field OR, `not_*` negates. A policy without rules
//! matches nothing, a rule without clauses and a clause without matches match everything, and a
//! match without fields matches nothing.

mod parse;
mod rule;
mod shelf;
mod store;

use std::borrow::Borrow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use crate::identity::Identity;

pub use rule::{Clause, Match, Rule, ServiceAccount, StringMatch};
pub use store::Policies;

/// The name of a policy, `namespace/name`. It is the resource's name in xDS.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName(Arc<str>);

/// One authorisation policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Its name.
    pub name: PolicyName,
    /// Which workloads it is for.
    pub scope: Scope,
    /// What a match means.
    pub action: Action,
    /// What it matches; with no rule, nothing.
    pub rules: Vec<Rule>,
    /// Evaluated and reported, but not enforced.
    pub dry_run: bool,
}

/// Which workloads a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The whole mesh.
    Global,
    /// The policy's own namespace.
    Namespace,
    /// Only the workloads that name it. (Naming it puts a policy of any scope in force.)
    Selector,
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The connection is allowed.
    Allow,
    /// The connection is denied, whatever else allows it.
    Deny,
}

/// Where a connection comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its address, canonical.
    pub ip: IpAddr,
    /// Who it proved to be; none for plaintext.
    pub identity: Option<Identity>,
}

/// What a decision looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// Where the connection comes from.
    pub source: Source,
    /// The workload's address and port that it is for.
    pub destination: SocketAddr,
}

/// Evidence that a connection was authorised. There is no way to make one but a decision (of this
/// room, or of a waypoint's L7 policy: [`Permit::by_waypoint`]), so a
/// function that takes a `Permit` can't be reached by a connection that nobody looked at. It is
/// for one connection: passed on by value, cloned only where two steps of that one connection
/// each take it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a permit that isn't used belongs to a connection that went nowhere"]
pub struct Permit {
    by: DecidedBy,
    dry_run: Vec<DryRun>,
}

/// What a permit rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecidedBy {
    /// This ALLOW policy matched.
    Policy(PolicyName),
    /// No ALLOW policy is in scope, and no DENY policy matched.
    Default,
    /// A captured pod of this node calls out under its own identity.
    Outbound,
    /// A waypoint's L7 policy allowed the request, or the waypoint itself is where the tunnel ends.
    Waypoint,
}

/// Why a connection was not authorised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    /// Why.
    pub reason: Reason,
    /// What policies that are only tried out would have said.
    pub dry_run: Vec<DryRun>,
}

/// Why a connection was not authorised; the text names the likely cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A DENY policy matched.
    #[error("explicitly denied by {0}")]
    Policy(PolicyName),
    /// There are ALLOW policies in scope, and none matched.
    #[error("allow policies exist, but none allowed")]
    NotAllowed,
    /// The control plane hasn't sent all policies yet. Hold the connection, don't open it.
    #[error("no policies received yet: the control plane hasn't answered since this proxy started")]
    NotSynced,
    /// The workload names a policy that isn't there. Hold the connection, don't open it.
    #[error(
        "the workload is subject to {0}, which isn't here: it is on its way, or was refused as malformed"
    )]
    Missing(PolicyName),
    /// The workload is reached only through its waypoint, and somebody else called.
    #[error(
        "every way to the workload leads through its waypoint {0}, and the caller is not that: it is not in the mesh, or its proxy does not know of the waypoint"
    )]
    RoundWaypoint(String),
    /// The workload is reached only through its waypoint, of which no pod is known. Hold the
    /// connection, don't open it.
    #[error(
        "every way to the workload leads through its waypoint {0}, of which no pod is known: it was removed, or is on its way"
    )]
    WaypointUnknown(String),
    /// An outbound connection to the proxy's own port in the pod, which would come back forever.
    #[error("port {0} of the pod itself is the proxy's own")]
    Loop(u16),
    /// An outbound connection of a workload that isn't on this node.
    #[error(
        "workload {workload} is on node {node:?}, not here: a pod's address was reused, or the workload data is stale"
    )]
    NotLocal {
        /// Its unique name.
        workload: String,
        /// The node it is on.
        node: String,
    },
    /// An outbound connection of a workload that lives in the node's network.
    #[error("workload {0} uses the node's network, which is never captured")]
    HostNetwork(String),
}

/// What a policy that is only tried out would have meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// Which policy.
    pub policy: PolicyName,
    /// What its match means.
    pub action: Action,
    /// Whether it matched.
    pub matched: bool,
}

impl PolicyName {
    /// The name of a policy in a namespace; a mesh-wide policy is in the root namespace.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The policy's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0
            .split_once('/')
            .map_or("", |(namespace, _)| namespace)
    }
}

impl FromStr for PolicyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((_, name)) if !name.is_empty() => Ok(Self(text.into())),
            _ => Err(format!("{text:?} names no policy: expected namespace/name")),
        }
    }
}

impl Permit {
    /// The decision of this room; nobody else can write it.
    pub(crate) fn new(by: DecidedBy, dry_run: Vec<DryRun>) -> Self {
        Self { by, dry_run }
    }

    /// The permit of a waypoint. L7 policy is decided in the waypoint's own room, over facts that
    /// this one doesn't know (methods, paths, claims), so the evidence is made at its door: only
    /// what has just run a request through the policies of its filter chain and was told *allow*
    /// may call this, and only what has verified the peer of a tunnel that ends in the waypoint,
    /// where every request is decided by itself. Costs no allocation. `ztunnel` never calls it,
    /// which `cargo xtask tidy` checks.
    pub fn by_waypoint() -> Self {
        Self::new(DecidedBy::Waypoint, Vec::new())
    }

    /// What it rests on.
    #[must_use]
    pub fn by(&self) -> &DecidedBy {
        &self.by
    }

    /// What policies that are only tried out would have said.
    #[must_use]
    pub fn dry_run(&self) -> &[DryRun] {
        &self.dry_run
    }
}

impl Denied {
    /// A denial for which no policy was looked at.
    pub(crate) fn because(reason: Reason) -> Self {
        let dry_run = Vec::new();
        Self { reason, dry_run }
    }

    /// The policy that denied it, if one did.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyName> {
        match &self.reason {
            Reason::Policy(name) => Some(name),
            _ => None,
        }
    }

    /// Nobody decided yet: policy data is missing. A new connection is held (bounded), an open one
    /// goes on.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(
            self.reason,
            Reason::NotSynced | Reason::Missing(_) | Reason::WaypointUnknown(_)
        )
    }
}

impl Borrow<str> for PolicyName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
