//! PeerAuthentication → the `istio.security.Authorization`s that enforce it, under istiod's names.
//!
//! STRICT is a DENY of everybody without an identity. A workload is attached to at most one of:
//!
//! | its mode, own or inherited | single ports          | attached                                  |
//! |----------------------------|-----------------------|-------------------------------------------|
//! | STRICT                     | none is weaker        | the static strict policy                  |
//! | STRICT                     | some are weaker       | its own: no identity, and not those ports |
//! | not STRICT                 | some are STRICT       | its own: no identity, on those ports      |
//! | not STRICT                 | none is STRICT        | nothing                                   |
//!
//! Of several policies for one workload, namespace or mesh, the oldest counts. Two corners differ
//! from istiod on purpose, since it opens there what was closed: a namespace policy that leaves the
//! mode unset inherits the mesh's, and DISABLE on a port exempts it just as PERMISSIVE does.
//! (istio/istio, architecture/ambient/peer-authentication.md)

use mesh::proto::security::string_match::MatchType;
use mesh::proto::security::{Action, Authorization, Clause, Match, Rule, Scope, StringMatch};

use super::Mesh;
use crate::objects::peer_authentication::{Mode, PeerRule};
use crate::objects::{Key, Labels, PeerAuthentication, selects};

/// The static strict policy's name; no Kubernetes name can have its underscores.
const STATIC_STRICT: &str = "istio_converted_static_strict";
/// Before the name of a PeerAuthentication with port-level modes.
const CONVERTED: &str = "converted_peer_authentication_";

/// The resource name of the static strict policy.
#[must_use]
pub fn static_strict_name(mesh: &Mesh) -> String {
    format!("{}/{STATIC_STRICT}", mesh.root_namespace)
}

/// The resource name of a policy's own resource.
#[must_use]
pub fn converted_name(key: &Key) -> String {
    format!("{}/{CONVERTED}{}", key.namespace, key.name)
}

/// Denies everybody without an identity; sent as soon as there is any PeerAuthentication.
#[must_use]
pub fn static_strict(mesh: &Mesh) -> Authorization {
    let rules = vec![Rule {
        clauses: vec![Clause {
            matches: vec![nobody()],
        }],
    }];
    deny(STATIC_STRICT, &mesh.root_namespace, rules)
}

/// What workloads of a namespace inherit: whether they are STRICT unless they say otherwise.
#[must_use]
pub fn inherited_strict<'a>(
    mesh_wide: impl Iterator<Item = &'a PeerAuthentication>,
    namespace_wide: impl Iterator<Item = &'a PeerAuthentication>,
) -> bool {
    let mode = |policies: Option<&PeerAuthentication>| {
        policies.map_or(Mode::Unset, |policy| policy.rule.mode)
    };
    match mode(oldest(namespace_wide)) {
        Mode::Unset => mode(oldest(mesh_wide)) == Mode::Strict,
        own => own == Mode::Strict,
    }
}

/// A workload policy's own resource, where it needs one.
#[must_use]
pub fn converted(
    mesh: &Mesh,
    policy: &PeerAuthentication,
    inherited_strict: bool,
) -> Option<Authorization> {
    let key = &policy.source.key;
    if *key.namespace == *mesh.root_namespace || policy.rule.selector.is_none() {
        return None;
    }
    let rules = match shape(&policy.rule, inherited_strict) {
        Shape::Open | Shape::Strict => return None,
        Shape::StrictExcept(ports) => {
            let exempt = ports.iter().map(|port| Match {
                not_destination_ports: vec![*port],
                ..Match::default()
            });
            let mut matches: Vec<Match> = exempt.collect();
            matches.push(nobody());
            vec![Rule {
                clauses: matches
                    .into_iter()
                    .map(|one| Clause { matches: vec![one] })
                    .collect(),
            }]
        }
        Shape::StrictOn(ports) => {
            let strict = ports.iter().map(|port| Match {
                destination_ports: vec![*port],
                ..nobody()
            });
            strict
                .map(|one| Rule {
                    clauses: vec![Clause { matches: vec![one] }],
                })
                .collect()
        }
    };
    Some(deny(
        &format!("{CONVERTED}{}", key.name),
        &key.namespace,
        rules,
    ))
}

/// What a workload is attached to, as `namespace/name`, out of its namespace's policies.
#[must_use]
pub fn attached<'a>(
    mesh: &Mesh,
    namespace: &str,
    labels: &Labels,
    policies: impl Iterator<Item = &'a PeerAuthentication>,
    inherited_strict: bool,
) -> Option<String> {
    let own = policies
        .filter(|_| namespace != mesh.root_namespace)
        .filter(|policy| {
            policy
                .rule
                .selector
                .as_ref()
                .is_some_and(|selector| selects(selector, labels))
        });
    let Some(policy) = oldest(own) else {
        return inherited_strict.then(|| static_strict_name(mesh));
    };
    match shape(&policy.rule, inherited_strict) {
        Shape::Open => None,
        Shape::Strict => Some(static_strict_name(mesh)),
        Shape::StrictExcept(_) | Shape::StrictOn(_) => Some(converted_name(&policy.source.key)),
    }
}

/// The rows of the table above.
enum Shape {
    Open,
    Strict,
    StrictExcept(Vec<u32>),
    StrictOn(Vec<u32>),
}

fn shape(rule: &PeerRule, inherited_strict: bool) -> Shape {
    let strict = match rule.mode {
        Mode::Unset => inherited_strict,
        own => own == Mode::Strict,
    };
    let ports = |strict: bool| -> Vec<u32> {
        let set = rule.ports.iter().filter(|(_, mode)| **mode != Mode::Unset);
        set.filter(|(_, mode)| (**mode == Mode::Strict) == strict)
            .map(|(port, _)| u32::from(*port))
            .collect()
    };
    let others = ports(!strict);
    match (strict, others.is_empty()) {
        (true, true) => Shape::Strict,
        (true, false) => Shape::StrictExcept(others),
        (false, true) => Shape::Open,
        (false, false) => Shape::StrictOn(others),
    }
}

fn oldest<'a>(
    policies: impl Iterator<Item = &'a PeerAuthentication>,
) -> Option<&'a PeerAuthentication> {
    policies.min_by_key(|policy| (policy.source.created, policy.source.key.clone()))
}

/// Matches a peer without an identity.
fn nobody() -> Match {
    Match {
        not_principals: vec![StringMatch {
            match_type: Some(MatchType::Presence(())),
        }],
        ..Match::default()
    }
}

fn deny(name: &str, namespace: &str, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        scope: Scope::WorkloadSelector.into(),
        action: Action::Deny.into(),
        rules,
        dry_run: false,
        extensions: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
