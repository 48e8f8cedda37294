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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use mesh::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::store::{Behind, Collection, Store};
use crate::resource::{Resource, ResourceType};

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

/// One kind of resource, as one client sees it.
#[derive(Default)]
struct Subscription {
    wildcard: bool,
    /// Names and aliases asked for beside the wildcard.
    names: BTreeSet<Arc<str>>,
    /// Asked for and not yet answered.
    fresh: BTreeSet<Arc<str>>,
    /// Without the wildcard: which resources the client has.
    held: BTreeSet<Arc<str>>,
    /// What it had before it connected; consumed by the first response.
    retained: HashMap<String, String>,
    /// The revision that it has or is being sent; `None` before the first response.
    sent: Option<u64>,
    unacknowledged: Option<(String, u64)>,
    progress: Progress,
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
                Ok(Heard::Ack(kind))
            }
            // What it refused is not sent again before it changes: it would refuse it again.
            Some(error) => {
                progress.nacks += 1;
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
                            all.since(sent).is_ok_and(|changed| changed.is_empty())
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
        Ok(!all.since(sent)?.is_empty())
    }

    /// How far the client is, for each kind that it asked for.
    pub fn progress(&self) -> impl Iterator<Item = (ResourceType, &Progress)> {
        self.subscriptions
            .iter()
            .map(|(kind, subscription)| (*kind, &subscription.progress))
    }
}

impl Subscription {
    fn subscribe(&mut self, more: Vec<String>, less: Vec<String>) -> Result<(), Refusal> {
        for name in more {
            if name == "*" {
                // What it has by name need not be told apart: it is sent everything once.
                if !self.wildcard {
                    self.wildcard = true;
                    self.sent = None;
                }
            } else {
                let name: Arc<str> = name.into();
                self.fresh.insert(name.clone());
                self.names.insert(name);
            }
        }
        for name in less {
            if name == "*" {
                self.wildcard = false;
                self.held.clear();
            } else {
                self.fresh.remove(name.as_str());
                self.names.remove(name.as_str());
                self.held.remove(name.as_str());
            }
        }
        if self.names.len() > NAME_LIMIT {
            Err(Refusal::TooManyNames)
        } else {
            Ok(())
        }
    }

    /// The response of a client that wants everything.
    fn everything(
        &mut self,
        kind: ResourceType,
        store: &Store,
        all: &Collection,
    ) -> Result<Option<Bytes>, Behind> {
        self.fresh.clear();
        let Some(revision) = self.sent else {
            let retained = std::mem::take(&mut self.retained);
            if retained.is_empty() {
                return Ok(Some(
                    store.shared(kind, None, || encode(kind, all.iter(), &[])),
                ));
            }
            let gone: Vec<String> = retained
                .keys()
                .filter(|name| all.get(name).is_none())
                .cloned()
                .collect();
            let lacking = all
                .iter()
                .filter(|resource| retained.get(&*resource.name) != Some(&resource.version));
            return Ok(Some(encode(kind, lacking, &gone)));
        };
        let changed = all.since(revision)?;
        if changed.is_empty() {
            return Ok(None);
        }
        Ok(Some(store.shared(kind, Some(revision), || {
            let gone: Vec<String> = changed
                .iter()
                .filter(|name| all.get(name).is_none())
                .map(ToString::to_string)
                .collect();
            encode(kind, changed.iter().filter_map(|name| all.get(name)), &gone)
        })))
    }

    /// The response of a client that asked by name or alias. A name that nothing has is answered
    /// as removed, so that the client need not wait for it.
    fn named(&mut self, kind: ResourceType, all: &Collection) -> Result<Option<Bytes>, Behind> {
        let first = self.sent.is_none();
        let changed = self
            .sent
            .map(|revision| all.since(revision))
            .transpose()?
            .unwrap_or_default();
        let mut resources = BTreeMap::new();
        let mut gone: BTreeSet<String> = BTreeSet::new();
        for name in std::mem::take(&mut self.fresh) {
            let mut found = all.resolve(&name).peekable();
            if found.peek().is_none() {
                gone.insert(name.to_string());
            }
            resources.extend(found.map(|resource| (resource.name.clone(), resource)));
        }
        for name in changed {
            match all.get(&name) {
                Some(resource) if self.wants(resource) => {
                    resources.insert(name, resource);
                }
                _ => {
                    // Gone, or it lost the alias by which the client knew it.
                    if self.held.remove(&name) {
                        gone.insert(name.to_string());
                    }
                }
            }
        }
        let retained = std::mem::take(&mut self.retained);
        gone.extend(
            retained
                .keys()
                .filter(|name| all.get(name).is_none())
                .cloned(),
        );
        self.held.extend(resources.keys().cloned());
        resources.retain(|name, resource| retained.get(&**name) != Some(&resource.version));
        if resources.is_empty() && gone.is_empty() && !first {
            return Ok(None);
        }
        let gone: Vec<String> = gone.into_iter().collect();
        Ok(Some(encode_aliased(kind, resources.into_values(), &gone)))
    }

    fn wants(&self, resource: &Resource) -> bool {
        self.names.contains(&resource.name)
            || resource
                .aliases
                .iter()
                .any(|alias| self.names.contains(alias))
    }
}

/// `DeltaDiscoveryResponse` without its nonce, from resources that are encoded already.
fn encode<'a>(
    kind: ResourceType,
    resources: impl Iterator<Item = &'a Resource>,
    gone: &[String],
) -> Bytes {
    assemble(kind, resources.map(|resource| resource.body.clone()), gone)
}

/// The same, with the aliases by which the client may have asked. A message may be written in
/// parts: the aliases are appended.
fn encode_aliased<'a>(
    kind: ResourceType,
    resources: impl Iterator<Item = &'a Resource>,
    gone: &[String],
) -> Bytes {
    let bodies = resources.map(|resource| {
        let aliases = resource.aliases.iter().map(ToString::to_string).collect();
        let tail = mesh::proto::discovery::Resource {
            aliases,
            ..Default::default()
        }
        .encode_to_vec();
        Bytes::from([resource.body.as_ref(), tail.as_slice()].concat())
    });
    assemble(kind, bodies, gone)
}

fn assemble(kind: ResourceType, bodies: impl Iterator<Item = Bytes>, gone: &[String]) -> Bytes {
    const RESOURCES: u32 = 2;
    let head = DeltaDiscoveryResponse {
        type_url: kind.url().to_owned(),
        removed_resources: gone.to_vec(),
        ..DeltaDiscoveryResponse::default()
    };
    let mut buffer = head.encode_to_vec();
    for body in bodies {
        encode_key(RESOURCES, WireType::LengthDelimited, &mut buffer);
        encode_varint(body.len() as u64, &mut buffer);
        buffer.extend_from_slice(&body);
    }
    buffer.shrink_to_fit();
    buffer.into()
}

#[cfg(test)]
mod tests;
