//! Endpoints by place: shares (`distribute`), and who is asked only when the nearer ones are gone
//! (`failover`, `failoverPriority`). (istio/istio, `core/loadbalancer/loadbalancer.go`)
//!
//! It is reckoned from where a replica of the waypoint stands, so that replicas in several zones are told
//! different endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cluster::policy_for;
use super::view::{Backend, Near, Rule, Target};
use crate::objects::Labels;
use crate::objects::destination_rule::{Distribute, Failover, LocalitySetting};

/// Region, zone, subzone.
pub type Place = (String, String, String);

/// Where replicas of a waypoint stand, as far as it decides what is near.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Here {
    /// Their nodes' place.
    pub place: Place,
    /// Their labels.
    pub labels: Labels,
    /// Their node.
    pub node: Arc<str>,
}

/// What was reckoned from where a replica stands: others are told the same, unless they differ in that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reckoned {
    /// Nothing.
    #[default]
    Nothing,
    /// Its place or its labels.
    ByPlace,
    /// Its node too.
    ByNode,
}

impl Here {
    /// Whether replicas there are told what those here are, as far as it was reckoned from here.
    #[must_use]
    pub fn is_told_with(&self, other: &Self, reckoned: Reckoned) -> bool {
        match reckoned {
            Reckoned::Nothing => true,
            Reckoned::ByPlace => (&self.place, &self.labels) == (&other.place, &other.labels),
            Reckoned::ByNode => self == other,
        }
    }
}

/// What is asked for of a cluster.
pub(super) struct Wanted {
    setting: LocalitySetting,
    /// Without it nobody would be found to be gone.
    outliers: bool,
}

/// Endpoints that are in one place and of one priority.
pub(super) struct Group {
    pub(super) place: Place,
    pub(super) priority: u32,
    pub(super) weight: u32,
    pub(super) members: Vec<Backend>,
}

/// The labels that stand for a place, and for a node in it.
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
const HOSTNAME: &str = "kubernetes.io/hostname";

impl Wanted {
    /// What it is reckoned from: shares and distances from the place, labels from what they are.
    pub(super) fn reckoned(&self) -> Reckoned {
        let labels = self.setting.failover_priority.iter();
        let by_node = labels.into_iter().any(|key| key == HOSTNAME)
            && self.outliers
            && self.setting.distribute.is_empty();
        match by_node {
            true => Reckoned::ByNode,
            false => Reckoned::ByPlace,
        }
    }

    /// What a rule asks for a port of a subset, or else the service's traffic distribution. Where
    /// outliers are found, near ones come first even if nothing is said.
    pub(super) fn of(
        rule: Option<&Rule>,
        service: &Target,
        port: u16,
        subset: &str,
    ) -> Option<Self> {
        let policy = rule.map(|rule| policy_for(rule, port, subset));
        let (outliers, balancer) = policy.map_or((false, None), |policy| {
            (policy.outlier_detection.is_some(), policy.load_balancer)
        });
        let said = balancer.and_then(|balancer| balancer.locality_lb_setting);
        match (said, service.near) {
            (Some(setting), _) => {
                (setting.enabled != Some(false)).then_some(Self { setting, outliers })
            }
            // Those that are not ready are no endpoints: outliers need not be looked for.
            (None, Some(near)) => Some(Self {
                setting: nearest(near),
                outliers: true,
            }),
            (None, None) => outliers.then(|| Self {
                setting: LocalitySetting::default(),
                outliers,
            }),
        }
    }
}

/// The preference that istiod makes of a traffic distribution. The network is everybody's.
fn nearest(near: Near) -> LocalitySetting {
    let labels: &[&str] = match near {
        Near::Zone => &[REGION, ZONE],
        Near::Node => &[REGION, ZONE, SUBZONE, HOSTNAME],
    };
    LocalitySetting {
        failover_priority: labels.iter().map(ToString::to_string).collect(),
        ..LocalitySetting::default()
    }
}

/// Whether the groups' weights count: where a rule says how much goes where, or who follows whom.
pub(super) fn is_weighted(setting: &LocalitySetting, outliers: bool) -> bool {
    let follows = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
    setting.enabled != Some(false) && (!setting.distribute.is_empty() || outliers && follows)
}

/// The endpoints of a cluster in groups: as they stand, or as is wanted by who stands here.
pub(super) fn groups(near: Option<(&Here, &Wanted)>, backends: Vec<Backend>) -> Vec<Group> {
    let mut by_place: BTreeMap<Place, Vec<Backend>> = BTreeMap::new();
    for backend in backends {
        let members = by_place.entry(backend.locality.clone()).or_default();
        members.push(backend);
    }
    let groups = by_place.into_iter();
    let mut groups: Vec<Group> = groups
        .map(|(place, members)| Group::new(place, 0, members))
        .collect();
    if let Some((here, wanted)) = near {
        let (place, setting) = (&here.place, &wanted.setting);
        if !setting.distribute.is_empty() {
            share(place, &setting.distribute, &mut groups);
        } else if wanted.outliers {
            if !setting.failover_priority.is_empty() {
                groups = by_labels(here, &setting.failover_priority, groups);
            }
            if setting.failover_priority.is_empty() || !setting.failover.is_empty() {
                by_distance(place, &setting.failover, &mut groups);
            }
            without_gaps(&mut groups);
        }
    }
    groups
}

impl Group {
    fn new(place: Place, priority: u32, members: Vec<Backend>) -> Self {
        let weights = members.iter().map(|member| member.weight.max(1));
        Self {
            place,
            priority,
            weight: weights.fold(0, u32::saturating_add),
            members,
        }
    }
}

/// The first rule for callers here gives each place its share; what it does not name gets nothing.
fn share(here: &Place, rules: &[Distribute], groups: &mut [Group]) {
    let Some(rule) = rules.iter().find(|rule| matches(here, &rule.from)) else {
        return;
    };
    let mut left: BTreeSet<usize> = (0..groups.len()).collect();
    for (to, share) in &rule.to {
        let there = left.iter().copied();
        let there: Vec<usize> = there
            .filter(|index| matches(&groups[*index].place, to))
            .collect();
        let total = there.iter().map(|index| u64::from(groups[*index].weight));
        let total: u64 = total.sum::<u64>().max(1);
        for index in there {
            left.remove(&index);
            let own = u64::from(groups[index].weight) * u64::from(*share);
            groups[index].weight = u32::try_from(own.div_ceil(total)).unwrap_or(u32::MAX);
        }
    }
    for index in left {
        groups[index].members.clear();
    }
}

/// Whether a place is meant by `region/zone/subzone`, of which each may be `*` and the last may be left out.
fn matches(place: &Place, rule: &str) -> bool {
    let mut parts = rule.splitn(3, '/');
    let region = parts.next().unwrap_or_default();
    let mut inner = || parts.next().filter(|part| !part.is_empty());
    let (zone, subzone) = (inner(), inner());
    let fits = |part: Option<&str>, own: &str| part.is_none_or(|part| part == "*" || part == own);
    (region == "*" || region == place.0) && fits(zone, &place.1) && fits(subzone, &place.2)
}

/// The more of the labels, from the first on, that an endpoint shares with the caller, the earlier.
fn by_labels(here: &Here, keys: &[String], groups: Vec<Group>) -> Vec<Group> {
    let lowest = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    let wanted: Vec<(&str, &str)> = keys
        .iter()
        .map(|key| {
            let own = |key| value(&here.labels, &here.place, &here.node, key);
            key.split_once('=').unwrap_or_else(|| (key, own(key)))
        })
        .collect();
    let mut split = Vec::new();
    for group in groups {
        let mut by_priority: BTreeMap<u32, Vec<Backend>> = BTreeMap::new();
        for member in group.members {
            let shared = wanted
                .iter()
                .take_while(|(key, wanted)| {
                    value(&member.labels, &group.place, &member.node, key) == *wanted
                })
                .count();
            let priority = if shared == wanted.len() {
                0
            } else {
                lowest - u32::try_from(shared).unwrap_or(lowest)
            };
            by_priority.entry(priority).or_default().push(member);
        }
        let of_group = by_priority.into_iter();
        split.extend(
            of_group.map(|(priority, members)| Group::new(group.place.clone(), priority, members)),
        );
    }
    split
}

fn value<'a>(labels: &'a Labels, place: &'a Place, node: &'a str, key: &str) -> &'a str {
    match key {
        HOSTNAME => node,
        REGION => &place.0,
        ZONE => &place.1,
        SUBZONE => &place.2,
        key => labels.get(key).map_or("", String::as_str),
    }
}

/// The same subzone, zone, region; then the region that the rule names, or any; then the others.
fn by_distance(here: &Place, failover: &[Failover], groups: &mut [Group]) {
    let named = failover.iter().find(|rule| rule.from == here.0);
    for group in groups {
        let there = &group.place;
        let distance = if there.0 != here.0 {
            3 + u32::from(named.is_some_and(|rule| rule.to != there.0))
        } else if there.1 != here.1 {
            2
        } else {
            u32::from(there.2 != here.2)
        };
        group.priority = group.priority * 5 + distance;
    }
}

/// Envoy wants every priority from 0 on.
fn without_gaps(groups: &mut [Group]) {
    let used: BTreeSet<u32> = groups.iter().map(|group| group.priority).collect();
    for group in groups {
        let before = used.range(..group.priority).count();
        group.priority = u32::try_from(before).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
mod tests;
