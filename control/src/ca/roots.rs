//! Publishes the root certificate as ConfigMap `istio-ca-root-cert` in every namespace.
//!
//! Desired: one in each namespace that is not being deleted, with exactly our root in it. A new
//! namespace gets it at once; one that somebody edits or deletes is put right. Writing is
//! server-side apply under one field manager: replicas write the same, and a label that somebody
//! added stays.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::status::writer::FIELD_MANAGER;

/// The ConfigMap's name, Istio's, so that charts for either control plane mount the same.
pub const CONFIG_MAP: &str = "istio-ca-root-cert";
const KEY: &str = "root-cert.pem";
/// How long after a failed write it is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Namespaces written to at the same time.
const CONCURRENT: usize = 8;

/// Which namespaces have the root.
struct State {
    root: Arc<str>,
    /// By namespace: whether the ConfigMap there is right.
    known: HashMap<String, bool>,
    /// While a list is under way: the namespaces in it so far.
    listed: BTreeSet<String>,
}

impl State {
    fn take(&mut self, event: watcher::Event<ConfigMap>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(map) => {
                self.listed.extend(map.metadata.namespace.clone());
                self.set(&map);
            }
            watcher::Event::InitDone => self
                .known
                .retain(|namespace, _| self.listed.contains(namespace)),
            watcher::Event::Apply(map) => self.set(&map),
            watcher::Event::Delete(map) => {
                self.known
                    .remove(map.metadata.namespace.as_deref().unwrap_or_default());
            }
        }
    }

    fn set(&mut self, map: &ConfigMap) {
        let Some(namespace) = map.metadata.namespace.clone() else {
            return;
        };
        let right = map
            .data
            .as_ref()
            .and_then(|data| data.get(KEY))
            .is_some_and(|text| **text == *self.root);
        self.known.insert(namespace, right);
    }

    fn lacking<'a>(&'a self, namespaces: &'a BTreeSet<String>) -> impl Iterator<Item = &'a String> {
        namespaces
            .iter()
            .filter(|namespace| self.known.get(*namespace) != Some(&true))
    }
}

/// Keeps the root of the moment published until stopped. `namespaces` are those that can hold one.
pub async fn publish(
    client: Client,
    mut roots: watch::Receiver<Arc<str>>,
    mut namespaces: watch::Receiver<BTreeSet<String>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let config = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
    let events = watcher(Api::<ConfigMap>::all(client.clone()), config).default_backoff();
    tokio::pin!(events);
    let mut state = State {
        root: roots.borrow_and_update().clone(),
        known: HashMap::new(),
        listed: BTreeSet::new(),
    };
    let mut complete = false;
    let mut retry = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => match event {
                Some(Ok(event)) => {
                    complete |= matches!(event, watcher::Event::InitDone);
                    state.take(event);
                }
                Some(Err(error)) => tracing::warn!(%error, configmap = CONFIG_MAP, "the watch broke; it is taken up again"),
                None => return,
            },
            changed = namespaces.changed() => if changed.is_err() { return },
            changed = roots.changed() => {
                if changed.is_err() {
                    return;
                }
                let root = roots.borrow_and_update().clone();
                if root != state.root {
                    // Another root is right now: none of those published is.
                    state.root = root;
                    state.known.clear();
                }
            }
            () = tokio::time::sleep(RETRY), if retry => {}
        }
        if complete {
            let wanted = namespaces.borrow_and_update().clone();
            retry = !write(&client, &mut state, &wanted, &metrics).await;
        }
    }
}

/// Writes where it is lacking; says whether all of it went well.
async fn write(
    client: &Client,
    state: &mut State,
    namespaces: &BTreeSet<String>,
    metrics: &Metrics,
) -> bool {
    let lacking: Vec<String> = state.lacking(namespaces).cloned().collect();
    let root = &*state.root;
    let writes = lacking.into_iter().map(|namespace| async move {
        let done = apply(client, &namespace, root).await;
        (namespace, done)
    });
    let done: Vec<_> = futures_util::stream::iter(writes)
        .buffer_unordered(CONCURRENT)
        .collect()
        .await;
    let mut well = true;
    for (namespace, result) in done {
        match result {
            Ok(()) => {
                metrics.roots.inc();
                state.known.insert(namespace, true);
            }
            // The namespace is going or gone: there is nobody to trust us there.
            Err(kube::Error::Api(status))
                if status.code == 404 || status.message.contains("being terminated") =>
            {
                state.known.remove(&namespace);
            }
            Err(error) => {
                well = false;
                tracing::warn!(namespace, configmap = CONFIG_MAP, %error, "the root certificate could not be published; it is tried again");
            }
        }
    }
    well
}

async fn apply(client: &Client, namespace: &str, root: &str) -> Result<(), kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "labels": {"istio.io/config": "true"}},
        "data": {KEY: root},
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    maps.patch(CONFIG_MAP, &params, &Patch::Apply(&map))
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::api::ObjectMeta;
    use kube::runtime::watcher::Event;

    use super::*;

    fn map(namespace: &str, root: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), root.to_owned())])),
            ..ConfigMap::default()
        }
    }

    fn lacking(state: &State, namespaces: &[&str]) -> Vec<String> {
        let namespaces = namespaces.iter().map(ToString::to_string).collect();
        state.lacking(&namespaces).cloned().collect()
    }

    #[test]
    fn edited_deleted_and_missing_ones_are_lacking() {
        let mut state = State {
            root: "ROOT".into(),
            known: HashMap::new(),
            listed: BTreeSet::new(),
        };
        for event in [
            Event::Init,
            Event::InitApply(map("a", "ROOT")),
            Event::InitApply(map("b", "EDITED")),
            Event::InitDone,
        ] {
            state.take(event);
        }
        assert_eq!(lacking(&state, &["a", "b", "c"]), ["b", "c"]);
        state.take(Event::Apply(map("b", "ROOT")));
        state.take(Event::Delete(map("a", "ROOT")));
        assert_eq!(lacking(&state, &["a", "b", "c"]), ["a", "c"]);
    }

    #[test]
    fn one_that_went_while_the_watch_was_down_is_lacking() {
        let mut state = State {
            root: "ROOT".into(),
            known: HashMap::new(),
            listed: BTreeSet::new(),
        };
        state.take(Event::Apply(map("a", "ROOT")));
        for event in [
            Event::Init,
            Event::InitApply(map("b", "ROOT")),
            Event::InitDone,
        ] {
            state.take(event);
        }
        assert_eq!(lacking(&state, &["a", "b"]), ["a"]);
    }
}
