//! All policies, found by the workloads they are for, and the decision over those in scope.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::rule::Facts;
use super::{
    Action, Authorization, DecidedBy, Denied, DryRun, Inbound, Permit, PolicyName, Reason, Scope,
};

/// All policies of the mesh.
#[derive(Debug, Default)]
pub struct Policies {
    by_name: HashMap<PolicyName, Arc<Authorization>>,
    global: BTreeMap<PolicyName, Arc<Authorization>>,
    by_namespace: HashMap<Arc<str>, BTreeMap<PolicyName, Arc<Authorization>>>,
}

impl Policies {
    /// Adds a policy, or replaces the one of its name.
    pub fn insert(&mut self, policy: Authorization) {
        self.remove(&policy.name);
        let policy = Arc::new(policy);
        let name = policy.name.clone();
        match policy.scope {
            Scope::Global => {
                self.global.insert(name.clone(), policy.clone());
            }
            Scope::Namespace => {
                let namespace = name.namespace().into();
                let policies = self.by_namespace.entry(namespace).or_default();
                policies.insert(name.clone(), policy.clone());
            }
            Scope::Selector => {}
        }
        self.by_name.insert(name, policy);
    }

    /// Removes a policy; gives whether it was there.
    pub fn remove(&mut self, name: &PolicyName) -> bool {
        let Some(policy) = self.by_name.remove(name) else {
            return false;
        };
        match policy.scope {
            Scope::Global => {
                self.global.remove(name);
            }
            Scope::Namespace => {
                if let Some(policies) = self.by_namespace.get_mut(name.namespace()) {
                    policies.remove(name);
                    if policies.is_empty() {
                        self.by_namespace.remove(name.namespace());
                    }
                }
            }
            Scope::Selector => {}
        }
        true
    }

    /// A policy by name.
    #[must_use]
    pub fn get(&self, name: &PolicyName) -> Option<&Arc<Authorization>> {
        self.by_name.get(name)
    }

    /// All policies, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Authorization>> {
        self.by_name.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Decides over a connection to a workload of `namespace` that names the policies `selected`.
    ///
    /// # Errors
    /// [`Denied`] says which policy, or why. If a selected policy isn't there the decision is
    /// pending ([`Denied::is_pending`]), unless a policy that is there denies anyway.
    pub fn decide(
        &self,
        namespace: &str,
        selected: &[PolicyName],
        connection: &Inbound,
    ) -> Result<Permit, Denied> {
        let facts = Facts::of(connection);
        let mut dry_run = Vec::new();
        let mut missing = None;
        let mut allowed_by = None;
        let mut any_allow = false;
        let of_namespace = self.by_namespace.get(namespace).into_iter().flatten();
        let by_scope = self
            .global
            .iter()
            .chain(of_namespace)
            .map(|(_, policy)| policy);
        let by_selector = selected.iter().filter_map(|name| {
            let policy = self.by_name.get(name);
            if policy.is_none() && missing.is_none() {
                missing = Some(name.clone());
            }
            policy
        });
        for policy in by_scope.chain(by_selector) {
            if policy.dry_run {
                let matched = policy.holds(&facts);
                let (policy, action) = (policy.name.clone(), policy.action);
                dry_run.push(DryRun {
                    policy,
                    action,
                    matched,
                });
                continue;
            }
            match policy.action {
                Action::Deny if policy.holds(&facts) => {
                    let reason = Reason::Policy(policy.name.clone());
                    return Err(Denied { reason, dry_run });
                }
                Action::Deny => {}
                Action::Allow => {
                    any_allow = true;
                    if allowed_by.is_none() && policy.holds(&facts) {
                        allowed_by = Some(policy.name.clone());
                    }
                }
            }
        }
        let reason = match (missing, allowed_by, any_allow) {
            (Some(name), _, _) => Reason::Missing(name),
            (None, Some(name), _) => return Ok(Permit::new(DecidedBy::Policy(name), dry_run)),
            (None, None, false) => return Ok(Permit::new(DecidedBy::Default, dry_run)),
            (None, None, true) => Reason::NotAllowed,
        };
        Err(Denied { reason, dry_run })
    }
}
