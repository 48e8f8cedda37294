//! The routing API → the Envoy resources of one waypoint, in the shape that istiod gives them
//! (`pilot/pkg/networking/core`), so that a waypoint can't tell who sent them.
//!
//! ```text
//! caller ─HBONE→ connect_terminate → main_internal → chain of the service and port
//!                                        │              └ authn, authz, route → cluster inbound-vip|…
//!                                        └ pod's own address → direct-http, direct-tcp → encap
//!                endpoint (internal) → connect_originate ─HBONE→ pod, or plain → pod
//! ```
//!
//! Pure: a [`View`] of the objects goes in, messages come out. What is different from istiod on
//! purpose says so where it is made, and stands in `control/tests/l7/accepted-differences.yaml`.

mod api;
mod attach;
mod canonical;
mod chain;
mod cluster;
mod delegate;
mod endpoint;
pub mod gateway_route;
mod http;
mod jwt;
mod listener;
pub mod locality;
mod logging;
mod matching;
mod rbac;
mod route;
mod tcp;
mod telemetry;
mod tls;
mod tunnel;
pub mod view;

use std::collections::BTreeSet;

use prost::{Message, Name};

pub use attach::{Place as Attachment, attaches};
pub use delegate::delegated;

use crate::resource::{Resource, ResourceType};
use canonical::Of;
pub use view::{Backend, Found, Hosted, Near, Place, Policies, Rule, Target, TargetPort, View};
pub(crate) use view::{covers, is_visible};

/// Every resource of one waypoint, and what is wrong with the objects they were made from.
#[derive(Clone, Debug, Default)]
pub struct Translated {
    /// Listeners, clusters and endpoints.
    pub resources: Vec<(ResourceType, Resource)>,
    /// By object: what in it can't be used.
    pub problems: BTreeSet<(crate::objects::Kind, crate::objects::Key, String)>,
    /// In which respect replicas that stand elsewhere may be told other endpoints.
    pub reckoned: locality::Reckoned,
}

/// Makes everything of one waypoint.
#[must_use]
pub fn translate(view: &View<'_>) -> Translated {
    let mut translated = Translated::default();
    let clusters = cluster::clusters(view);
    let eds: Vec<_> = clusters
        .iter()
        .filter(|cluster| cluster.eds_cluster_config.is_some())
        .map(|cluster| cluster.name.clone())
        .collect();
    for cluster in clusters {
        translated.add(ResourceType::Cluster, Of::Cluster, &cluster.name, &cluster);
    }
    for name in eds {
        let assignment = endpoint::assignment(view, &name);
        translated.add(ResourceType::Endpoints, Of::Assignment, &name, &assignment);
    }
    for listener in listener::listeners(view) {
        translated.add(
            ResourceType::Listener,
            Of::Listener,
            &listener.name,
            &listener,
        );
    }
    translated.problems = view.problems.take();
    translated.reckoned = view.reckoned.get();
    translated
}

impl Translated {
    fn add<M: Message + Name>(&mut self, kind: ResourceType, of: Of, name: &str, message: &M) {
        let bytes = canonical::canonical(of, &message.encode_to_vec());
        self.resources
            .push((kind, Resource::envoy(kind, name, bytes)));
    }
}

/// The endpoints alone, of clusters that did not change.
#[must_use]
pub fn endpoints<'a>(view: &View<'_>, clusters: impl IntoIterator<Item = &'a str>) -> Translated {
    let mut translated = Translated::default();
    for name in clusters {
        let assignment = endpoint::assignment(view, name);
        translated.add(ResourceType::Endpoints, Of::Assignment, name, &assignment);
    }
    translated.reckoned = view.reckoned.get();
    translated
}

#[cfg(test)]
mod tests;
