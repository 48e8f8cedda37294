//! Where a waypoint's replicas stand: what is near is reckoned from there.

use std::collections::BTreeMap;

use super::{Index, Output};
use crate::objects::waypoint_use::GATEWAY_NAME;
use crate::objects::{Key, Labels, Pod};
use crate::translate::l7::locality::{Here, Place};

/// Waypoints, and where each stood.
pub(in crate::index) type Stood = BTreeMap<Key, Here>;

impl Index {
    /// One place, if all ready replicas stand there; while none is ready, nowhere in particular.
    pub(super) fn here(&self, waypoint: &Key) -> Here {
        let pods = self.pods.within(&waypoint.namespace);
        let mut replicas = pods.map(|(_, pod)| pod).filter(|pod| {
            pod.ready && gateway_of(pod).is_some_and(|gateway| *gateway == *waypoint.name)
        });
        let Some(first) = replicas.next() else {
            return Here {
                place: Some(Place::default()),
                ..Here::default()
            };
        };
        let (place, mut labels) = (self.place_of(first), Labels::clone(&first.labels));
        let mut together = true;
        for other in replicas {
            together &= self.place_of(other) == place;
            labels.retain(|key, value| other.labels.get(key) == Some(value));
        }
        // It names one version of the Deployment, and counts for nothing.
        labels.remove("pod-template-hash");
        Here {
            place: together.then_some(place),
            labels,
        }
    }

    /// Region, zone and subzone of a pod's node.
    pub(super) fn place_of(&self, pod: &Pod) -> Place {
        self.nodes
            .get(&pod.node)
            .map(|node| (node.region.clone(), node.zone.clone(), node.subzone.clone()))
            .unwrap_or_default()
    }

    /// Where the waypoints stand of which these are replicas.
    pub(in crate::index) fn stand<'a>(&self, pods: impl IntoIterator<Item = &'a Pod>) -> Stood {
        let of = pods.into_iter().filter_map(|pod| {
            let gateway = gateway_of(pod)?;
            Some(Key::new(pod.key.namespace.clone(), gateway))
        });
        of.filter(|waypoint| self.l7.made.contains_key(waypoint))
            .map(|waypoint| {
                let here = self.here(&waypoint);
                (waypoint, here)
            })
            .collect()
    }

    /// Marks those that stand elsewhere than before.
    pub(in crate::index) fn mark_moved(&mut self, before: Stood) {
        for (waypoint, stood) in before {
            if self.here(&waypoint) != stood {
                self.dirty.insert(Output::Waypoint(waypoint));
            }
        }
    }
}

fn gateway_of(pod: &Pod) -> Option<&str> {
    let gateway = pod.labels.get(GATEWAY_NAME)?;
    pod.entry.is_none().then_some(gateway)
}
