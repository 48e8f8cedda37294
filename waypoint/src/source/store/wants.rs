//! Names that resources refer to: who is wanted, since when, and whether an answer has come. Pure:
//! time is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::kind::Kind;
use super::super::references::Reference;

/// How long a resource is waited for that another one needs, as in Envoy
/// (`initial_fetch_timeout`); what needs it is served without it then.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// What is wanted by name.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// How many refer to each.
    by_name: BTreeMap<Reference, usize>,
    /// Those without an answer, by when they are given up.
    missing: BTreeMap<Reference, Instant>,
    /// The kinds of which another set of names is wanted than when somebody asked last.
    changed: BTreeSet<Kind>,
}

impl Wants {
    /// Somebody refers to these. Those that are new are waited for from now on.
    pub(super) fn refer(
        &mut self,
        needs: &BTreeSet<Reference>,
        now: Instant,
        is_there: impl Fn(&Reference) -> bool,
    ) {
        for need in needs {
            let times = self.by_name.entry(need.clone()).or_insert_with(|| {
                if !is_there(need) {
                    self.missing.insert(need.clone(), now + FETCH_TIMEOUT);
                }
                self.changed.insert(need.0);
                0
            });
            *times += 1;
        }
    }

    /// Somebody refers to these no more; gives those to which nobody does.
    pub(super) fn release(&mut self, needs: &BTreeSet<Reference>) -> Vec<Reference> {
        let mut gone = Vec::new();
        for need in needs {
            let Some(times) = self.by_name.get_mut(need) else {
                continue;
            };
            *times -= 1;
            if *times == 0 {
                self.by_name.remove(need);
                self.missing.remove(need);
                self.changed.insert(need.0);
                gone.push(need.clone());
            }
        }
        gone
    }

    /// The control plane has said what this is, or that there is none.
    pub(super) fn answered(&mut self, kind: Kind, name: &Arc<str>) {
        self.missing.remove(&(kind, name.clone()));
    }

    /// It has come, and still needs some time.
    pub(super) fn postpone(&mut self, reference: &Reference, until: Instant) {
        if let Some(deadline) = self.missing.get_mut(reference) {
            *deadline = until;
        }
    }

    /// Whether anybody refers to it.
    pub(super) fn is_wanted(&self, reference: &Reference) -> bool {
        self.by_name.contains_key(reference)
    }

    /// Until when something of these is waited for; none where everything has come or was given up.
    pub(super) fn waits_until(&self, needs: &BTreeSet<Reference>, now: Instant) -> Option<Instant> {
        if self.missing.is_empty() {
            return None;
        }
        let deadlines = needs.iter().filter_map(|need| self.missing.get(need));
        deadlines.copied().filter(|deadline| *deadline > now).max()
    }

    /// The names wanted of a kind.
    pub(super) fn names(&self, kind: Kind) -> BTreeSet<Arc<str>> {
        let names = self.by_name.keys();
        names
            .filter(|(of, _)| *of == kind)
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// The kinds of which other names are wanted than when this was asked last.
    pub(super) fn take_changed(&mut self) -> BTreeSet<Kind> {
        std::mem::take(&mut self.changed)
    }
}
