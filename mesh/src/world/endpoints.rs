//! The endpoints of one service, kept as the workloads come and go, each change at constant cost.

use std::collections::HashMap;

use crate::balance::{Candidates, Endpoint};
use crate::workload::Uid;

/// The endpoints of one service.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    position: HashMap<Uid, usize>,
    /// The greatest capacity there has been since there was no endpoint.
    most_capacity: u32,
}

impl Endpoints {
    /// Adds an endpoint, or replaces the one of the same workload.
    pub(super) fn insert(&mut self, endpoint: Endpoint) {
        self.most_capacity = self.most_capacity.max(endpoint.workload.capacity);
        let uid = endpoint.workload.uid.clone();
        match self.position.get(&uid) {
            Some(position) => self.all[*position] = endpoint,
            None => {
                self.position.insert(uid, self.all.len());
                self.all.push(endpoint);
            }
        }
    }

    /// Removes a workload's endpoint. The last one takes its place.
    pub(super) fn remove(&mut self, uid: &Uid) {
        let Some(position) = self.position.remove(uid) else {
            return;
        };
        self.all.swap_remove(position);
        if let Some(moved) = self.all.get(position) {
            self.position.insert(moved.workload.uid.clone(), position);
        }
        if self.all.is_empty() {
            self.most_capacity = 0;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn all(&self) -> &[Endpoint] {
        &self.all
    }

    pub(super) fn candidates(&self) -> Candidates<'_> {
        Candidates {
            endpoints: &self.all,
            most_capacity: self.most_capacity,
        }
    }
}
