//! Telemetry objects → what a place of a waypoint counts, traces and logs.
//!
//! Which of them speak of a place, the later over the earlier: the mesh's, the waypoint's namespace's,
//! the service's namespace's, and those that are attached to the waypoint or the service.
//! (istio/istio, `pilot/pkg/model/telemetry.go`)

mod expression;
mod logs;
mod metrics;
mod tracing;

use super::attach::{Place, attaches};
use super::view::{Target, View};
use crate::objects::telemetry::{ProviderRef, Telemetry};
use crate::objects::{Key, Kind};

pub(super) use logs::{Logged, logged};
pub(super) use metrics::statistics;
pub(super) use tracing::{traced, tracers};

/// The waypoint's name of a place: a service, or pods' own addresses and the tunnels.
type At<'a> = Option<&'a Target>;

/// Those that speak of a place, the strongest last.
fn applicable<'a>(view: &'a View<'_>, at: At<'_>) -> Vec<(&'a Key, &'a Telemetry)> {
    let all = || view.telemetries.iter().map(|(key, one)| (key, &**one));
    // Of several of a namespace the oldest counts.
    let general = |namespace: &str| {
        let namespace = namespace.to_owned();
        all().find(move |(key, one)| *key.namespace == *namespace && one.is_general())
    };
    let (root, own) = (&view.mesh.root_namespace, view.namespace());
    let of_service = at.map_or(own, |service| &*service.key.namespace);
    let mut found: Vec<_> = general(root).into_iter().collect();
    if own != root {
        found.extend(general(own));
    }
    if of_service != own && of_service != root {
        found.extend(general(of_service));
    }
    let place = Place {
        gateway: &view.gateway,
        labels: &view.labels,
        root,
        service: at.map(|service| (service.kind, &service.object)),
    };
    let attached = all().filter(|(key, one)| attaches(&place, key, &one.targets()));
    found.extend(attached);
    found
}

/// The names of providers, where any is named.
fn names(providers: &[ProviderRef]) -> Option<Vec<&str>> {
    let names = providers.iter().map(|provider| provider.name.as_str());
    (!providers.is_empty()).then(|| names.collect())
}

fn problem(view: &View<'_>, key: &Key, problem: String) {
    view.problem(Kind::Telemetry, key, problem);
}
