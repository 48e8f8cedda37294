//! What a pick looks at besides the balancer's own tables: how busy and how warm endpoints are, and
//! which of them this request had better not go to.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Host;
use crate::model::cluster::Warmup;
use crate::model::endpoint::{Address, Endpoint};
use crate::upstream::balance::Present;
use crate::upstream::choice::Choice;

/// What the balancer looks at besides.
pub(super) struct Now<'a, B> {
    pub(super) hosts: &'a [Rc<Host<B>>],
    pub(super) choice: &'a Choice<'a>,
    pub(super) failed: &'a [Arc<Endpoint>],
    pub(super) warmup: Option<(&'a Warmup, Instant)>,
}

impl<B> Present for Now<'_, B> {
    fn active(&self, index: usize) -> u32 {
        self.hosts[index].state.active.now()
    }

    fn share(&self, index: usize) -> f64 {
        let Some((warmup, now)) = self.warmup else {
            return 1.0;
        };
        let age = now.saturating_duration_since(self.hosts[index].state.since);
        warm(warmup, age)
    }

    fn avoid(&self, index: usize) -> bool {
        let endpoint = &self.hosts[index].endpoint;
        is_among(endpoint, self.failed)
            || (self.choice.avoid_tried && is_among(endpoint, self.choice.tried))
            || !fits(endpoint, self.choice.metadata)
    }
}

/// Which part of its share an endpoint of this age gets: Envoy's *slow start*.
fn warm(warmup: &Warmup, age: Duration) -> f64 {
    let (age, window) = (age.as_secs_f64(), warmup.window.as_secs_f64());
    if age >= window {
        return 1.0;
    }
    let grown = (age.max(1.0) / window).powf(1.0 / warmup.aggression.max(f64::MIN_POSITIVE));
    grown.max(warmup.minimum_percent / 100.0).clamp(0.01, 1.0)
}

pub(in crate::upstream) fn is_among(endpoint: &Endpoint, others: &[Arc<Endpoint>]) -> bool {
    others.iter().any(|other| other.address == endpoint.address)
}

pub(super) fn fits(endpoint: &Endpoint, metadata: &[(Box<str>, Box<str>)]) -> bool {
    metadata.iter().all(|wanted| endpoint.lb.contains(wanted))
}

/// Priorities that are passed over now: those tried, counted anew every so many attempts.
pub(super) fn excluded<B>(choice: &Choice<'_>, hosts: &[Rc<Host<B>>]) -> u32 {
    let Some(every) = choice.previous_priorities else {
        return 0;
    };
    let tried = choice.tried.len();
    let counted = tried - tried % (every.max(1) as usize);
    let mut excluded = 0;
    for endpoint in &choice.tried[..counted] {
        let host = hosts
            .iter()
            .find(|host| host.endpoint.address == endpoint.address);
        if let Some(host) = host {
            excluded |= 1_u32.checked_shl(host.priority).unwrap_or(0);
        }
    }
    excluded
}

/// The address that an endpoint is known by: of a tunnel the inner one, of two the gateway's.
pub(super) fn inner_address(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Socket(address) => Some(*address),
        Address::Tunnel { to, .. } => Some(*to),
        Address::DoubleTunnel { via, .. } => Some(*via),
        Address::Name(..) => None,
    }
}
