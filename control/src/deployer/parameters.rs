//! Changes of the ConfigMaps that Gateways' `parametersRef` name: each is watched by its name, and that it
//! changed is all that is told. What it says is read by who deploys.
//!
//! Control may watch ConfigMaps and not list them, so that a watch begins with what there is at any
//! moment. After a pause between two of them the ConfigMap counts as changed: it may have been.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::objects::{Gateway, Key};

/// The pauses between watches grow from the first to the second while none holds.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(20));
/// Names on their way; a watch waits when there are more.
const QUEUE: usize = 16;

/// The ConfigMap of a Gateway, if it names one.
#[must_use]
pub fn named(gateway: &Gateway) -> Option<Key> {
    let spec = gateway.spec.as_ref().ok()?;
    let reference = spec.infrastructure.as_ref()?.parameters_ref.as_ref()?;
    let of_map = reference.group.is_empty() && reference.kind == "ConfigMap";
    of_map.then(|| Key::new(gateway.source.key.namespace.clone(), &*reference.name))
}

/// The watches, one a ConfigMap.
pub struct Parameters {
    client: Client,
    watches: BTreeMap<Key, AbortOnDropHandle<()>>,
    changes: (mpsc::Sender<Key>, mpsc::Receiver<Key>),
}

impl Parameters {
    /// None yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            watches: BTreeMap::new(),
            changes: mpsc::channel(QUEUE),
        }
    }

    /// Watches these, and no others any longer.
    pub fn watch(&mut self, wanted: &BTreeSet<Key>) {
        self.watches.retain(|key, _| wanted.contains(key));
        for key in wanted {
            if !self.watches.contains_key(key) {
                let changed = self.changes.0.clone();
                let watch = follow(self.client.clone(), key.clone(), changed);
                let watch = AbortOnDropHandle::new(tokio::spawn(watch));
                self.watches.insert(key.clone(), watch);
            }
        }
    }

    /// The next that changed, or may have.
    pub async fn changed(&mut self) -> Option<Key> {
        self.changes.1.recv().await
    }
}

/// Tells of each change of one ConfigMap, as long as anybody listens.
async fn follow(client: Client, key: Key, changed: mpsc::Sender<Key>) {
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client, &key.namespace);
    let only = WatchParams::default().fields(&format!("metadata.name={}", key.name));
    // What is there at the beginning has been read, or the deployer will read it.
    let mut seen: Option<String> = None;
    let (mut pause, mut refused) = (PAUSE.0, false);
    loop {
        match api.watch_metadata(&only, "0").await {
            Ok(events) => {
                refused = false;
                let mut events = std::pin::pin!(events);
                while let Some(event) = events.next().await {
                    let version = match event {
                        Ok(WatchEvent::Added(map) | WatchEvent::Modified(map)) => {
                            map.metadata.resource_version
                        }
                        Ok(WatchEvent::Deleted(_)) => None,
                        Ok(WatchEvent::Bookmark(_)) => continue,
                        // The next watch says what is there.
                        Ok(WatchEvent::Error(_)) | Err(_) => break,
                    };
                    pause = PAUSE.0;
                    if version.is_some() && version == seen {
                        continue;
                    }
                    seen = version;
                    if changed.send(key.clone()).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) if std::mem::replace(&mut refused, true) => {
                tracing::debug!(config_map = %key, %error, "parameters still can't be watched");
            }
            Err(error) => {
                tracing::warn!(config_map = %key, %error, "parameters can't be watched, so that a change takes effect within a minute: has control the right (chart: control-rbac.yaml)?");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
        // It may have gone meanwhile, of which a new watch says nothing.
        if seen.is_some() && changed.send(key.clone()).await.is_err() {
            return;
        }
    }
}
