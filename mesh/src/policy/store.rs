//! All policies, found by the workloads they are for, and the decision over those in scope.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::rule::Facts;
use super::shelf::{Named, Shelf};
use super::{
    Action, Authorization, DecidedBy, Denied, DryRun, Inbound, Permit, PolicyName, Reason, Scope,
};

/// All policies of the mesh.
#[derive(Debug, Default)]
pub struct Policies {
    by_name: HashMap<PolicyName, Arc<Authorization>>,
    global: Shelves,
    by_namespace: HashMap<Arc<str>, Shelves>,
    dry_run_matches: AtomicU64,
}

/// The policies of one scope.
#[derive(Debug, Default)]
struct Shelves {
    deny: Shelf,
    allow: Shelf,
    /// Those that are only tried out, of either action.
    tried: Named,
}

/// The policies in scope for one workload.
struct InScope<'a> {
    shelves: [Option<&'a Shelves>; 2],
    selected: Vec<&'a Arc<Authorization>>,
    missing: Option<&'a PolicyName>,
}

impl Policies {
    /// Adds a policy, or replaces the one of its name.
    pub fn insert(&mut self, policy: Authorization) {
        self.remove(&policy.name);
        let policy = Arc::new(policy);
        match policy.scope {
            Scope::Global => self.global.insert(&policy),
            Scope::Namespace => {
                let namespace = policy.name.namespace().into();
                self.by_namespace
                    .entry(namespace)
                    .or_default()
                    .insert(&policy);
            }
            Scope::Selector => {}
        }
        self.by_name.insert(policy.name.clone(), policy);
    }

    /// Removes a policy; gives whether it was there.
    pub fn remove(&mut self, name: &PolicyName) -> bool {
        let Some(policy) = self.by_name.remove(name) else {
            return false;
        };
        match policy.scope {
            Scope::Global => self.global.remove(&policy),
            Scope::Namespace => {
                let namespace = name.namespace();
                if let Some(shelves) = self.by_namespace.get_mut(namespace) {
                    shelves.remove(&policy);
                    if shelves.is_empty() {
                        self.by_namespace.remove(namespace);
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

    /// How often policies that are only tried out have matched.
    #[must_use]
    pub fn dry_run_matches(&self) -> u64 {
        self.dry_run_matches.load(Ordering::Relaxed)
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
        let in_scope = self.in_scope(namespace, selected);
        let dry_run = self.try_out(&in_scope, &facts);
        let deny = in_scope.first_match(Action::Deny, &facts);
        if let Some(policy) = deny {
            let reason = Reason::Policy(policy.name.clone());
            return Err(Denied { reason, dry_run });
        }
        if let Some(missing) = in_scope.missing {
            let reason = Reason::Missing(missing.clone());
            return Err(Denied { reason, dry_run });
        }
        if let Some(policy) = in_scope.first_match(Action::Allow, &facts) {
            let by = DecidedBy::Policy(policy.name.clone());
            return Ok(Permit::new(by, dry_run));
        }
        if in_scope.any_allow() {
            let reason = Reason::NotAllowed;
            return Err(Denied { reason, dry_run });
        }
        Ok(Permit::new(DecidedBy::Default, dry_run))
    }

    fn in_scope<'a>(&'a self, namespace: &str, selected: &'a [PolicyName]) -> InScope<'a> {
        let mut in_scope = InScope {
            shelves: [Some(&self.global), self.by_namespace.get(namespace)],
            selected: Vec::new(),
            missing: None,
        };
        for name in selected {
            match self.by_name.get(name) {
                Some(policy) => in_scope.selected.push(policy),
                None => in_scope.missing = in_scope.missing.or(Some(name)),
            }
        }
        in_scope
    }

    /// Asks the policies that are only tried out, logs and counts what they would have said.
    fn try_out(&self, in_scope: &InScope<'_>, facts: &Facts<'_>) -> Vec<DryRun> {
        let tried = in_scope
            .shelves()
            .flat_map(|shelves| shelves.tried.values());
        let selected = in_scope
            .selected
            .iter()
            .copied()
            .filter(|policy| policy.dry_run);
        let asked = tried.chain(selected).map(|policy| DryRun {
            policy: policy.name.clone(),
            action: policy.action,
            matched: policy.holds(facts),
        });
        let asked: Vec<_> = asked.collect();
        for DryRun {
            policy,
            action,
            matched,
        } in &asked
        {
            tracing::info!(%policy, ?action, matched, "dry run of a policy");
            self.dry_run_matches
                .fetch_add(u64::from(*matched), Ordering::Relaxed);
        }
        asked
    }
}

impl InScope<'_> {
    fn shelves(&self) -> impl Iterator<Item = &Shelves> {
        self.shelves.iter().copied().flatten()
    }

    fn selected(&self, action: Action) -> impl Iterator<Item = &Arc<Authorization>> {
        let enforced =
            move |policy: &&Arc<Authorization>| policy.action == action && !policy.dry_run;
        self.selected.iter().copied().filter(enforced)
    }

    fn first_match(&self, action: Action, facts: &Facts<'_>) -> Option<&Authorization> {
        let by_scope = self
            .shelves()
            .flat_map(|s| s.shelf(action).about(facts.identity));
        let mut all = by_scope.chain(self.selected(action));
        all.find(|policy| policy.holds(facts))
            .map(|policy| &**policy)
    }

    fn any_allow(&self) -> bool {
        self.shelves().any(|shelves| !shelves.allow.is_empty())
            || self.selected(Action::Allow).next().is_some()
    }
}

impl Shelves {
    fn shelf(&self, action: Action) -> &Shelf {
        match action {
            Action::Allow => &self.allow,
            Action::Deny => &self.deny,
        }
    }

    fn insert(&mut self, policy: &Arc<Authorization>) {
        match (policy.dry_run, policy.action) {
            (true, _) => {
                self.tried.insert(policy.name.clone(), policy.clone());
            }
            (false, Action::Allow) => self.allow.insert(policy),
            (false, Action::Deny) => self.deny.insert(policy),
        }
    }

    fn remove(&mut self, policy: &Authorization) {
        match (policy.dry_run, policy.action) {
            (true, _) => {
                self.tried.remove(&policy.name);
            }
            (false, Action::Allow) => self.allow.remove(policy),
            (false, Action::Deny) => self.deny.remove(policy),
        }
    }

    fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty() && self.tried.is_empty()
    }
}
