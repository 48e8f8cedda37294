//! Policies in force: the newest good version of each, and what its status shall say.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh::proto::security::Authorization;

use super::{Index, Output, Wish};
use crate::deployer::manifest::OLD_GATEWAY_NAME;
use crate::objects::mesh_config::Config;
use crate::objects::peer_authentication::PeerRule;
use crate::objects::request_authentication::{TargetRef, Targets};
use crate::objects::waypoint_use::GATEWAY_NAME;
use crate::objects::{
    AuthorizationPolicy, Key, Kind, Labels, MeshConfig, PeerAuthentication, PolicySource,
};
use crate::status::Verdict;
use crate::translate::authorization::{Translated, authorization};

/// An AuthorizationPolicy, as it is enforced.
pub(super) struct InForce {
    pub(super) authorization: Option<Authorization>,
    pub(super) selector: Option<Labels>,
    /// The policy as it was read last, for its status.
    pub(super) source: PolicySource,
    /// The policy itself, where it is for waypoints.
    pub(super) for_waypoints: Option<(AuthorizationPolicy, Targets)>,
    /// The generation that is enforced, if all of it was right.
    good: Option<i64>,
}

/// A PeerAuthentication, as it is enforced.
pub(super) struct PeerInForce {
    pub(super) policy: PeerAuthentication,
    good: Option<i64>,
}

impl Index {
    pub(super) fn set_policy(&mut self, policy: AuthorizationPolicy) {
        let key = policy.source.key.clone();
        let translated = authorization(&self.mesh, &policy);
        let generation = policy.source.generation;
        let old = self.policies.get(&key);
        if translated.refused
            && old.is_some_and(|old| old.good.is_some_and(|good| good != generation))
        {
            let good = old.and_then(|old| old.good).unwrap_or_default();
            self.wish(
                Kind::AuthorizationPolicy,
                policy.source,
                translated
                    .verdict
                    .map(|v| v.without(&policy.passed_over).instead(&stays(good))),
            );
            return;
        }
        let Translated {
            authorization,
            selector,
            verdict,
            refused,
        } = translated;
        let verdict = if refused {
            verdict.map(|v| v.instead(REFUSED_AT_FIRST))
        } else {
            verdict
        };
        let good = (!refused).then_some(generation);
        let for_waypoints = for_waypoints(&policy);
        // A namespace's policy for a waypoint is none for its node proxy.
        let (authorization, verdict) = match &for_waypoints {
            Some((_, targets)) if targets.refs.is_empty() => {
                (None, Some(Verdict::accepted().for_waypoints()))
            }
            Some(_) if verdict.is_none() => {
                (authorization, Some(Verdict::accepted().for_waypoints()))
            }
            _ => (authorization, verdict),
        };
        let verdict = verdict.map(|verdict| verdict.without(&policy.passed_over));
        let before = old.and_then(|old| old.for_waypoints.clone());
        if before != for_waypoints {
            for (_, targets) in before.iter().chain(&for_waypoints) {
                self.mark_attached(&key, targets);
            }
        }
        let old = self.policies.get(&key);
        let same =
            old.is_some_and(|old| old.authorization == authorization && old.selector == selector);
        if !same {
            self.mark_pods_of_policy(&key);
        }
        self.policies.set(
            &key,
            Some(InForce {
                authorization,
                selector,
                source: policy.source.clone(),
                for_waypoints,
                good,
            }),
        );
        if !same {
            self.mark_pods_of_policy(&key);
            self.dirty.insert(Output::Policy(key.clone()));
        }
        self.wish(Kind::AuthorizationPolicy, policy.source, verdict);
        self.wish_of_known((Kind::AuthorizationPolicy, key));
    }

    pub(super) fn remove_policy(&mut self, key: &Key) {
        self.mark_pods_of_policy(key);
        let old = self.policies.get(key);
        if let Some((_, targets)) = old.and_then(|old| old.for_waypoints.clone()) {
            self.mark_attached(key, &targets);
        }
        self.policies.set(key, None);
        self.forget_said((Kind::AuthorizationPolicy, key.clone()));
        self.verdicts
            .remove(&(Kind::AuthorizationPolicy, key.clone()));
        self.dirty.insert(Output::Policy(key.clone()));
    }

    /// Takes in whom policies may ask. Of a configuration that can't be read the last good one stays.
    pub(super) fn set_mesh_config(&mut self, config: Option<MeshConfig>) {
        self.mesh_config = config.as_ref().map(|config| config.key.clone());
        let Config {
            providers,
            tracers,
            loggers,
            defaults,
            unused,
        } = match config.map(|config| (config.key, config.config)) {
            None => Config::default(),
            Some((_, Ok(config))) => config,
            Some((key, Err(problem))) => {
                tracing::warn!(config_map = %key, %problem, "the mesh configuration can't be used: the one before stays, or none where there was none");
                return;
            }
        };
        if !unused.is_empty() {
            tracing::warn!(
                fields = unused.join(", "),
                "the mesh configuration has what control does not use: remove it"
            );
        }
        if *self.mesh.tracers != tracers {
            self.mesh.tracers = Arc::new(tracers);
            self.mark_telemetries(|spec| !spec.tracing.is_empty());
        }
        if *self.mesh.loggers != loggers {
            self.mesh.loggers = Arc::new(loggers);
            self.mark_telemetries(|spec| !spec.access_logging.is_empty());
        }
        if *self.mesh.defaults != defaults {
            self.mesh.defaults = Arc::new(defaults);
            let all = self.l7.made.keys().cloned().map(Output::Waypoint);
            self.dirty.extend(all);
        }
        if *self.mesh.providers == providers {
            return;
        }
        self.mesh.providers = Arc::new(providers);
        let asking: Vec<(Key, Targets)> = self
            .policies
            .all()
            .filter_map(|(key, policy)| {
                let (policy, targets) = policy.for_waypoints.as_ref()?;
                let asks = policy.spec.as_ref().is_ok_and(|spec| spec.asks().is_some());
                asks.then(|| (key, targets.clone()))
            })
            .collect();
        for (policy, targets) in asking {
            self.mark_attached(&policy, &targets);
        }
    }

    fn mark_pods_of_policy(&mut self, key: &Key) {
        let Some(InForce {
            authorization: Some(_),
            selector: Some(selector),
            ..
        }) = self.policies.get(key)
        else {
            return;
        };
        let selector = selector.clone();
        self.mark_selected_pods_of_policy(&key.namespace, Some(&selector));
    }

    pub(super) fn set_peer(&mut self, mut policy: PeerAuthentication) {
        let key = policy.source.key.clone();
        let generation = policy.source.generation;
        let source = policy.source.clone();
        let passed_over = std::mem::take(&mut policy.passed_over);
        let problems: BTreeSet<String> = std::mem::take(&mut policy.problems).into_iter().collect();
        let old = self.peers.get(&key);
        let mut good = problems.is_empty().then_some(generation);
        let verdict = if problems.is_empty() {
            Verdict::accepted()
        } else {
            match old.and_then(|old| {
                old.good
                    .filter(|good| *good != generation)
                    .map(|good| (old, good))
            }) {
                Some((old, former)) => {
                    policy.rule = old.policy.rule.clone();
                    good = Some(former);
                    Verdict::invalid(&problems).instead(&stays(former))
                }
                None => Verdict::invalid(&problems).instead(REFUSED_AT_FIRST),
            }
        };
        let same = old.is_some_and(|old| {
            old.policy.rule == policy.rule && old.policy.source.created == policy.source.created
        });
        if !same {
            self.mark_dependents_of_peer(&key);
        }
        self.peers.set(&key, Some(PeerInForce { policy, good }));
        if !same {
            self.mark_dependents_of_peer(&key);
            self.dirty.extend([Output::Peer(key), Output::StaticStrict]);
        }
        let verdict = verdict.without(&passed_over);
        self.wish(Kind::PeerAuthentication, source, Some(verdict));
    }

    pub(super) fn remove_peer(&mut self, key: &Key) {
        self.mark_dependents_of_peer(key);
        self.peers.set(key, None);
        self.verdicts
            .remove(&(Kind::PeerAuthentication, key.clone()));
        self.dirty
            .extend([Output::Peer(key.clone()), Output::StaticStrict]);
    }

    /// A policy without a selector is inherited by those with one, in its namespace or everywhere.
    fn mark_dependents_of_peer(&mut self, key: &Key) {
        let Some(PeerInForce { policy, .. }) = self.peers.get(key) else {
            return;
        };
        let PeerRule { selector, .. } = &policy.rule;
        let (selector, root) = (
            selector.clone(),
            *key.namespace == *self.mesh.root_namespace,
        );
        match selector {
            // A workload's policy has no place in the root namespace.
            Some(_) if root => return,
            Some(_) => {}
            None if root => self.dirty.extend(self.peers.keys().map(Output::Peer)),
            None => self.dirty.extend(
                self.peers
                    .within(&key.namespace)
                    .map(|(key, _)| Output::Peer(key)),
            ),
        }
        self.mark_selected_pods_of_policy(&key.namespace, selector.as_ref());
    }

    fn wish(&mut self, kind: Kind, source: PolicySource, verdict: Option<Verdict>) {
        if let Some(verdict) = verdict {
            self.verdicts.insert(
                (kind, source.key.clone()),
                Wish {
                    kind,
                    source,
                    route: None,
                    addresses: Vec::new(),
                    verdict,
                },
            );
        }
    }
}

/// The policy with its targets, where it is for waypoints: by reference, or by the label that
/// Istio 1.18 gave to their pods.
fn for_waypoints(policy: &AuthorizationPolicy) -> Option<(AuthorizationPolicy, Targets)> {
    let spec = policy.spec.as_ref().ok()?;
    let read = |value: &serde_json::Value| serde_json::from_value::<TargetRef>(value.clone()).ok();
    let single = spec
        .target_ref
        .iter()
        .filter(|_| spec.target_refs.is_empty());
    let targets = Targets {
        refs: spec
            .target_refs
            .iter()
            .chain(single)
            .filter_map(read)
            .collect(),
        selector: spec
            .selector
            .as_ref()
            .map(|selector| selector.match_labels.clone()),
    };
    let by_label = targets.selector.as_ref().is_some_and(|labels| {
        labels.contains_key(OLD_GATEWAY_NAME) || labels.contains_key(GATEWAY_NAME)
    });
    let mut policy = policy.clone();
    // They change with every write of the status, and nothing is made of them.
    policy.source.resource_version.clear();
    policy.source.conditions.clear();
    (!targets.refs.is_empty() || by_label).then_some((policy, targets))
}

/// What is in force of a policy that was wrong from its first version on.
const REFUSED_AT_FIRST: &str = "No earlier version is known: until it is corrected, what can be read of it is enforced in the stricter way";

fn stays(generation: i64) -> String {
    format!("The version before (generation {generation}) stays in force")
}
