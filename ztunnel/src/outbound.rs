//! Connections that this node's pods open: in an HBONE tunnel under the pod's own identity where
//! the destination takes HBONE, otherwise on to where they wanted to go.

mod dial;
mod flow;

use std::sync::Arc;

use mesh::drain::Watch;
use mesh::hbone::Pool;

use crate::capture::{Captured, PodNetns};
use crate::pod::Shared;
use crate::pods::Info;

/// One pod's outbound listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound(Arc<Parts>);

/// What outbound connections of one pod need.
#[derive(Debug)]
struct Parts {
    pod: Arc<Info>,
    netns: PodNetns,
    shared: Shared,
    /// Tunnels are dialled in the pod's namespace and prove its identity, so none is shared with
    /// another pod.
    pool: Pool,
}

impl Outbound {
    /// The outbound side of a pod.
    #[must_use]
    pub fn new(pod: Arc<Info>, netns: PodNetns, shared: &Shared) -> Self {
        let pool = Pool::new(shared.certificates.clone());
        Self(Arc::new(Parts { pod, netns, shared: shared.clone(), pool }))
    }

    /// Carries one connection to its end.
    pub async fn carry(self, captured: Captured, drain: Watch) {
        flow::carry(&self.0, captured, &drain).await;
    }
}
