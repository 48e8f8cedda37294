//! Which filter chain takes a connection: the tree of `filter_chain_matcher`, or the conditions of
//! `filter_chain_match`. Pure: facts in, a chain out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::listener::{Chain, ChainMatch, Choose, Dispatch, Node, Protocol};

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Where it is for; a tunnel's stream for a host name has none.
    pub destination: Option<SocketAddr>,
    /// The tunnel's `host:port`.
    pub authority: Option<&'a str>,
    /// Where it comes from.
    pub source: SocketAddr,
    /// What the first bytes are.
    pub protocol: Option<Protocol>,
    /// It begins with TLS.
    pub tls: bool,
    /// The name asked for by TLS, in lower case.
    pub server_name: Option<&'a str>,
    /// The protocols offered by TLS.
    pub alpn: &'a [Box<str>],
}

impl Dispatch {
    /// The chain that takes a connection.
    #[must_use]
    pub fn chain(&self, facts: &Facts<'_>) -> Option<&Arc<Chain>> {
        match &self.choose {
            Choose::Conditions(chains) => most_specific(chains, facts),
            Choose::Tree(root) => walk(root, facts),
        }
        .or(self.default.as_ref())
    }

    /// The chain of this name, which an open connection looks for after a push.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Chain>> {
        let mut all = self.chains.iter().chain(self.default.as_ref());
        all.find(|chain| *chain.name == *name)
    }

    /// Whether the first bytes are looked at for HTTP, and for TLS, on a port.
    #[must_use]
    pub fn looks_for(&self, port: u16) -> (bool, bool) {
        let within = |ranges: &[(u16, u32)]| {
            let port = u32::from(port);
            ranges
                .iter()
                .any(|(first, end)| (u32::from(*first)..*end).contains(&port))
        };
        let detect = &self.detect;
        (
            detect.http && !within(&detect.not_http),
            detect.tls && !within(&detect.not_tls),
        )
    }
}

/// Follows the tree. Where a branch leads to nothing, the next less specific one is followed, as
/// Envoy's matchers do.
fn walk<'a>(node: &'a Node, facts: &Facts<'_>) -> Option<&'a Arc<Chain>> {
    let (found, otherwise) = match node {
        Node::Chain(chain) => return Some(chain),
        Node::Address {
            ranges,
            exact,
            otherwise,
        } => {
            let address = facts.destination.map(|to| to.ip().to_canonical());
            let found = address.and_then(|address| {
                let whole = exact.get(&address).and_then(|next| walk(next, facts));
                whole.or_else(|| {
                    let mut wider = ranges.iter().filter(|(net, _)| net.contains(&address));
                    wider.find_map(|(_, next)| walk(next, facts))
                })
            });
            (found, otherwise)
        }
        Node::Port { ports, otherwise } => {
            let next = port(facts).and_then(|port| ports.get(&port));
            (next.and_then(|next| walk(next, facts)), otherwise)
        }
        Node::Protocol {
            protocols,
            otherwise,
        } => {
            let next = facts.protocol.and_then(|protocol| protocols.get(&protocol));
            (next.and_then(|next| walk(next, facts)), otherwise)
        }
        Node::Authority {
            authorities,
            otherwise,
        } => {
            let next = facts.authority.and_then(|name| authorities.get(name));
            (next.and_then(|next| walk(next, facts)), otherwise)
        }
    };
    found.or_else(|| walk(otherwise.as_deref()?, facts))
}

/// The destination's port, which a tunnel for a host name has in its authority.
fn port(facts: &Facts<'_>) -> Option<u16> {
    let named = || facts.authority?.rsplit_once(':')?.1.parse().ok();
    facts.destination.map(|to| to.port()).or_else(named)
}

/// A condition's judgement: how specific it is where it holds, nothing where it doesn't.
type Criterion = fn(&ChainMatch, &Facts<'_>) -> Option<usize>;

/// Envoy's order. Of the chains that are left only those that are most specific under the next
/// criterion stay; there is no way back.
const CRITERIA: [Criterion; 7] = [
    |chain, facts| listed(chain.port.is_none(), chain.port == port(facts)),
    |chain, facts| longest(&chain.addresses, facts.destination.map(|to| to.ip())),
    server_name,
    |chain, facts| match chain.transport.as_deref() {
        None => Some(0),
        Some("tls") => facts.tls.then_some(1),
        Some("raw_buffer") => (!facts.tls).then_some(1),
        Some(_) => None,
    },
    |chain, facts| {
        let offered = |protocol: &str| {
            facts.alpn.iter().any(|one| **one == *protocol)
                || facts.protocol.and_then(Protocol::name) == Some(protocol)
        };
        listed(
            chain.protocols.is_empty(),
            chain.protocols.iter().any(|protocol| offered(protocol)),
        )
    },
    |chain, facts| longest(&chain.sources, Some(facts.source.ip())),
    |chain, facts| {
        let ports = &chain.source_ports;
        listed(ports.is_empty(), ports.contains(&facts.source.port()))
    },
];

fn most_specific<'a>(
    chains: &'a [(ChainMatch, Arc<Chain>)],
    facts: &Facts<'_>,
) -> Option<&'a Arc<Chain>> {
    let mut left: Vec<_> = chains.iter().collect();
    for judge in CRITERIA {
        let best = left
            .iter()
            .filter_map(|(conditions, _)| judge(conditions, facts))
            .max()?;
        left.retain(|(conditions, _)| judge(conditions, facts) == Some(best));
    }
    left.first().map(|(_, chain)| chain)
}

/// No condition, one that holds, or one that doesn't.
fn listed(none: bool, holds: bool) -> Option<usize> {
    match (none, holds) {
        (true, _) => Some(0),
        (false, true) => Some(1),
        (false, false) => None,
    }
}

fn longest(nets: &[IpNet], address: Option<IpAddr>) -> Option<usize> {
    if nets.is_empty() {
        return Some(0);
    }
    let address = address?.to_canonical();
    let holds = nets.iter().filter(|net| net.contains(&address));
    holds.map(|net| usize::from(net.prefix_len()) + 1).max()
}

/// The name itself, then the longest `*.` that has it.
fn server_name(chain: &ChainMatch, facts: &Facts<'_>) -> Option<usize> {
    if chain.server_names.is_empty() {
        return Some(0);
    }
    let asked = facts.server_name?;
    let specific = |name: &str| match name.strip_prefix('*') {
        Some(suffix) => asked.ends_with(suffix).then_some(suffix.len()),
        None => (*name == *asked).then_some(usize::MAX),
    };
    let names = chain.server_names.iter();
    names.filter_map(|name| specific(name)).max()
}

impl Protocol {
    /// The name by which listeners match it.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Http10 => Some("http/1.0"),
            Self::Http11 => Some("http/1.1"),
            Self::Http2 => Some("h2c"),
            Self::Opaque => None,
        }
    }
}

#[cfg(test)]
mod tests;
