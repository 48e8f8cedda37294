//! The authority of the moment. It changes while control runs: a rotation, or another authority
//! plugged in. Whoever signs looks here each time; whoever publishes the roots is woken.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::authority::Authority;

/// The authority that signs now.
pub struct Current {
    authority: ArcSwap<Authority>,
    roots: watch::Sender<Arc<str>>,
}

impl Current {
    /// This authority, to begin with.
    #[must_use]
    pub fn new(authority: Authority) -> Self {
        Self {
            roots: watch::Sender::new(authority.root().into()),
            authority: ArcSwap::from_pointee(authority),
        }
    }

    /// The authority.
    #[must_use]
    pub fn load(&self) -> Arc<Authority> {
        self.authority.load_full()
    }

    /// From now on this one signs.
    pub fn replace(&self, authority: Authority) {
        let root: Arc<str> = authority.root().into();
        self.authority.store(Arc::new(authority));
        // Also where the roots are the same: the signer may be another.
        self.roots.send_replace(root);
    }

    /// What the mesh trusts; wakes whenever the authority is replaced.
    #[must_use]
    pub fn roots(&self) -> watch::Receiver<Arc<str>> {
        self.roots.subscribe()
    }
}
