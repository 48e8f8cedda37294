//! Who may do what at L7: RBAC filters over a request, or over a connection where there is none. A
//! decision to allow is evidence ([`Permit`]); a denial names what the log says of it. Pure: the
//! order of several filters is the flow's.

mod condition;
mod template;

use std::net::IpAddr;

use mesh::policy::Permit;

use crate::connection::Downstream;
use crate::head::{Head, Metadata};
use crate::model::policy::{Action, Policy, Rbac, Rules};

pub use condition::metadata_matches;
pub use template::template_matches;

/// The filter's name, under which it writes its results down.
pub const FILTER: &str = "envoy.filters.http.rbac";
/// The name of the filter of connections.
pub const NETWORK_FILTER: &str = "envoy.filters.network.rbac";

/// The body of a denied request's answer, whose status is 403.
pub const DENIED_BODY: &str = "RBAC: access denied";

/// What a decision looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The request; none for a connection as such, of which nothing about requests holds.
    pub head: Option<&'a Head<'a>>,
    /// The connection.
    pub downstream: &'a Downstream,
    /// The client's address after trusted proxies; the connection's where there are none.
    pub client: IpAddr,
    /// What filters wrote down.
    pub metadata: &'a Metadata,
}

/// What one filter says.
#[derive(Debug)]
#[must_use = "a decision that nobody looks at lets everything pass"]
pub struct Verdict<'r> {
    /// Whether the request passes.
    pub decision: Result<Permit, Denied<'r>>,
    /// The policy that matched, if one did.
    pub matched: Option<&'r str>,
    /// What rules that are only tried out would have said.
    pub shadow: Option<Shadow<'r>>,
}

/// A denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied<'r> {
    /// The DENY policy that matched; none where no ALLOW policy did.
    pub policy: Option<&'r str>,
}

/// What rules that are only tried out would have said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadow<'r> {
    /// They would have let it pass.
    pub allowed: bool,
    /// The policy that matched, if one did.
    pub matched: Option<&'r str>,
    /// Put before the names of what is written down.
    prefix: &'r str,
}

impl Denied<'_> {
    /// What logs say of it (`%RESPONSE_CODE_DETAILS%`, or for a connection
    /// `%CONNECTION_TERMINATION_DETAILS%`).
    #[must_use]
    pub fn details(&self) -> String {
        let name = self
            .policy
            .unwrap_or("none")
            .replace(char::is_whitespace, "_");
        format!("rbac_access_denied_matched_policy[{name}]")
    }
}

impl Shadow<'_> {
    /// Writes the trial's result down under the filter's name, as Envoy does.
    pub fn note(&self, filter: &str, metadata: &mut Metadata) {
        let key = |name: &str| format!("{}{name}", self.prefix);
        if let Some(policy) = self.matched {
            metadata.set(filter, &key("shadow_effective_policy_id"), policy.into());
        }
        let result = if self.allowed { "allowed" } else { "denied" };
        metadata.set(filter, &key("shadow_engine_result"), result.into());
    }
}

/// What a filter says of a request or connection.
pub fn decide<'r>(filter: &'r Rbac, subject: &Subject<'_>) -> Verdict<'r> {
    let shadow = filter.shadow.as_ref().map(|rules| {
        let matched = matching(rules, subject);
        Shadow {
            allowed: passes(rules.action, matched.is_some()),
            matched: matched.map(|policy| &*policy.name),
            prefix: &filter.shadow_prefix,
        }
    });
    let (allowed, matched) = match &filter.rules {
        None => (true, None),
        Some(rules) => {
            let matched = matching(rules, subject).map(|policy| &*policy.name);
            (passes(rules.action, matched.is_some()), matched)
        }
    };
    Verdict {
        decision: match allowed {
            true => Ok(Permit::by_waypoint()),
            false => Err(Denied { policy: matched }),
        },
        matched,
        shadow,
    }
}

/// The permit of a chain that has no policy at all: everybody whom the listener let in may pass.
pub fn unguarded(filters: usize) -> Option<Permit> {
    (filters == 0).then(Permit::by_waypoint)
}

fn passes(action: Action, matched: bool) -> bool {
    match action {
        Action::Allow => matched,
        Action::Deny => !matched,
        Action::Log => true,
    }
}

fn matching<'r>(rules: &'r Rules, subject: &Subject<'_>) -> Option<&'r Policy> {
    rules.policies.iter().find(|policy| {
        let holds = |condition| condition::holds(condition, subject);
        policy.permissions.iter().any(holds) && policy.principals.iter().any(holds)
    })
}

#[cfg(test)]
mod tests;
