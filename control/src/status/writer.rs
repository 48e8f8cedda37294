//! Writes policy statuses, one at a time, each with the version it was decided on as precondition.
//!
//! A conflict needs no retry: it means that a newer version of the policy is on its way to us, and
//! a wish of its own with it. Every replica keeps the queue, the leader alone takes from it: what a
//! leader that was killed had not written yet waits at the others, and what it had written leaves
//! their queues when they see it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::conditions;
use crate::index::Wish;
use crate::kubernetes::watch::custom_resource;
use crate::metrics::Metrics;
use crate::objects::{Key, Kind};

/// Under which name our writes appear in `managedFields`.
pub const FIELD_MANAGER: &str = "culvert-control";
/// How long after a failed write the next is tried.
const RETRY: Duration = Duration::from_secs(1);
/// Statuses waiting; at most one a policy. Beyond, new ones are dropped: they come again with the
/// policy's next change, and traffic does not depend on them.
const LIMIT: usize = 10_000;

/// Statuses to write, newest for each policy.
#[derive(Default)]
pub struct Queue {
    wishes: Mutex<BTreeMap<(Kind, Key), Wish>>,
    more: Notify,
}

impl Queue {
    /// Adds wishes, in place of older ones for the same policies. One that the object's status
    /// fulfils already, whoever wrote it, is none.
    pub fn add(&self, wishes: Vec<Wish>) {
        let mut waiting = self.wishes.lock();
        for wish in wishes {
            let name = (wish.kind, wish.source.key.clone());
            if lacking(&wish, "").is_none() {
                waiting.remove(&name);
            } else if waiting.len() < LIMIT || waiting.contains_key(&name) {
                waiting.insert(name, wish);
            } else {
                tracing::warn!(policy = %wish.source.key, "too many statuses are waiting: this one is not written");
            }
        }
        self.more.notify_one();
    }

    /// How many statuses wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.wishes.lock().len()
    }

    fn take(&self) -> Option<Taken<'_>> {
        let (_, wish) = self.wishes.lock().pop_first()?;
        Some(Taken {
            queue: self,
            wish: Some(wish),
        })
    }
}

/// A wish that goes back to the queue unless it is fulfilled: also where its writing is cut short
/// because this replica leads no longer.
struct Taken<'a> {
    queue: &'a Queue,
    wish: Option<Wish>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(wish) = self.wish.take() {
            let name = (wish.kind, wish.source.key.clone());
            // A newer one is the better one.
            self.queue.wishes.lock().entry(name).or_insert(wish);
        }
    }
}

/// Writes until stopped.
pub async fn run(
    client: Client,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let Some(mut taken) = queue.take() else {
            tokio::select! {
                () = stop.cancelled() => return,
                () = queue.more.notified() => continue,
            }
        };
        let Some(wish) = &taken.wish else { continue };
        match write(&client, wish).await {
            Ok(written) => {
                metrics.statuses.inc_by(u64::from(written));
                taken.wish = None;
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                tracing::debug!(policy = %wish.source.key, "the policy changed before its status was written");
                taken.wish = None;
            }
            Err(error) => {
                tracing::warn!(kind = %wish.kind, policy = %wish.source.key, %error, "a policy's status could not be written; it is tried again");
                drop(taken);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }
}

/// The status that the object lacks, said at `now`; `None` if it says the same already.
fn lacking(wish: &Wish, now: &str) -> Option<Value> {
    let source = &wish.source;
    let status = match &wish.route {
        Some(route) => super::route::parents(route, &wish.verdict, source.generation, now)
            .map(|parents| json!({"parents": parents})),
        None => conditions(&source.conditions, &wish.verdict, source.generation, now)
            .map(|conditions| json!({"conditions": conditions})),
    };
    if wish.addresses.is_empty() {
        return status;
    }
    let mut status = status.unwrap_or_else(|| json!({}));
    let one = |(host, address): &(String, IpAddr)| json!({"host": host, "value": address});
    status["addresses"] = wish.addresses.iter().map(one).collect();
    Some(status)
}

async fn write(client: &Client, wish: &Wish) -> Result<bool, kube::Error> {
    let source = &wish.source;
    let now = OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .ok()
        .and_then(|now| now.format(&Rfc3339).ok());
    let Some(status) = lacking(wish, &now.unwrap_or_default()) else {
        return Ok(false);
    };
    if !wish.verdict.accepted {
        let (reason, message) = (wish.verdict.reason, &wish.verdict.message);
        tracing::warn!(kind = %wish.kind, object = %source.key, reason, detail = message, "an object is not in force as written");
    }
    let api: Api<DynamicObject> = Api::namespaced_with(
        client.clone(),
        &source.key.namespace,
        &custom_resource(wish.kind),
    );
    let patch = json!({
        "metadata": {"resourceVersion": source.resource_version},
        "status": status,
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(&source.key.name, &params, &Patch::Merge(&patch))
        .await
        .map(|_| true)
}
