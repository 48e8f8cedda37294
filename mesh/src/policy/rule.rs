//! The rules of a policy, and whether they match a connection.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Authorization, Inbound};

/// Matches if all clauses do (also with none).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// What must hold.
    pub clauses: Vec<Clause>,
}

/// Matches if one of its matches does, or if it has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clause {
    /// What may hold.
    pub matches: Vec<Match>,
}

/// Matches if all of its fields do; with no field set it never does. A positive field holds if one
/// of its values does, a `not_` field if none of its values does; an empty field holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Match {
    /// The source's namespace.
    pub namespaces: Vec<StringMatch>,
    /// Not the source's namespace.
    pub not_namespaces: Vec<StringMatch>,
    /// The source's identity without `spiffe://`.
    pub principals: Vec<StringMatch>,
    /// Not the source's identity.
    pub not_principals: Vec<StringMatch>,
    /// The source's namespace and service account, whatever its trust domain.
    pub service_accounts: Vec<ServiceAccount>,
    /// Not the source's service account.
    pub not_service_accounts: Vec<ServiceAccount>,
    /// Blocks with the source's address.
    pub source_ips: Vec<IpNet>,
    /// Blocks without the source's address.
    pub not_source_ips: Vec<IpNet>,
    /// Blocks with the destination's address.
    pub destination_ips: Vec<IpNet>,
    /// Blocks without the destination's address.
    pub not_destination_ips: Vec<IpNet>,
    /// The destination's port.
    pub destination_ports: Vec<u16>,
    /// Not the destination's port.
    pub not_destination_ports: Vec<u16>,
}

/// How a text is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// The very text.
    Exact(Arc<str>),
    /// It begins so.
    Prefix(Arc<str>),
    /// It ends so.
    Suffix(Arc<str>),
    /// There is one.
    Presence,
}

/// A service account, of whatever trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// A connection as rules see it. Without an identity there is neither namespace, principal nor
/// service account, so that no positive match on them holds and every negative one does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) identity: Option<Peer<'a>>,
    source: IpAddr,
    destination: SocketAddr,
}

/// Who the source proved to be, in the terms of rules.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer<'a> {
    pub(super) principal: &'a str,
    pub(super) namespace: &'a str,
    pub(super) service_account: &'a str,
}

impl<'a> Peer<'a> {
    /// The service account as `namespace/sa/name`, which is how every principal ends.
    pub(super) fn account(self) -> &'a str {
        let length = self.namespace.len() + "/sa/".len() + self.service_account.len();
        &self.principal[self.principal.len() - length..]
    }
}

impl<'a> Facts<'a> {
    pub(super) fn of(connection: &'a Inbound) -> Self {
        Self {
            identity: connection.source.identity.as_ref().map(|identity| Peer {
                principal: identity.principal(),
                namespace: identity.namespace(),
                service_account: identity.service_account(),
            }),
            source: connection.source.ip.to_canonical(),
            destination: crate::address::canonical(connection.destination),
        }
    }
}

impl Authorization {
    /// Whether the policy matches the connection, whatever that means for it.
    #[must_use]
    pub fn matches(&self, connection: &Inbound) -> bool {
        self.holds(&Facts::of(connection))
    }

    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.rules.iter().any(|rule| rule.holds(facts))
    }
}

impl Rule {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        self.clauses.iter().all(|clause| clause.holds(facts))
    }
}

impl Clause {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|m| m.holds(facts))
    }
}

impl Match {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        let (peer, to) = (facts.identity, facts.destination);
        let principal = |m: &StringMatch| peer.is_some_and(|p| m.holds(p.principal));
        let namespace = |m: &StringMatch| peer.is_some_and(|p| m.holds(p.namespace));
        let account = |m: &ServiceAccount| peer.is_some_and(|p| m.holds(&p));
        let source = |block: &IpNet| block.contains(&facts.source);
        let destination = |block: &IpNet| block.contains(&to.ip());
        !self.is_empty()
            && field(&self.destination_ports, &self.not_destination_ports, |p| {
                *p == to.port()
            })
            && field(&self.service_accounts, &self.not_service_accounts, account)
            && field(&self.principals, &self.not_principals, principal)
            && field(&self.namespaces, &self.not_namespaces, namespace)
            && field(&self.source_ips, &self.not_source_ips, source)
            && field(
                &self.destination_ips,
                &self.not_destination_ips,
                destination,
            )
    }

    /// Whether no field is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

impl StringMatch {
    /// Whether a text that is there compares so.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *text,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::Presence => true,
        }
    }
}

impl ServiceAccount {
    fn holds(&self, peer: &Peer<'_>) -> bool {
        *self.namespace == *peer.namespace && *self.name == *peer.service_account
    }
}

fn field<T>(positive: &[T], negative: &[T], holds: impl Fn(&T) -> bool) -> bool {
    (positive.is_empty() || positive.iter().any(&holds)) && !negative.iter().any(&holds)
}
