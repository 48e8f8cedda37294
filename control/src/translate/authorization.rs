//! AuthorizationPolicy → `istio.security.Authorization`, with what its status shall say.
//!
//! Whatever a node proxy can't enforce makes the policy stricter, never looser. As in istiod:
//! an ALLOW rule with an L7 attribute is left out (it allows nothing), a DENY rule applies without
//! that attribute (it denies more). A value that is plainly wrong refuses the whole policy by name;
//! the last good version then stays in force, and where there is none, the same strictness rules.

mod rules;

use std::collections::BTreeSet;

use mesh::proto::security::{Action, Authorization, Rule as WireRule, Scope};

use super::Mesh;
use crate::objects::{AuthorizationPolicy, Labels};
use crate::status::Verdict;

/// What a policy comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// What node proxies get, if it is for them at all.
    pub authorization: Option<Authorization>,
    /// The workloads that it is attached to; `None` when it has no selector.
    pub selector: Option<Labels>,
    /// What its status says; `None` leaves the status alone.
    pub verdict: Option<Verdict>,
    /// Whether a value in it was wrong: then a former good version is better than this one.
    pub refused: bool,
}

impl Translated {
    fn not_ours() -> Self {
        Self {
            authorization: None,
            selector: None,
            verdict: None,
            refused: false,
        }
    }

    fn unreadable(problem: &str) -> Self {
        let verdict = Verdict::invalid(&BTreeSet::from([problem.to_owned()]));
        Self {
            authorization: None,
            selector: None,
            verdict: Some(verdict),
            refused: true,
        }
    }

    fn unsupported(message: String) -> Self {
        let verdict = Verdict::unsupported(false, message);
        Self {
            authorization: None,
            selector: None,
            verdict: Some(verdict),
            refused: false,
        }
    }
}

/// Translates one policy.
#[must_use]
pub fn authorization(mesh: &Mesh, policy: &AuthorizationPolicy) -> Translated {
    let spec = match &policy.spec {
        Ok(spec) => spec,
        // Not even its selector is known. The API server's schema lets none of these in.
        Err(problem) => return Translated::unreadable(problem),
    };
    let mut problems = BTreeSet::new();
    if spec.has_targets() {
        if spec.selector.is_some() {
            problems.insert("selector and targetRefs exclude each other".to_owned());
        } else {
            return Translated::not_ours();
        }
    }
    let mut misnamed = false;
    let action = match spec.action.as_deref() {
        None | Some("ALLOW") => Action::Allow,
        Some("DENY") => Action::Deny,
        Some(other @ ("AUDIT" | "CUSTOM")) => {
            return Translated::unsupported(format!("ztunnel does not support the {other} action"));
        }
        Some(other) => {
            problems.insert(format!(
                "action is {other:?}: it must be ALLOW, DENY, AUDIT or CUSTOM"
            ));
            misnamed = true;
            Action::Allow
        }
    };
    let dry_run = policy.dry_run.clone().unwrap_or_else(|problem| {
        problems.insert(problem);
        false
    });
    let mut unsupported = BTreeSet::new();
    let mut rules = Vec::new();
    for (number, rule) in spec.rules.iter().enumerate() {
        let translated = rules::rule(rule, &policy.source.key.namespace);
        problems.extend(
            translated
                .problems
                .iter()
                .map(|problem| format!("rules[{number}].{problem}")),
        );
        let unenforceable = !translated.unsupported.is_empty() || !translated.problems.is_empty();
        unsupported.extend(translated.unsupported);
        if misnamed || (action == Action::Allow && unenforceable) {
            continue;
        }
        // A rule with no clause matches everything, here as in the resource's own terms.
        rules.push(WireRule {
            clauses: translated.clauses,
        });
    }
    let selector = spec
        .selector
        .as_ref()
        .map(|selector| selector.match_labels.clone());
    Translated {
        authorization: Some(Authorization {
            name: policy.source.key.name.to_string(),
            namespace: policy.source.key.namespace.to_string(),
            scope: scope(mesh, policy, selector.as_ref()).into(),
            action: action.into(),
            rules,
            dry_run,
            extensions: Vec::new(),
        }),
        selector,
        refused: !problems.is_empty(),
        verdict: Some(verdict(action, &problems, &unsupported)),
    }
}

fn scope(mesh: &Mesh, policy: &AuthorizationPolicy, selector: Option<&Labels>) -> Scope {
    if selector.is_some() {
        Scope::WorkloadSelector
    } else if *policy.source.key.namespace == *mesh.root_namespace {
        Scope::Global
    } else {
        Scope::Namespace
    }
}

fn verdict(action: Action, problems: &BTreeSet<String>, unsupported: &BTreeSet<String>) -> Verdict {
    if !problems.is_empty() {
        return Verdict::invalid(problems);
    }
    if unsupported.is_empty() {
        return Verdict::accepted();
    }
    let found = unsupported
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let consequence = match action {
        Action::Allow => "Within an ALLOW policy, rules matching HTTP attributes are omitted.",
        Action::Deny => "DENY policy with HTTP attributes is enforced without the HTTP rules.",
    };
    Verdict::unsupported(
        true,
        format!(
            "ztunnel does not support HTTP attributes (found: {found}). In ambient mode you must use a waypoint \
             proxy to enforce HTTP rules. {consequence} This will be more restrictive than requested."
        ),
    )
}

#[cfg(test)]
mod tests;
