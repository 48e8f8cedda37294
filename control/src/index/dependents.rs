//! Who depends on an object: called with the old object in place, and again with the new one.

use super::{Index, Output};
use crate::objects::{Key, Labels, selects};

impl Index {
    pub(super) fn mark_dependents_of_service(&mut self, key: &Key) {
        let Some(service) = self.services.get(key) else {
            return;
        };
        let slices = self.slices_of_service.get(key).into_iter().flatten();
        match &service.selector {
            Some(selector) => {
                let selector = selector.clone();
                self.dirty.extend(slices.cloned().map(Output::Slice));
                self.mark_selected_pods(&key.namespace, Some(&selector));
            }
            None => {
                for slice in slices {
                    let pods = self
                        .slices
                        .get(slice)
                        .map(|slice| slice.pods.as_slice())
                        .unwrap_or_default();
                    self.dirty.extend(pods.iter().cloned().map(Output::Pod));
                    self.dirty.insert(Output::Slice(slice.clone()));
                }
            }
        }
    }

    /// The pods that a policy of this namespace and selector applies to: of the whole mesh from the
    /// root namespace. `None` selects all.
    pub(super) fn mark_selected_pods_of_policy(
        &mut self,
        namespace: &str,
        selector: Option<&Labels>,
    ) {
        let root = namespace == self.mesh.root_namespace;
        self.mark_entries((!root).then_some(namespace));
        if root {
            let found = self
                .pods
                .all()
                .filter(|(_, pod)| selector.is_none_or(|selector| selects(selector, &pod.labels)));
            self.dirty.extend(found.map(|(key, _)| Output::Pod(key)));
        } else {
            self.mark_selected_pods(namespace, selector);
        }
    }

    fn mark_selected_pods(&mut self, namespace: &str, selector: Option<&Labels>) {
        let found = self
            .pods
            .within(namespace)
            .filter(|(_, pod)| selector.is_none_or(|s| selects(s, &pod.labels)));
        self.dirty.extend(found.map(|(key, _)| Output::Pod(key)));
    }
}
