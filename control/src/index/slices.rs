//! EndpointSlices in the index: whom each is of. Of a service with a selector the pods are known without
//! them, so that only pods of the others remember which slices name them.

use super::{Index, Output, join, leave};
use crate::objects::{EndpointSlice, Key};

impl Index {
    pub(super) fn set_slice(&mut self, key: Key, new: Option<EndpointSlice>) {
        let old = self.slices.get(&key);
        if old == new.as_ref() {
            return;
        }
        let service = |slice: Option<&EndpointSlice>| slice.map(|slice| slice.service.clone());
        let (before, after) = (service(old), service(new.as_ref()));
        self.mark_pods_of_slice(&key);
        self.mark_waypoints_of_slice(&key);
        leave(&mut self.slices_of_service, before, &key);
        self.leave_pods(&key);
        self.slices.set(&key, new);
        self.join_pods(&key);
        join(&mut self.slices_of_service, after, &key);
        self.mark_pods_of_slice(&key);
        self.mark_waypoints_of_slice(&key);
        self.dirty.insert(Output::Slice(key));
    }

    /// A selector finds its pods without the slice: only where there is none does it matter.
    fn mark_pods_of_slice(&mut self, key: &Key) {
        let Some(slice) = self.slices.get(key) else {
            return;
        };
        if self.is_by_hand(slice) {
            self.dirty
                .extend(slice.pods.iter().cloned().map(Output::Pod));
        }
    }

    /// Lets the pods of a slice find it, where they have to.
    pub(super) fn join_pods(&mut self, key: &Key) {
        if let Some(slice) = self.slices.get(key).filter(|slice| self.is_by_hand(slice)) {
            for pod in &slice.pods {
                join(&mut self.slices_of_pod, Some(pod.clone()), key);
            }
        }
    }

    /// Undoes that. Called before the slice or its service change.
    pub(super) fn leave_pods(&mut self, key: &Key) {
        if let Some(slice) = self.slices.get(key).filter(|slice| self.is_by_hand(slice)) {
            for pod in &slice.pods {
                leave(&mut self.slices_of_pod, Some(pod.clone()), key);
            }
        }
    }

    fn is_by_hand(&self, slice: &EndpointSlice) -> bool {
        let service = self.services.get(&slice.service);
        service.is_some_and(|service| service.selector.is_none())
    }
}
