//! Policies of one scope and action, found by the caller they could possibly be about. With ten
//! thousand policies that each name a few callers, a connection looks at those that name it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::rule::{Clause, Match, Peer, Rule, StringMatch};
use super::{Authorization, PolicyName};

/// Policies in the order of their names.
pub(super) type Named = BTreeMap<PolicyName, Arc<Authorization>>;

/// Policies of one scope and action.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// How many there are.
    len: usize,
    /// Those that may be about anyone.
    anyone: Named,
    /// Those only about callers of a certain identity, by its principal.
    principals: HashMap<Arc<str>, Named>,
    /// Those only about callers of a certain service account, by `namespace/sa/name`.
    accounts: HashMap<Arc<str>, Named>,
    /// Those only about callers of a certain namespace.
    namespaces: HashMap<Arc<str>, Named>,
}

/// Whom a policy is about. It can't match anyone else.
#[derive(Debug, PartialEq, Eq, Hash, Clone)]
enum About {
    Anyone,
    Principal(Arc<str>),
    Account(Arc<str>),
    Namespace(Arc<str>),
}

impl Shelf {
    pub(super) fn insert(&mut self, policy: &Arc<Authorization>) {
        self.len += 1;
        for about in about(policy) {
            let named = match about {
                About::Anyone => &mut self.anyone,
                About::Principal(key) => self.principals.entry(key).or_default(),
                About::Account(key) => self.accounts.entry(key).or_default(),
                About::Namespace(key) => self.namespaces.entry(key).or_default(),
            };
            named.insert(policy.name.clone(), policy.clone());
        }
    }

    /// Removes a policy that was inserted.
    pub(super) fn remove(&mut self, policy: &Authorization) {
        self.len -= 1;
        for about in about(policy) {
            let (index, key) = match about {
                About::Anyone => {
                    self.anyone.remove(&policy.name);
                    continue;
                }
                About::Principal(key) => (&mut self.principals, key),
                About::Account(key) => (&mut self.accounts, key),
                About::Namespace(key) => (&mut self.namespaces, key),
            };
            if let Some(named) = index.get_mut(&key) {
                named.remove(&policy.name);
                if named.is_empty() {
                    index.remove(&key);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The policies that may match this caller; one may come up more than once.
    pub(super) fn about<'a>(
        &'a self,
        peer: Option<Peer<'_>>,
    ) -> impl Iterator<Item = &'a Arc<Authorization>> {
        let found = peer.map(|peer| {
            [
                self.principals.get(peer.principal),
                self.accounts.get(peer.account()),
                self.namespaces.get(peer.namespace),
            ]
        });
        let found = found.into_iter().flatten().flatten().flatten();
        found.chain(&self.anyone).map(|(_, policy)| policy)
    }
}

/// Whom the policy is about: everyone that one of its rules is about.
fn about(policy: &Authorization) -> Vec<About> {
    let mut all = Vec::new();
    for rule in &policy.rules {
        match rule_about(rule) {
            Some(callers) => all.extend(callers),
            None => return vec![About::Anyone],
        }
    }
    all
}

/// A rule is only about those whom one of its clauses, all of which must hold, is about.
fn rule_about(rule: &Rule) -> Option<Vec<About>> {
    rule.clauses.iter().find_map(clause_about)
}

fn clause_about(clause: &Clause) -> Option<Vec<About>> {
    if clause.matches.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for one in &clause.matches {
        all.extend(match_about(one)?);
    }
    Some(all)
}

/// The field that says whom a match is about, if one does by exact values.
fn match_about(one: &Match) -> Option<Vec<About>> {
    let exact = |values: &[StringMatch], about: fn(Arc<str>) -> About| {
        let value = |value: &StringMatch| match value {
            StringMatch::Exact(text) => Some(about(text.clone())),
            _ => None,
        };
        let all: Option<Vec<_>> = values.iter().map(value).collect();
        all.filter(|all| !all.is_empty())
    };
    if one.is_empty() {
        return Some(Vec::new());
    }
    if !one.service_accounts.is_empty() {
        let accounts = one.service_accounts.iter();
        let key = |namespace: &str, name: &str| format!("{namespace}/sa/{name}").into();
        return Some(
            accounts
                .map(|a| About::Account(key(&a.namespace, &a.name)))
                .collect(),
        );
    }
    exact(&one.principals, About::Principal).or_else(|| exact(&one.namespaces, About::Namespace))
}
