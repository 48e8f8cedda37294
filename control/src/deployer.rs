//! Waypoints as workloads: a Gateway of class `istio-waypoint` becomes a ServiceAccount, a
//! Deployment and a Service, and the Gateway's status tells what came of it.
//!
//! ```text
//! index ─ plan ─→ manifest ─ overlay (parametersRef) ─→ server-side apply
//!            └──→ status ─────────────────────────────→ server-side apply of the status
//! ```
//!
//! `manifest`, `overlay` and `status` are pure. What is made is owned by its Gateway, so that
//! Kubernetes removes it with it; fields that a user sets elsewhere (replicas, say) stay, because
//! only what is said here is owned here. An object of the same name that is not the Gateway's own is
//! left alone, and the status says so. A ConfigMap that `parametersRef` names is watched, and taken up when it
//! changes (`parameters`). Everything is applied anew once a minute: what somebody deleted by hand comes back.

pub mod apply;
pub mod manifest;
pub mod overlay;
pub mod parameters;
pub mod settings;
pub mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::objects::{Gateway, Key};
use apply::Cluster;
use parameters::Parameters;
use settings::Settings;

/// How often everything is applied anew.
const RESYNC: Duration = Duration::from_secs(60);
/// How long after a failure the next try is made.
const RETRY: Duration = Duration::from_secs(2);

/// A waypoint that shall exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Its Gateway.
    pub gateway: Gateway,
    /// Whether any of its pods is ready.
    pub ready: bool,
}

/// The waypoints that shall exist, by Gateway.
pub type Plans = Arc<BTreeMap<Key, Plan>>;

/// Deploys until stopped.
pub async fn run(
    client: Client,
    settings: Settings,
    mut plans: watch::Receiver<Plans>,
    stop: CancellationToken,
) {
    let mut parameters = Parameters::new(client.clone());
    let cluster = Cluster::new(client, settings);
    let mut done: BTreeMap<Key, Plan> = BTreeMap::new();
    let mut resync = Instant::now();
    loop {
        if resync <= Instant::now() {
            done.clear();
            cluster.ensure_class().await;
            resync = Instant::now() + RESYNC;
        }
        let wanted = plans.borrow_and_update().clone();
        done.retain(|key, _| wanted.contains_key(key));
        let named = wanted.values();
        parameters.watch(
            &named
                .filter_map(|plan| parameters::named(&plan.gateway))
                .collect(),
        );
        let mut failed = false;
        for (key, plan) in wanted.iter() {
            if done.get(key) == Some(plan) {
                continue;
            }
            match cluster.deploy(plan).await {
                Ok(()) => {
                    done.insert(key.clone(), plan.clone());
                }
                Err(error) => {
                    failed = true;
                    tracing::warn!(gateway = %key, error = %apply::chain(&error), "a waypoint could not be deployed; it is tried again");
                }
            }
        }
        let next = if failed {
            (Instant::now() + RETRY).min(resync)
        } else {
            resync
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = plans.changed() => if changed.is_err() { return },
            Some(map) = parameters.changed() => {
                done.retain(|_, plan| parameters::named(&plan.gateway).as_ref() != Some(&map));
            }
            () = tokio::time::sleep_until(next) => {}
        }
    }
}
