//! AuthorizationPolicy → Envoy's RBAC filters: CUSTOM, AUDIT, DENY, ALLOW, in this order.
//!
//! A rule that can't be expressed makes an ALLOW policy allow less and a DENY policy deny more, as
//! in istiod. A policy that can't be read at all denies everything it is attached to.
//! (istio/istio, `pilot/pkg/security/authz`)

mod custom;
mod model;
mod term;
mod words;

use std::collections::HashMap;

use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as http_rbac;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as network_rbac;

use super::api::{any, hcm, http_filter, listener, network_filter, rbac};
use super::attach::{self, Place};
use super::view::{Target, View};
use crate::objects::authorization_policy::{AuthorizationPolicy, Spec};
use crate::objects::request_authentication::Targets;
use crate::objects::{Key, Kind};

pub(super) use custom::{asked, http as custom};
pub(super) use words::jwt_claim;

use rbac::rbac::Action;

/// For HTTP: of a service, or of pods themselves.
pub(super) fn http(view: &View<'_>, service: Option<&Target>) -> Vec<hcm::HttpFilter> {
    let built = build(view, service, false);
    built.into_iter().map(http_rules).collect()
}

fn http_rules(built: Built) -> hcm::HttpFilter {
    let config = http_rbac::Rbac {
        shadow_rules_stat_prefix: built.prefix,
        rules: built.rules,
        shadow_rules: built.shadow,
        ..Default::default()
    };
    http_filter("envoy.filters.http.rbac", any(&config))
}

/// For opaque connections.
pub(super) fn network(view: &View<'_>, service: Option<&Target>) -> Vec<listener::Filter> {
    let mut filters = custom::network(view, service);
    filters.extend(build(view, service, true).into_iter().map(network_rules));
    filters
}

fn network_rules(built: Built) -> listener::Filter {
    let config = network_rbac::Rbac {
        stat_prefix: "tcp.".to_owned(),
        shadow_rules_stat_prefix: built.prefix,
        rules: built.rules,
        shadow_rules: built.shadow,
        ..Default::default()
    };
    network_filter("envoy.filters.network.rbac", any(&config))
}

struct Built {
    prefix: String,
    rules: Option<rbac::Rbac>,
    shadow: Option<rbac::Rbac>,
}

/// What the shadow rules' results are called.
fn prefix(action: Action, shadow: bool) -> &'static str {
    // istiod asks the shadow rules for their action, and where there are none that is ALLOW.
    match (shadow, action) {
        (false, _) | (_, Action::Allow) => "istio_dry_run_allow_",
        (_, Action::Deny) => "istio_dry_run_deny_",
        (_, Action::Log) => "",
    }
}

/// The policies that are attached here, the mesh's own first, so that nobody can speak before it.
fn attached<'a>(view: &'a View<'_>, service: Option<&Target>) -> Vec<&'a AuthorizationPolicy> {
    let all = view.policies.authorization.iter();
    let mut attached: Vec<&AuthorizationPolicy> = all
        .filter(|(policy, targets)| attaches(view, service, &policy.source.key, targets))
        .map(|(policy, _)| policy)
        .collect();
    attached.sort_by_key(|policy| *policy.source.key.namespace != *view.mesh.root_namespace);
    attached
}

fn build(view: &View<'_>, service: Option<&Target>, tcp: bool) -> Vec<Built> {
    let mut attached = attached(view, service);
    attached.retain(|policy| !policy.spec.as_ref().is_ok_and(|spec| spec.asks().is_some()));
    let mut built = Vec::new();
    for action in [Action::Log, Action::Deny, Action::Allow] {
        let of: Vec<&&AuthorizationPolicy> = attached
            .iter()
            .filter(|policy| action_of(policy) == action)
            .collect();
        if of.is_empty() {
            continue;
        }
        let (mut rules, mut shadow) = (None, None);
        for policy in of {
            let dry = policy.dry_run.clone().unwrap_or_default();
            let into = if dry { &mut shadow } else { &mut rules };
            let into = into.get_or_insert_with(|| rbac::Rbac {
                action: action.into(),
                ..Default::default()
            });
            into.policies.extend(policies(view, policy, action, tcp));
        }
        built.push(Built {
            prefix: prefix(action, shadow.is_some()).to_owned(),
            rules,
            shadow,
        });
    }
    built
}

/// What is not understood denies.
fn action_of(policy: &AuthorizationPolicy) -> Action {
    match policy.spec.as_ref().map(|spec| spec.action.as_deref()) {
        Ok(None | Some("ALLOW")) => Action::Allow,
        Ok(Some("AUDIT")) => Action::Log,
        _ => Action::Deny,
    }
}

fn policies(
    view: &View<'_>,
    policy: &AuthorizationPolicy,
    action: Action,
    tcp: bool,
) -> HashMap<String, rbac::Policy> {
    let key = &policy.source.key;
    let name = |rule: usize| format!("ns[{}]-policy[{}]-rule[{rule}]", key.namespace, key.name);
    let problem = |what: String| view.problem(Kind::AuthorizationPolicy, key, what);
    let spec = match &policy.spec {
        Ok(spec) => spec,
        Err(why) => {
            problem(why.clone());
            return HashMap::from([(name(0), model::always())]);
        }
    };
    match spec.action.as_deref() {
        None | Some("ALLOW" | "DENY" | "AUDIT") => {}
        Some(other) => {
            problem(format!(
                "action is {other:?}: a waypoint enforces ALLOW, DENY, AUDIT and CUSTOM; this one denies everything"
            ));
            return HashMap::from([(name(0), model::always())]);
        }
    }
    of_rules(view, key, spec, action, tcp, name)
}

fn of_rules(
    view: &View<'_>,
    key: &Key,
    spec: &Spec,
    action: Action,
    tcp: bool,
    name: impl Fn(usize) -> String,
) -> HashMap<String, rbac::Policy> {
    if spec.rules.is_empty() {
        return HashMap::from([(name(0), model::never())]);
    }
    let domains: Vec<String> = std::iter::once(&view.mesh.trust_domain)
        .chain(&view.mesh.trust_domain_aliases)
        .cloned()
        .collect();
    let mut all = HashMap::new();
    for (number, rule) in spec.rules.iter().enumerate() {
        match model::policy(&key.namespace, &domains, rule, action, tcp) {
            Ok(Some(policy)) => {
                all.insert(name(number), policy);
            }
            Ok(None) => {}
            Err(problem) => {
                view.problem(
                    Kind::AuthorizationPolicy,
                    key,
                    format!("rules[{number}]: {problem}"),
                );
                if action != Action::Allow {
                    all.insert(name(number), model::always());
                }
            }
        }
    }
    all
}

/// Whether a policy is attached, seen from a service or from the pods' own addresses.
pub(super) fn attaches(
    view: &View<'_>,
    service: Option<&Target>,
    policy: &Key,
    targets: &Targets,
) -> bool {
    let place = Place {
        gateway: &view.gateway,
        labels: &view.labels,
        root: &view.mesh.root_namespace,
        service: service.map(|service| (service.kind, &service.object)),
    };
    attach::attaches(&place, policy, targets)
}
