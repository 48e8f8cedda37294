//! Where a waypoint's replicas stand: what is near is reckoned from there.
//!
//! Replicas that stand on one node and have the same labels are told the same; they are a seat. Where a
//! replica turns out to stand elsewhere than before, its seat is vacated: who is connected there connects
//! anew, and is told what differs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Index, Output};
use crate::deployer::manifest::Names;
use crate::objects::waypoint_use::GATEWAY_NAME;
use crate::objects::{Gateway, Key, Pod};
use crate::translate::l7::locality::{Here, Place};

/// Replicas of a waypoint that are told the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// The waypoint: its Gateway.
    pub waypoint: Key,
    /// Where they stand.
    pub here: Here,
}

/// Pods, and the seat that each had.
pub(in crate::index) type Stood = BTreeMap<Key, Option<Seat>>;

impl Index {
    /// Where the replicas of a waypoint stand. While there are none: nowhere in particular, so that what is
    /// wrong with its objects is known before.
    pub(super) fn places(&self, gateway: &Gateway) -> BTreeSet<Here> {
        let pods = self.pods.within(&gateway.source.key.namespace);
        let replicas = pods.filter_map(|(_, pod)| self.here(gateway, pod));
        let mut places: BTreeSet<Here> = replicas.collect();
        if places.is_empty() {
            places.insert(Here::default());
        }
        places
    }

    /// Where a pod stands, if it is a replica of this waypoint: it has its label and its account, and runs.
    fn here(&self, gateway: &Gateway, pod: &Pod) -> Option<Here> {
        let own = &gateway.source.key;
        let named = pod.labels.get(GATEWAY_NAME)? == &*own.name;
        let is_replica = named
            && pod.key.namespace == own.namespace
            && *pod.service_account == *Names::of(gateway).service_account
            && pod.entry.is_none()
            && !pod.node.is_empty();
        is_replica.then(|| {
            let mut labels = crate::objects::Labels::clone(&pod.labels);
            // It names one version of the Deployment, and counts for nothing.
            labels.remove("pod-template-hash");
            Here {
                place: self.place_of(pod),
                labels,
                node: pod.node.clone(),
            }
        })
    }

    /// The seat of a pod that is a waypoint's replica.
    pub(super) fn seat_of(&self, pod: &Pod) -> Option<Seat> {
        let gateway = pod.labels.get(GATEWAY_NAME)?;
        let waypoint = Key::new(pod.key.namespace.clone(), gateway.as_str());
        let gateway = self
            .gateways
            .get(&waypoint)
            .filter(|gateway| self.is_waypoint(gateway))?;
        let here = self.here(gateway, pod)?;
        Some(Seat { waypoint, here })
    }

    /// Region, zone and subzone of a pod's node.
    pub(super) fn place_of(&self, pod: &Pod) -> Place {
        self.nodes
            .get(&pod.node)
            .map(|node| (node.region.clone(), node.zone.clone(), node.subzone.clone()))
            .unwrap_or_default()
    }

    /// The seats of these pods.
    pub(in crate::index) fn stand<'a>(&self, pods: impl IntoIterator<Item = &'a Key>) -> Stood {
        let seats = pods.into_iter().map(|key| {
            let pod = self.pods.get(key);
            (key.clone(), pod.and_then(|pod| self.seat_of(pod)))
        });
        seats.collect()
    }

    /// Marks waypoints whose replicas stand elsewhere than before.
    pub(in crate::index) fn mark_moved(&mut self, before: Stood) {
        for (pod, stood) in before {
            let now = self.pods.get(&pod).and_then(|pod| self.seat_of(pod));
            if now == stood {
                continue;
            }
            for seat in [&stood, &now].into_iter().flatten() {
                let known = self.l7.made.get(&seat.waypoint);
                let gateway = self.gateways.get(&seat.waypoint);
                if let (Some(made), Some(gateway)) = (known, gateway)
                    && made.places != self.places(gateway)
                {
                    self.dirty.insert(Output::Waypoint(seat.waypoint.clone()));
                }
            }
            // It went from one to another: one that is new or gone follows no other seat's changes.
            if let (Some(stood), Some(_)) = (stood, now) {
                self.dirty.insert(Output::Waypoint(stood.waypoint.clone()));
                self.l7.gone.insert(stood);
            }
        }
    }
}
