//! Connections that this node's pods open: in an HBONE tunnel under the pod's own identity where
//! the destination takes HBONE, otherwise on to where they wanted to go.

mod dial;
mod flow;

use std::sync::Arc;

use mesh::drain::Watch;

use crate::capture::{Captured, PodNetns};
use crate::pod::Shared;
use crate::pods::{Info, Uid};

/// One pod's outbound listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound(Arc<Parts>);

/// What outbound connections of one pod need.
#[derive(Debug)]
struct Parts {
    pod: Arc<Info>,
    netns: PodNetns,
    shared: Shared,
    /// The name under which the pool keeps this pod's tunnels apart from others'.
    uid: Arc<str>,
}

impl Outbound {
    /// The outbound side of a pod.
    #[must_use]
    pub fn new(uid: &Uid, pod: Arc<Info>, netns: PodNetns, shared: &Shared) -> Self {
        Self(Arc::new(Parts {
            pod,
            netns,
            shared: shared.clone(),
            uid: uid.as_str().into(),
        }))
    }

    /// Carries one connection to its end.
    pub async fn carry(self, captured: Captured, drain: Watch) {
        flow::carry(&self.0, captured, &drain).await;
    }
}
