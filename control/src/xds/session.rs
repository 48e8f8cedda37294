//! One client's subscriptions: requests in, responses out. No IO, no clock.
//!
//! For each kind of resource:
//!
//! ```text
//! unasked ── first request ──> waiting ── poll ──> unacknowledged ── ACK or NACK ──> settled
//!                                 ^                                                    │
//!                                 └───────── something changed, or more was asked ─────┘
//! ```
//!
//! A waypoint is told of new clusters before the listeners that route to them, and that clusters
//! are gone only after it took the listeners that do not: in between no request finds nothing.
//!
//! At most one response of a kind is unacknowledged. What changes meanwhile stays in the store's
//! log, so that a slow client costs nothing and gets only the last state of each resource.

mod subscription;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use mesh::proto::discovery::DeltaDiscoveryRequest;

use super::store::{Behind, Collection, Store};
use crate::resource::ResourceType;
use subscription::{Subscription, encode};

/// Names that one client may subscribe to: more than that should subscribe to everything.
pub const NAME_LIMIT: usize = 100_000;

/// What one client asked for and has.
#[derive(Default)]
pub struct Session {
    role: Role,
    /// Clusters that are gone, of which the client is told once it has the newest listeners.
    deferred: BTreeSet<Arc<str>>,
    subscriptions: BTreeMap<ResourceType, Subscription>,
    nonces: u64,
}

/// What a client may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Workloads, services and L4 policies.
    #[default]
    NodeProxy,
    /// Envoy's resources, its own, and workloads.
    Waypoint,
}

impl Role {
    fn kinds(self) -> &'static [ResourceType] {
        match self {
            Self::NodeProxy => &ResourceType::ALL,
            Self::Waypoint => &ResourceType::WAYPOINT,
        }
    }
}

/// How far a client is with one kind of resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last nonce sent.
    pub nonce_sent: String,
    /// The last nonce that the client accepted.
    pub nonce_acked: String,
    /// The revision that the client accepted.
    pub revision_acked: u64,
    /// How often it refused.
    pub nacks: u64,
    /// What it said when it last refused.
    pub last_nack: Option<String>,
    /// Whether the last that it answered was refused.
    pub refused: bool,
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A subscription began or changed, or nothing of note.
    Subscription(ResourceType),
    /// The client took the last response.
    Ack(ResourceType),
    /// The client refused it, with this reason.
    Nack(ResourceType, String),
}

/// Why a client can't go on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A kind that is not served.
    #[error(
        "type {0:?} is not served to this client: node proxies subscribe to istio.workload.Address and istio.security.Authorization, waypoints to Envoy's listeners, clusters and endpoints and istio.workload.Workload"
    )]
    UnknownType(String),
    /// Too many names.
    #[error("more than {NAME_LIMIT} names subscribed: use the wildcard")]
    TooManyNames,
}

/// A response, ready but for its nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Its kind.
    pub kind: ResourceType,
    /// Its nonce.
    pub nonce: String,
    /// Everything else, encoded; shared with other clients where they get the same.
    pub body: Bytes,
}

impl Session {
    /// A session of a client of this role.
    #[must_use]
    pub fn of(role: Role) -> Self {
        Self {
            role,
            ..Self::default()
        }
    }

    /// Takes a request in.
    pub fn handle(&mut self, request: DeltaDiscoveryRequest) -> Result<Heard, Refusal> {
        let kind = ResourceType::from_url(&request.type_url)
            .filter(|kind| self.role.kinds().contains(kind))
            .ok_or(Refusal::UnknownType(request.type_url))?;
        let first = !self.subscriptions.contains_key(&kind);
        let subscription = self.subscriptions.entry(kind).or_default();
        if first {
            subscription.retained = request.initial_resource_versions;
            // The protocol's older way to ask for everything.
            subscription.wildcard = request.resource_names_subscribe.is_empty();
        }
        subscription.subscribe(
            request.resource_names_subscribe,
            request.resource_names_unsubscribe,
        )?;
        let answers = subscription
            .unacknowledged
            .take_if(|(nonce, _)| *nonce == request.response_nonce);
        let Some((nonce, revision)) = answers else {
            return Ok(Heard::Subscription(kind));
        };
        let progress = &mut subscription.progress;
        match request.error_detail {
            None => {
                progress.nonce_acked = nonce;
                progress.revision_acked = revision;
                progress.refused = false;
                Ok(Heard::Ack(kind))
            }
            // What it refused is not sent again before it changes: it would refuse it again.
            Some(error) => {
                progress.nacks += 1;
                progress.refused = true;
                progress.last_nack = Some(error.message.clone());
                Ok(Heard::Nack(kind, error.message))
            }
        }
    }

    /// The next response to send, if there is one. Call until there is none.
    pub fn poll(&mut self, store: &Store) -> Result<Option<Push>, Behind> {
        self.poll_both(store, store)
    }

    /// The same for a client with a store of its own beside the mesh's, which has the workloads.
    pub fn poll_both(&mut self, own: &Store, mesh: &Store) -> Result<Option<Push>, Behind> {
        for kind in self.role.kinds().iter().copied() {
            let store = if kind == ResourceType::Workload {
                mesh
            } else {
                own
            };
            let first = match kind {
                ResourceType::Address => Some(ResourceType::Authorization),
                ResourceType::Listener => Some(ResourceType::Cluster),
                _ => None,
            };
            if let Some(first) = first
                && self.waits_for(first, store)?
            {
                continue;
            }
            if kind == ResourceType::Cluster
                && let Some(push) = self.farewell(store)
            {
                return Ok(Some(push));
            }
            let Some(subscription) = self.subscriptions.get_mut(&kind) else {
                continue;
            };
            if subscription.unacknowledged.is_some() {
                continue;
            }
            let empty = Collection::default();
            let collection = store.collection(kind).unwrap_or(&empty);
            let from = subscription.sent;
            let clusters = kind == ResourceType::Cluster;
            let changed = match from {
                Some(from) if clusters => collection.since(from)?,
                _ => BTreeSet::new(),
            };
            let body = if clusters && subscription.wildcard && from.is_some() {
                let (there, gone): (Vec<_>, Vec<_>) = changed
                    .iter()
                    .cloned()
                    .partition(|name| collection.get(name).is_some());
                self.deferred.retain(|name| collection.get(name).is_none());
                self.deferred.extend(gone);
                let there = there.iter().filter_map(|name| collection.get(name));
                let mut there = there.peekable();
                there.peek().is_some().then(|| encode(kind, there, &[]))
            } else if subscription.wildcard {
                subscription.everything(kind, store, collection)?
            } else {
                subscription.named(kind, collection)?
            };
            // Even where nothing concerned this client, the log is read up to here.
            if from.is_some() || body.is_some() {
                subscription.sent = Some(store.revision());
            }
            let Some(body) = body else { continue };
            self.nonces += 1;
            let nonce = format!("{}-{}", store.revision(), self.nonces);
            subscription.unacknowledged = Some((nonce.clone(), store.revision()));
            subscription.progress.nonce_sent.clone_from(&nonce);
            // Envoy wants a changed cluster's endpoints again.
            if clusters
                && let Some(endpoints) = self.subscriptions.get_mut(&ResourceType::Endpoints)
            {
                let asked = changed
                    .into_iter()
                    .filter(|name| endpoints.names.contains(name));
                let asked: Vec<_> = asked.collect();
                endpoints.fresh.extend(asked);
            }
            return Ok(Some(Push { kind, nonce, body }));
        }
        Ok(None)
    }

    /// Tells of clusters that are gone, when the client has the listeners that do without them.
    fn farewell(&mut self, store: &Store) -> Option<Push> {
        if self.deferred.is_empty() {
            return None;
        }
        let settled = self
            .subscriptions
            .get(&ResourceType::Listener)
            .is_none_or(|listeners| {
                listeners.unacknowledged.is_none()
                    && listeners.sent.is_none_or(|sent| {
                        let all = store.collection(ResourceType::Listener);
                        all.is_none_or(|all| {
                            all.newer(sent)
                                .is_ok_and(|mut changed| changed.next().is_none())
                        })
                    })
            });
        let kind = ResourceType::Cluster;
        let subscription = self
            .subscriptions
            .get_mut(&kind)
            .filter(|clusters| clusters.unacknowledged.is_none())?;
        if !settled {
            return None;
        }
        let all = store.collection(kind);
        let deferred = std::mem::take(&mut self.deferred);
        let gone: Vec<String> = deferred
            .iter()
            .filter(|name| all.is_none_or(|all| all.get(name).is_none()))
            .map(ToString::to_string)
            .collect();
        if gone.is_empty() {
            return None;
        }
        self.nonces += 1;
        let revision = subscription.sent.unwrap_or_default();
        let nonce = format!("{revision}-{}", self.nonces);
        subscription.unacknowledged = Some((nonce.clone(), revision));
        subscription.progress.nonce_sent.clone_from(&nonce);
        Some(Push {
            kind,
            nonce,
            body: encode(kind, std::iter::empty(), &gone),
        })
    }

    /// Whether there are resources of a kind that the client can't be sent yet, because it has not
    /// answered. Those that name them wait: a node proxy that knows a workload and not its policy
    /// would let everybody in, and a listener's routes would lead to clusters that are not there.
    fn waits_for(&self, kind: ResourceType, store: &Store) -> Result<bool, Behind> {
        let Some(policies) = self.subscriptions.get(&kind) else {
            return Ok(false);
        };
        let (Some(sent), Some(_), Some(all)) = (
            policies.sent,
            &policies.unacknowledged,
            store.collection(kind),
        ) else {
            return Ok(false);
        };
        Ok(all.newer(sent)?.next().is_some())
    }

    /// How far the client is, for each kind that it asked for.
    pub fn progress(&self) -> impl Iterator<Item = (ResourceType, &Progress)> {
        self.subscriptions
            .iter()
            .map(|(kind, subscription)| (*kind, &subscription.progress))
    }
}
#[cfg(test)]
mod tests;
