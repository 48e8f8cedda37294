//! One kind of resource of one client: what it asked for, what it has, and the next response.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use mesh::proto::discovery::DeltaDiscoveryResponse;
use prost::Message;

use super::{NAME_LIMIT, Progress, Refusal};
use crate::resource::{Resource, ResourceType};
use crate::xds::store::{Behind, Collection, Store};

/// One kind of resource, as one client sees it.
#[derive(Default)]
pub(super) struct Subscription {
    pub(super) wildcard: bool,
    /// Names and aliases asked for beside the wildcard.
    pub(super) names: BTreeSet<Arc<str>>,
    /// Asked for and not yet answered.
    pub(super) fresh: BTreeSet<Arc<str>>,
    /// Without the wildcard: which resources the client has.
    pub(super) held: BTreeSet<Arc<str>>,
    /// What it had before it connected; consumed by the first response.
    pub(super) retained: HashMap<String, String>,
    /// The revision that it has or is being sent; `None` before the first response.
    pub(super) sent: Option<u64>,
    pub(super) unacknowledged: Option<(String, u64)>,
    pub(super) progress: Progress,
}

impl Subscription {
    pub(super) fn subscribe(
        &mut self,
        more: Vec<String>,
        less: Vec<String>,
    ) -> Result<(), Refusal> {
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
    pub(super) fn everything(
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
            let lacking = all.iter().filter(|resource| !has(&retained, resource));
            return Ok(Some(encode(kind, lacking, &gone)));
        };
        let mut newer = all.newer(revision)?.peekable();
        if newer.peek().is_none() {
            return Ok(None);
        }
        // Which they are is found out for the first client that is where this one is.
        Ok(Some(store.shared(kind, Some(revision), || {
            let changed: BTreeSet<&Arc<str>> = newer.collect();
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
    pub(super) fn named(
        &mut self,
        kind: ResourceType,
        all: &Collection,
    ) -> Result<Option<Bytes>, Behind> {
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
        resources.retain(|_, resource| !has(&retained, resource));
        if resources.is_empty() && gone.is_empty() && !first {
            return Ok(None);
        }
        let gone: Vec<String> = gone.into_iter().collect();
        Ok(Some(assemble(
            kind,
            resources.values().copied(),
            true,
            &gone,
        )))
    }

    fn wants(&self, resource: &Resource) -> bool {
        self.names.contains(&resource.name)
            || resource
                .aliases
                .iter()
                .any(|alias| self.names.contains(alias))
    }
}

/// Whether a client that said what it has has this.
fn has(retained: &HashMap<String, String>, resource: &Resource) -> bool {
    let said = retained.get(&*resource.name);
    said.is_some_and(|said| resource.version.is(said))
}

/// `DeltaDiscoveryResponse` without its nonce, from resources that are encoded already.
pub(super) fn encode<'a>(
    kind: ResourceType,
    resources: impl Iterator<Item = &'a Resource> + Clone,
    gone: &[String],
) -> Bytes {
    assemble(kind, resources, false, gone)
}

/// The same; `aliased` says whether with the aliases by which the client may have asked.
fn assemble<'a>(
    kind: ResourceType,
    resources: impl Iterator<Item = &'a Resource> + Clone,
    aliased: bool,
    gone: &[String],
) -> Bytes {
    const RESOURCES: u32 = 2;
    let head = DeltaDiscoveryResponse {
        type_url: kind.url().to_owned(),
        removed_resources: gone.to_vec(),
        ..DeltaDiscoveryResponse::default()
    };
    let mut buffer = head.encode_to_vec();
    buffer.reserve_exact(resources.clone().map(Resource::size).sum());
    for resource in resources {
        resource.write(RESOURCES, aliased, &mut buffer);
    }
    buffer.shrink_to_fit();
    buffer.into()
}
