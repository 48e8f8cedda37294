//! Keys of token issuers in the index: which are wanted, and which have come.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Index;
use crate::jwks::{Outcome, Source, Wanted};
use crate::objects::request_authentication::{JwtRule, Targets};
use crate::objects::routing::Spec;
use crate::objects::{Key, Kind};

/// How long a fetch may take where the rule does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// And at the most.
const LONGEST: Duration = Duration::from_secs(30);

/// What is known of them.
#[derive(Default)]
pub(super) struct Keys {
    wanted: Wanted,
    wanted_changed: bool,
    known: BTreeMap<Source, Outcome>,
}

impl Index {
    /// Finds out anew what is wanted, after a RequestAuthentication changed.
    pub(super) fn want_keys(&mut self) {
        let mut wanted = Wanted::new();
        for (_, spec) in self.of_kind(Kind::RequestAuthentication) {
            let Spec::RequestAuthentication(spec) = spec else {
                continue;
            };
            for rule in &spec.jwt_rules {
                if let Some(source) = source(rule) {
                    let said = rule
                        .timeout
                        .map_or(TIMEOUT, |timeout| timeout.0.min(LONGEST));
                    let longest = wanted.entry(source).or_insert(said);
                    *longest = said.max(*longest);
                }
            }
        }
        self.l7
            .keys
            .known
            .retain(|source, _| wanted.contains_key(source));
        self.l7.keys.wanted_changed |= self.l7.keys.wanted != wanted;
        self.l7.keys.wanted = wanted;
    }

    /// The sources of keys that are wanted, if that changed since the last call.
    pub fn take_wanted_keys(&mut self) -> Option<Wanted> {
        std::mem::take(&mut self.l7.keys.wanted_changed).then(|| self.l7.keys.wanted.clone())
    }

    /// Whether there are sources of which nothing has been heard yet.
    #[must_use]
    pub fn waits_for_keys(&self) -> bool {
        let Keys { wanted, known, .. } = &self.l7.keys;
        wanted.keys().any(|source| !known.contains_key(source))
    }

    /// Takes in what came of a source.
    pub fn set_keys(&mut self, of: Source, outcome: Outcome) {
        let keys = &mut self.l7.keys;
        if !keys.wanted.contains_key(&of) || keys.known.get(&of) == Some(&outcome) {
            return;
        }
        keys.known.insert(of.clone(), outcome);
        let using = self.of_kind(Kind::RequestAuthentication).into_iter();
        let using: Vec<(Key, Targets)> = using
            .filter_map(|(routing, spec)| match spec {
                Spec::RequestAuthentication(spec) => {
                    let mut rules = spec.jwt_rules.iter();
                    let uses = rules.any(|rule| source(rule).as_ref() == Some(&of));
                    uses.then(|| (routing.source.key.clone(), spec.targets()))
                }
                _ => None,
            })
            .collect();
        for (policy, targets) in using {
            self.mark_attached(&policy, &targets);
        }
    }

    /// What came of the keys of a rule that does not have them itself; `None` while nothing has.
    pub(super) fn keys_of(&self, rule: &JwtRule) -> Option<Outcome> {
        self.l7.keys.known.get(&source(rule)?).cloned()
    }
}

/// Where a rule's keys are to be fetched; `None` where they are in the rule.
fn source(rule: &JwtRule) -> Option<Source> {
    rule.jwks.is_empty().then(|| Source {
        issuer: rule.issuer.clone(),
        uri: rule.jwks_uri.clone(),
    })
}
