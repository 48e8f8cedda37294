//! The world as tasks share it: a lock that is only ever held for a moment, and a version to wait
//! on. The one place here that knows tokio.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use super::{Synced, World};
use crate::policy::{Denied, Inbound, Permit};
use crate::workload::Workload;

/// A handle on the world that all tasks share.
#[derive(Clone, Debug)]
pub struct SharedWorld(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: RwLock<World>,
    changes: watch::Sender<u64>,
    authorization_changes: watch::Sender<u64>,
}

/// The world for one moment. It can't be sent to another thread, so it can't be held across an
/// `await` of a spawned task.
#[derive(Debug)]
pub struct Reading<'a>(RwLockReadGuard<'a, World>);

impl SharedWorld {
    /// Shares a world.
    #[must_use]
    pub fn new(world: World) -> Self {
        let versions = world.versions();
        Self(Arc::new(Shared {
            changes: watch::Sender::new(versions.all),
            authorization_changes: watch::Sender::new(versions.authorization),
            world: RwLock::new(world),
        }))
    }

    /// The world as it is now. Writers wait meanwhile: take what you need and let go.
    #[must_use]
    pub fn read(&self) -> Reading<'_> {
        Reading(self.0.world.read())
    }

    /// Changes the world in one step, and wakes those who wait for changes if there were any.
    pub fn update<R>(&self, change: impl FnOnce(&mut World) -> R) -> R {
        let mut world = self.0.world.write();
        let result = change(&mut world);
        let versions = world.versions();
        drop(world);
        let advance = |to: u64| {
            move |version: &mut u64| {
                let newer = *version < to;
                *version = to.max(*version);
                newer
            }
        };
        self.0.changes.send_if_modified(advance(versions.all));
        self.0
            .authorization_changes
            .send_if_modified(advance(versions.authorization));
        result
    }

    /// Tells of every change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Tells of changes that may alter the outcome of [`World::authorize`]: the time to look at
    /// open connections again.
    #[must_use]
    pub fn authorization_changes(&self) -> watch::Receiver<u64> {
        self.0.authorization_changes.subscribe()
    }

    /// Waits until workloads, services and policies have all arrived once.
    pub async fn synced(&self) {
        self.until(|world| world.synced().all().then_some(())).await;
    }

    /// Notes that a first complete set has arrived.
    pub fn mark_synced(&self, arrived: Synced) {
        self.update(|world| world.mark_synced(arrived));
    }

    /// Decides over a new connection; while policy data is missing, waits for it up to `patience`.
    ///
    /// # Errors
    /// [`Denied`], pending if the data still was missing at the end.
    pub async fn authorize(
        &self,
        to: &Workload,
        connection: &Inbound,
        patience: Duration,
    ) -> Result<Permit, Denied> {
        let decided = self.until(|world| match world.authorize(to, connection) {
            Err(denied) if denied.is_pending() => None,
            decision => Some(decision),
        });
        match tokio::time::timeout(patience, decided).await {
            Ok(decision) => decision,
            Err(_) => self.read().authorize(to, connection),
        }
    }

    /// Asks again after every change until there is an answer.
    pub async fn until<R>(&self, ask: impl Fn(&World) -> Option<R>) -> R {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            if let Some(answer) = ask(&self.read()) {
                return answer;
            }
            changes.changed().await.expect("self holds the sender");
        }
    }
}

impl Deref for Reading<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        &self.0
    }
}
