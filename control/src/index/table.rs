//! Objects by namespace and name, so that what concerns one namespace looks at that one only. Each is
//! in a block of its own: a tree's nodes are half empty, and would be so in whole objects.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::objects::Key;

/// Objects of one kind.
pub(super) struct Table<T> {
    namespaces: HashMap<Arc<str>, BTreeMap<Arc<str>, Box<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            namespaces: HashMap::new(),
        }
    }
}

impl<T> Table<T> {
    pub(super) fn get(&self, key: &Key) -> Option<&T> {
        let found = self.namespaces.get(&key.namespace)?.get(&key.name)?;
        Some(found)
    }

    /// Puts an object in place, or takes it away.
    pub(super) fn set(&mut self, key: &Key, new: Option<T>) {
        match new {
            Some(object) => {
                self.namespaces
                    .entry(key.namespace.clone())
                    .or_default()
                    .insert(key.name.clone(), Box::new(object));
            }
            None => {
                if let Some(objects) = self.namespaces.get_mut(&key.namespace) {
                    objects.remove(&key.name);
                    if objects.is_empty() {
                        self.namespaces.remove(&key.namespace);
                    }
                }
            }
        }
    }

    /// The objects of one namespace.
    pub(super) fn within<'a>(
        &'a self,
        namespace: &str,
    ) -> impl Iterator<Item = (Key, &'a T)> + use<'a, T> {
        let found = self.namespaces.get_key_value(namespace);
        found.into_iter().flat_map(|(namespace, objects)| {
            objects
                .iter()
                .map(move |(name, object)| (Key::new(namespace.clone(), name.clone()), &**object))
        })
    }

    /// All objects.
    pub(super) fn all(&self) -> impl Iterator<Item = (Key, &T)> {
        self.namespaces.iter().flat_map(|(namespace, objects)| {
            objects
                .iter()
                .map(move |(name, object)| (Key::new(namespace.clone(), name.clone()), &**object))
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.namespaces.values().map(BTreeMap::len).sum()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.all().map(|(key, _)| key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }
}
