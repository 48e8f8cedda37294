//! The current resources, and a bounded log of which changed at which revision.
//!
//! A client's place is one number, the revision it has seen: what it lacks is what the log holds
//! since. No names are kept for a client that subscribes to everything, so a hundred node proxies
//! cost no more than one. A client that falls behind the log is told to connect anew, and says
//! then which versions it has.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::index::Update;
use crate::resource::{Resource, ResourceType};

/// Changes that the log keeps for each kind of resource; a client further behind connects anew.
pub const LOG_LIMIT: usize = 65_536;

/// Every resource of every kind.
#[derive(Default)]
pub struct Store {
    revision: u64,
    collections: BTreeMap<ResourceType, Collection>,
    /// Responses that more than one client is sent, by kind and the revision they start from.
    shared: Mutex<HashMap<(ResourceType, Option<u64>), Bytes>>,
}

/// The resources of one kind.
#[derive(Default)]
pub struct Collection {
    resources: BTreeSet<Named>,
    /// Aliases, each with the name of a resource that has it.
    aliases: BTreeSet<(Arc<str>, Arc<str>)>,
    log: VecDeque<(u64, Arc<str>)>,
    /// Changes up to this revision are no longer in the log.
    forgotten: u64,
}

/// A resource at the place of its name. Nodes of a tree are half empty, so that they hold no more
/// than a pointer each.
struct Named(Box<Resource>);

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Named {}

/// A client's revision is older than the log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is more than {LOG_LIMIT} changes behind: it must connect anew")]
pub struct Behind;

impl Store {
    /// Takes recomputed resources in. Those that did not change are ignored; returns how many did.
    pub fn apply(&mut self, updates: Vec<Update>) -> usize {
        let revision = self.revision + 1;
        let mut changed = 0;
        for update in updates {
            let collection = self.collections.entry(update.kind).or_default();
            changed += usize::from(collection.apply(update, revision));
        }
        if changed > 0 {
            self.revision = revision;
            self.shared.get_mut().clear();
        }
        changed
    }

    /// Increases with every change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The resources of one kind.
    #[must_use]
    pub fn collection(&self, kind: ResourceType) -> Option<&Collection> {
        self.collections.get(&kind)
    }

    /// The response for every client that is at the revision `from`, encoded once.
    pub(super) fn shared(
        &self,
        kind: ResourceType,
        from: Option<u64>,
        encode: impl FnOnce() -> Bytes,
    ) -> Bytes {
        self.shared
            .lock()
            .entry((kind, from))
            .or_insert_with(encode)
            .clone()
    }
}

impl Collection {
    fn apply(&mut self, update: Update, revision: u64) -> bool {
        let old = self.get(&update.name);
        if old.map(|old| old.version) == update.resource.as_ref().map(|new| new.version) {
            return false;
        }
        if let Some(Named(old)) = self.resources.take(&*update.name) {
            for alias in &old.aliases {
                self.aliases.remove(&(alias.clone(), old.name.clone()));
            }
        }
        if let Some(new) = update.resource {
            let aliases = new.aliases.iter();
            let aliases = aliases.map(|alias| (alias.clone(), new.name.clone()));
            self.aliases.extend(aliases);
            self.resources.insert(Named(Box::new(new)));
        }
        self.log.push_back((revision, update.name));
        while self.log.len() > LOG_LIMIT {
            if let Some((revision, _)) = self.log.pop_front() {
                self.forgotten = revision;
            }
        }
        true
    }

    /// A resource by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Resource> {
        self.resources.get(name).map(|Named(found)| &**found)
    }

    /// All resources, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Resource> + Clone {
        self.resources.iter().map(|Named(resource)| &**resource)
    }

    /// The resources of this name or alias.
    pub fn resolve<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Resource> + use<'a> {
        let alias: Arc<str> = name.into();
        // No name comes before the empty one.
        let aliased = self.aliases.range((alias.clone(), "".into())..);
        let aliased = aliased
            .take_while(move |(of, _)| *of == alias)
            .filter_map(|(_, name)| self.get(name));
        self.get(name).into_iter().chain(aliased)
    }

    /// The names that changed after a revision, each once.
    pub fn since(&self, revision: u64) -> Result<BTreeSet<Arc<str>>, Behind> {
        Ok(self.newer(revision)?.cloned().collect())
    }

    /// The same as often as they changed, the last first: whether there are any costs nothing.
    pub(super) fn newer(&self, revision: u64) -> Result<impl Iterator<Item = &Arc<str>>, Behind> {
        if revision < self.forgotten {
            return Err(Behind);
        }
        let newer = self.log.iter().rev();
        let newer = newer.take_while(move |(at, _)| *at > revision);
        Ok(newer.map(|(_, name)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::proto::security::Authorization;

    fn policy(name: &str, dry_run: bool) -> Update {
        let policy = Authorization {
            name: name.to_owned(),
            namespace: "ns".to_owned(),
            dry_run,
            ..Authorization::default()
        };
        let resource = Resource::authorization(&policy);
        Update {
            kind: ResourceType::Authorization,
            name: resource.name.clone(),
            resource: Some(resource),
        }
    }

    fn gone(name: &str) -> Update {
        Update {
            kind: ResourceType::Authorization,
            name: format!("ns/{name}").into(),
            resource: None,
        }
    }

    fn since(store: &Store, revision: u64) -> Vec<String> {
        let collection = store.collection(ResourceType::Authorization).unwrap();
        collection
            .since(revision)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn only_real_changes_count() {
        let mut store = Store::default();
        assert_eq!(store.apply(vec![policy("a", false), policy("b", false)]), 2);
        assert_eq!(store.revision(), 1);
        assert_eq!(store.apply(vec![policy("a", false), gone("c")]), 0);
        assert_eq!(store.revision(), 1);
        assert_eq!(store.apply(vec![policy("a", true), gone("b")]), 2);
        assert_eq!(since(&store, 0), ["ns/a", "ns/b"]);
        assert_eq!(since(&store, 1), ["ns/a", "ns/b"]);
        assert!(since(&store, 2).is_empty());
    }

    #[test]
    fn a_client_behind_the_log_is_told() {
        let mut store = Store::default();
        for round in 0..=LOG_LIMIT {
            store.apply(vec![policy("a", round % 2 == 0)]);
        }
        let collection = store.collection(ResourceType::Authorization).unwrap();
        assert_eq!(collection.since(0), Err(Behind));
        assert_eq!(collection.since(1).unwrap().len(), 1);
    }
}
