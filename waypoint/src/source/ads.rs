//! The control plane as istiod speaks to a waypoint: clusters, listeners and workloads all,
//! endpoints, routes, filters and secrets by the names that those refer to. The protocol is `mesh::xds`'s.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mesh::xds::{self, Arrived, Rejected, Sink, Wish};

use super::compile::Compile;
use super::feed::Feed;
use super::kind::Kind;
use super::store::{Change, Update};

/// What is subscribed to, in the order of a push.
const WISHES: [Wish; 7] = [
    Wish::All(Kind::Cluster.type_url()),
    Wish::Named(Kind::Endpoints.type_url()),
    Wish::All(Kind::Listener.type_url()),
    Wish::Named(Kind::Routes.type_url()),
    Wish::Named(Kind::Extension.type_url()),
    Wish::Named(Kind::Secret.type_url()),
    Wish::All(Kind::Workload.type_url()),
];

/// A client of the control plane that keeps `feed` up to date.
#[must_use]
pub fn client<C: Compile + Send>(config: xds::Config, feed: Feed<C>) -> xds::Client<IntoFeed<C>> {
    let sink = IntoFeed {
        feed: feed.clone(),
        names: HashMap::new(),
    };
    let client = xds::Client::new(config, &WISHES, sink);
    feed.count(client.counters());
    client
}

/// What the client brings its resources to.
#[derive(Debug)]
pub struct IntoFeed<C> {
    feed: Feed<C>,
    /// The names that are subscribed to.
    names: HashMap<Kind, BTreeSet<Arc<str>>>,
}

impl<C: Compile + Send> Sink for IntoFeed<C> {
    fn take(&mut self, type_url: &'static str, arrived: Arrived) -> Vec<Rejected> {
        let Some(kind) = Kind::of(type_url) else {
            return Vec::new();
        };
        let updated = arrived.updated.into_iter().map(|resource| Update {
            name: resource.name.into(),
            version: resource.version.into(),
            bytes: resource.content,
        });
        let rejected = self.feed.apply(Change {
            kind,
            updated: updated.collect(),
            removed: arrived.removed.into_iter().map(Into::into).collect(),
        });
        let rejected = rejected.into_iter().map(|rejected| Rejected {
            name: rejected.name.to_string(),
            reason: rejected.reason,
        });
        rejected.collect()
    }

    fn wanted(&mut self) -> Vec<(&'static str, BTreeSet<String>)> {
        let changed = self.feed.look(|store| {
            let kinds = store.take_changed_wants().into_iter();
            let changed: Vec<_> = kinds.map(|kind| (kind, store.wanted(kind))).collect();
            changed
        });
        let mut wanted = Vec::new();
        for (kind, names) in changed {
            wanted.push((
                kind.type_url(),
                names.iter().map(ToString::to_string).collect(),
            ));
            let before = self.names.insert(kind, names.clone()).unwrap_or_default();
            let removed: Vec<_> = before.difference(&names).cloned().collect();
            if !removed.is_empty() {
                // Nobody will say that they are gone: they aren't subscribed to any more.
                self.feed.apply(Change {
                    kind,
                    updated: Vec::new(),
                    removed,
                });
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests;
