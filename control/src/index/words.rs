//! What many pods say alike is kept once: the namespace, the node, the account, the owner, and the labels,
//! which are the same for all replicas of one template. A tree of two labels takes 700 bytes.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::objects::{Labels, Pod};

/// How many there are at least before those that nobody has any more are looked for.
const FEW: usize = 256;

/// Texts and sets of labels, each kept once.
#[derive(Default)]
pub(super) struct Words {
    texts: Once<str>,
    labels: Once<Labels>,
}

impl Words {
    /// Lets a pod share what it has in common with others.
    pub(super) fn share(&mut self, pod: &mut Pod) {
        self.texts.share(&mut pod.key.namespace);
        self.texts.share(&mut pod.node);
        self.texts.share(&mut pod.service_account);
        if pod.owner.name == pod.key.name {
            pod.owner.name = pod.key.name.clone();
        } else {
            self.texts.share(&mut pod.owner.name);
        }
        self.labels.share(&mut pod.labels);
        pod.addresses.shrink_to_fit();
        pod.ports.shrink_to_fit();
    }
}

/// Values of one type, each kept once for as long as somebody has it.
struct Once<T: ?Sized> {
    all: HashSet<Arc<T>>,
    /// With so many, those that nobody has are looked for.
    full: usize,
}

impl<T: ?Sized> Default for Once<T> {
    fn default() -> Self {
        Self {
            all: HashSet::new(),
            full: FEW,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Once<T> {
    fn share(&mut self, value: &mut Arc<T>) {
        if let Some(known) = self.all.get(value) {
            *value = known.clone();
            return;
        }
        if self.all.len() >= self.full {
            self.all.retain(|known| Arc::strong_count(known) > 1);
            self.full = FEW.max(self.all.len() * 2);
        }
        self.all.insert(value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_is_the_same_and_what_nobody_has_is_forgotten() {
        let mut words = Once::<str>::default();
        let (mut a, mut b): (Arc<str>, Arc<str>) = ("node-1".into(), "node-1".into());
        words.share(&mut a);
        words.share(&mut b);
        assert!(Arc::ptr_eq(&a, &b));
        for number in 0..10 * FEW {
            words.share(&mut format!("passing-{number}").into());
        }
        assert!(words.all.len() <= FEW, "{} are kept", words.all.len());
        let mut again: Arc<str> = "node-1".into();
        words.share(&mut again);
        assert!(Arc::ptr_eq(&a, &again));
    }
}
