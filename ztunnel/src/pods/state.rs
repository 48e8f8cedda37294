//! Which pods exist and what has to be done about each: the decisions alone, without a socket or a
//! clock. A pod that is named again with the same network namespace costs nothing; with another
//! one it has been restarted in place and is captured anew; one that a full listing leaves out is
//! released.
//!
//! ```text
//!              added                captured
//!   unknown ───────────▶ starting ───────────▶ captured
//!      ▲                  │    ▲                  │
//!      │           failed ▼    │ retry            │ added with another namespace → replace
//!      │                 failed                   │
//!      └──────────── removed, not listed ─────────┘
//! ```

use std::collections::{HashMap, HashSet};

use super::{NetnsId, Uid};

/// The pods of this node.
#[derive(Debug, Default)]
pub struct Pods {
    known: HashMap<Uid, Known>,
    named: Option<HashSet<Uid>>,
    listed_once: bool,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    netns: NetnsId,
    captured: bool,
}

/// What to do about a pod that was added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Added {
    /// Nothing: it is captured already.
    Same,
    /// Capture it.
    Start,
    /// Release the namespace it had, then capture it.
    Replace,
}

/// What a full listing came to.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Listed {
    /// Pods to release.
    pub gone: Vec<Uid>,
    /// Pods that stay, among them those that are not captured yet but must not be let go: an
    /// earlier ztunnel may have captured them.
    pub named: Vec<Uid>,
}

impl Pods {
    /// The source begins to name every pod it has.
    pub fn listing(&mut self) {
        self.named = Some(HashSet::new());
    }

    /// The source named a pod that shall be captured in `netns`.
    pub fn added(&mut self, uid: &Uid, netns: NetnsId) -> Added {
        self.name(uid);
        let before = self.known.insert(
            uid.clone(),
            Known {
                netns,
                captured: false,
            },
        );
        match before {
            Some(before) if before.captured && before.netns == netns => {
                self.known.insert(uid.clone(), before);
                Added::Same
            }
            Some(before) if before.captured => Added::Replace,
            _ => Added::Start,
        }
    }

    /// The source named a pod whose namespace it can't hand over now.
    pub fn kept(&mut self, uid: &Uid) {
        self.name(uid);
    }

    /// The pod stands captured.
    pub fn captured(&mut self, uid: &Uid) {
        if let Some(known) = self.known.get_mut(uid) {
            known.captured = true;
        }
    }

    /// The pod is gone. True if it was captured and has to be released.
    pub fn removed(&mut self, uid: &Uid) -> bool {
        self.known.remove(uid).is_some_and(|known| known.captured)
    }

    /// Every pod has been named: those that were not are forgotten.
    pub fn listed(&mut self) -> Listed {
        self.listed_once = true;
        let Some(named) = self.named.take() else {
            return Listed::default();
        };
        let gone: Vec<Uid> = self
            .known
            .keys()
            .filter(|uid| !named.contains(*uid))
            .cloned()
            .collect();
        for uid in &gone {
            self.known.remove(uid);
        }
        Listed {
            gone,
            named: named.into_iter().collect(),
        }
    }

    /// True once a full listing has been acted on.
    #[must_use]
    pub fn listed_once(&self) -> bool {
        self.listed_once
    }

    /// Pods that are captured, and pods that should be but are not.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let captured = self.known.values().filter(|known| known.captured).count();
        (captured, self.known.len() - captured)
    }

    fn name(&mut self, uid: &Uid) {
        if let Some(named) = &mut self.named {
            named.insert(uid.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> Uid {
        Uid::new(name)
    }

    fn netns(inode: u64) -> NetnsId {
        NetnsId { device: 4, inode }
    }

    /// Pods that are captured, each in the namespace of its place in the list.
    fn node(names: &[&str]) -> Pods {
        let mut pods = Pods::default();
        pods.listing();
        for (name, inode) in names.iter().zip(1..) {
            assert_eq!(pods.added(&uid(name), netns(inode)), Added::Start);
            pods.captured(&uid(name));
        }
        assert_eq!(pods.listed().gone, []);
        pods
    }

    #[test]
    fn a_pod_is_captured_once() {
        let mut pods = node(&["a"]);
        assert_eq!(pods.added(&uid("a"), netns(1)), Added::Same);
        assert_eq!(pods.count(), (1, 0));
    }

    #[test]
    fn another_namespace_replaces_the_first() {
        let mut pods = node(&["a"]);
        assert_eq!(pods.added(&uid("a"), netns(2)), Added::Replace);
        pods.captured(&uid("a"));
        assert_eq!(pods.added(&uid("a"), netns(2)), Added::Same);
    }

    #[test]
    fn a_pod_that_could_not_be_captured_is_tried_again_and_never_released() {
        let mut pods = node(&[]);
        assert_eq!(pods.added(&uid("a"), netns(1)), Added::Start);
        assert_eq!(pods.count(), (0, 1));
        assert_eq!(pods.added(&uid("a"), netns(1)), Added::Start);
        assert!(!pods.removed(&uid("a")));
        assert_eq!(pods.count(), (0, 0));
    }

    #[test]
    fn a_listing_releases_what_it_does_not_name() {
        let mut pods = node(&["stays", "kept", "goes"]);
        pods.listing();
        pods.added(&uid("stays"), netns(1));
        pods.kept(&uid("kept"));
        let mut listed = pods.listed();
        listed.named.sort();
        assert_eq!(
            listed,
            Listed {
                gone: vec![uid("goes")],
                named: vec![uid("kept"), uid("stays")]
            }
        );
        assert_eq!(pods.count(), (2, 0));
    }

    #[test]
    fn an_unfinished_listing_releases_nothing() {
        let mut pods = node(&["a", "b"]);
        pods.listing();
        pods.added(&uid("a"), netns(1));
        pods.listing();
        pods.added(&uid("a"), netns(1));
        pods.added(&uid("b"), netns(2));
        assert_eq!(pods.listed().gone, []);
    }

    #[test]
    fn removal_without_a_listing_is_final() {
        let mut pods = node(&["a"]);
        assert!(pods.removed(&uid("a")));
        assert!(!pods.removed(&uid("a")));
        assert_eq!(pods.listed().gone, []);
    }

    #[test]
    fn only_a_listing_makes_the_node_listed() {
        let mut pods = Pods::default();
        pods.added(&uid("a"), netns(1));
        assert!(!pods.listed_once());
        pods.listing();
        pods.listed();
        assert!(pods.listed_once());
    }

    #[test]
    fn keeping_an_unknown_pod_invents_nothing() {
        let mut pods = node(&[]);
        pods.listing();
        pods.kept(&uid("ghost"));
        assert_eq!(pods.count(), (0, 0));
        assert_eq!(pods.listed().named, [uid("ghost")]);
    }
}
